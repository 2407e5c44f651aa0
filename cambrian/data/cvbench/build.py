"""CV-Bench built in two steps: items proposed with a file to review them in, and the set that the review leaves."""

from __future__ import annotations

import csv
import io
import string
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from cambrian.artifacts import read_manifest, write_folder, write_json
from cambrian.data.cvbench.questions import COLOURS, find_candidates
from cambrian.interfaces import ArtifactError
from cambrian.runtime import generator_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cambrian.data.cvbench.annotations import Annotated
    from cambrian.data.cvbench.questions import Candidate, Rules, Task

ITEMS_NAME = "test.parquet"
REVIEW_NAME = "review.csv"
DECISIONS = ("accept", "correct", "reject")
_LINE_WIDTH = 3


def propose_items(
    pictures: Sequence[Annotated], *, rules: Rules, seed: int, open_picture: Callable[[str], bytes], output: Path
) -> None:
    """Write proposed items in the published set's columns, and `review.csv` with an empty decision for each.

    A picture gives at most one item of a task; which, and which answer stands under which letter, depends on the seed
    and the picture's name alone.

    Raises:
        ArtifactError: a picture is missing or cannot be decoded, or no picture allows a task that is asked for.
    """
    rows: list[dict[str, Any]] = []
    by_source: dict[str, list[Annotated]] = {}
    for picture in sorted(pictures, key=lambda one: (one.source, one.file)):
        by_source.setdefault(picture.source, []).append(picture)
    for source, members in by_source.items():
        categories = sorted({thing.category for picture in members for thing in picture.things})
        for task, wanted in rules.items.items():
            if task in ("Depth", "Distance") and not any(thing.corners for one in members for thing in one.things):
                continue
            chosen = _choose(members, task, rules, categories, seed)[:wanted]
            if not chosen:
                raise ArtifactError(f"no picture of {source} allows a question of {task}: widen the rules' margins")
            for picture, candidate, place in chosen:
                rows.append(_make_row(len(rows), picture, candidate, place, open_picture(picture.file)))
    with write_folder(output, seed=seed, rules=rules.model_dump(mode="json")) as folder:
        _write_rows(folder / ITEMS_NAME, rows)
        with (folder / REVIEW_NAME).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["idx", "task", "prompt", "answer", "decision", "corrected_answer"])
            writer.writerows([row["idx"], row["task"], row["prompt"], row["answer"], "", ""] for row in rows)


def finish_items(proposed: Path, *, review: Path, output: Path) -> None:
    """Write the items that a review accepted or corrected, and `ledger.json` with the count of every decision.

    Raises:
        ArtifactError: an item has no decision or two, a decision is not one, a corrected answer is no option's letter,
            or a decision is about no item.
    """
    import pyarrow.parquet

    read_manifest(proposed)
    rows = pyarrow.parquet.ParquetFile(proposed / ITEMS_NAME).read().to_pylist()
    decisions = _read_review(review, {row["idx"] for row in rows})
    kept = []
    for row in rows:
        decision, corrected = decisions[row["idx"]]
        if decision == "correct":
            letters = [f"({letter})" for letter, _ in zip(string.ascii_uppercase, row["choices"], strict=False)]
            if corrected not in letters:
                raise ArtifactError(
                    f"{review}: item {row['idx']} is corrected to {corrected!r}, expected one of {', '.join(letters)}"
                )
            row["answer"] = corrected
        if decision != "reject":
            kept.append(row)
    counts = Counter(decision for decision, _ in decisions.values())
    assert len(kept) + counts["reject"] == len(rows)
    with write_folder(output, proposed=len(rows)) as folder:
        _write_rows(folder / ITEMS_NAME, kept)
        write_json(folder / "ledger.json", {"proposed": len(rows), "kept": len(kept), **counts})


def _choose(
    pictures: Sequence[Annotated], task: Task, rules: Rules, categories: Sequence[str], seed: int
) -> list[tuple[Annotated, Candidate, int]]:
    """One question of each picture that allows one, pictures in an order of the seed, and the answer's place."""
    found = []
    for picture in pictures:
        rng = np.random.default_rng(generator_seed(seed, f"cvbench/{task}/{picture.source}/{picture.file}"))
        order = float(rng.random())
        candidates = find_candidates(picture, task, rules, categories=categories, rng=rng)
        if candidates:
            # every answer that the picture allows is as likely, so that none is a good guess
            answers = sorted({candidate.answer for candidate in candidates})
            answer = answers[int(rng.integers(len(answers)))]
            alike = [candidate for candidate in candidates if candidate.answer == answer]
            candidate = alike[int(rng.integers(len(alike)))]
            found.append((order, picture, candidate, int(rng.integers(len(candidate.others) + 1))))
    return [(picture, candidate, place) for _, picture, candidate, place in sorted(found, key=lambda one: one[0])]


def _make_row(idx: int, picture: Annotated, candidate: Candidate, place: int, data: bytes) -> dict[str, Any]:
    if candidate.task == "Count":
        choices = sorted([candidate.answer, *candidate.others], key=int)
    else:
        choices = list(candidate.others)
        choices.insert(place, candidate.answer)
    options = "\n".join(f"({letter}) {choice}" for letter, choice in zip(string.ascii_uppercase, choices, strict=False))
    return {
        "idx": idx,
        "type": "3D" if candidate.task in ("Depth", "Distance") else "2D",
        "task": candidate.task,
        "image": {"bytes": _draw(data, candidate, picture.file), "path": picture.file},
        "question": candidate.text,
        "choices": choices,
        "answer": f"({string.ascii_uppercase[choices.index(candidate.answer)]})",
        "prompt": f"{candidate.text} Select from the following choices.\n{options}",
        "filename": picture.file,
        "source": picture.source,
        "source_dataset": picture.source,
        "source_filename": picture.file,
        "target_class": candidate.target,
        "bbox": [list(box) for box in candidate.boxes],
    }


def _draw(data: bytes, candidate: Candidate, name: str) -> bytes:
    """The picture with the boxes that the question names, as PNG; the file as it is where none is drawn."""
    from PIL import Image, ImageDraw

    if not candidate.is_drawn:
        return data
    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise ArtifactError(f"{name} cannot be decoded ({error}): fetch the data set again") from error
    pen = ImageDraw.Draw(picture)
    for box, colour in zip(candidate.boxes, COLOURS, strict=False):
        pen.rectangle(box, outline=colour, width=_LINE_WIDTH)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _read_review(path: Path, known: set[int]) -> dict[int, tuple[str, str]]:
    decisions: dict[int, tuple[str, str]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            entries = [
                (int(row["idx"]), row["decision"].strip(), row["corrected_answer"].strip())
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path} is no review ({error!r}): it needs idx, decision and corrected_answer") from error
    for idx, decision, corrected in entries:
        if idx in decisions or idx not in known:
            what = "two decisions about" if idx in decisions else "a decision about no item,"
            raise ArtifactError(f"{path} has {what} {idx}")
        if decision not in DECISIONS:
            raise ArtifactError(f"{path}: item {idx} has the decision {decision!r}, expected {', '.join(DECISIONS)}")
        decisions[idx] = decision, corrected
    if missing := sorted(known - decisions.keys()):
        raise ArtifactError(f"{path} has no decision about {len(missing)} items, the first is {missing[0]}")
    return decisions


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
