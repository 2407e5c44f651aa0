"""`cambrian regrade RUN ...`: stored replies by the paper's rules, by strict ones and by a judge, side by side.

One set of raw replies, several readings: what is between two columns is measuring, not model. Items whose labels are
disputed (disputed.yaml) are scored with and without, as are items whose picture is among the training images.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.artifacts import read_manifest
from cambrian.data.image_facts import digest_image
from cambrian.evaluation.benchmarks.registry import find_benchmark, read_items
from cambrian.evaluation.compare import read_answers
from cambrian.evaluation.config import EvaluationConfig
from cambrian.evaluation.judge import Judge
from cambrian.evaluation.metrics import group_values, mean_of_strata, score_credits
from cambrian.evaluation.scoring import find_texts
from cambrian.evaluation.statistics import paired_changes
from cambrian.evaluation.strict import strict_rule
from cambrian.interfaces import ArtifactError
from cambrian.params import ParamsFiles, read_yaml

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from cambrian.evaluation.compare import Answers
    from cambrian.interfaces import Item

DISPUTED_PATH = Path(__file__).parent / "disputed.yaml"


@dataclass(frozen=True, slots=True)
class Readings:
    """One score of one run, read in every way."""

    run: str
    score: str
    items: int
    """On which the score rests."""
    published: float
    """By the paper's rules."""
    standard_error: float
    """Of the score by the paper's rules."""
    strict: float
    strict_error: float
    difference: float
    """Strict less published."""
    difference_error: float
    """Over paired groups."""
    replies_read_differently: int
    disputed_items: int
    without_disputed_items: float | None
    """By the paper's rules, without the items whose labels are disputed; None where they are all of them.

    Where items are right or wrong together (MMVP's pairs), the whole group goes: half a pair is easier than a pair."""
    leaked_items: int
    """Whose picture looks like one of the training images."""
    without_leaked_items: float | None
    """By the paper's rules, on the groups of which nothing is leaked; None where there is none."""
    without_leaked_error: float | None
    judge: float | None
    """None where no judge was named."""
    judge_error: float | None
    judge_difference: float | None
    """Judge less published."""
    judge_difference_error: float | None
    """Over paired groups."""


def regrade(
    answers: Answers,
    items: Mapping[str, Sequence[Item]],
    *,
    disputed: Mapping[str, frozenset[str]],
    leaked: Mapping[str, frozenset[str]],
    judge: Judge | None,
) -> list[Readings]:
    """Every score of one run in every reading; items without a public answer are left out.

    `disputed` and `leaked` are ids of items, by score.

    Raises:
        ArtifactError: an item has no reply or two, or the judge cannot be asked.
    """
    found = []
    for name, members in items.items():
        if name not in answers.replies:
            raise ArtifactError(f"{answers.name} has no replies to {name}: it was evaluated with other scores")
        texts = find_texts(members, answers.replies[name], with_image=answers.with_image)
        pairs = [(item, text) for item, text in zip(members, texts, strict=True) if item.answers]
        if pairs:
            found.append(
                _read_score(
                    answers.name,
                    name,
                    pairs,
                    disputed=disputed.get(name, frozenset()),
                    leaked=leaked.get(name, frozenset()),
                    judge=judge,
                )
            )
    return found


def read_disputed(benchmarks: Path) -> dict[str, frozenset[str]]:
    """Ids of the disputed items, by score, of those data sets that were taken as published."""
    published = read_manifest(benchmarks).get("sources", {})
    return {
        name: frozenset(f"{name}/{entry['id']}" for entry in entries)
        for name, entries in read_yaml(DISPUTED_PATH).items()
        if name in published
    }


def read_leaked(path: Path, items: Mapping[str, Sequence[Item]]) -> dict[str, frozenset[str]]:
    """Ids of the items whose picture looks like a training image, by score; `path` is what the gate of a mix wrote.

    Raises:
        ArtifactError: the file is missing or is not one of test pictures, or it has not seen an item's picture.
    """
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.ParquetFile(path).read(columns=["digest", "training_images"]).to_pylist()
        training_images = {row["digest"]: row["training_images"] for row in rows}
    except (OSError, KeyError, pyarrow.ArrowInvalid) as error:
        raise ArtifactError(f"{path} is not a gate's list of test pictures ({error}): run `dvc repro`") from error
    leaked = {}
    for name, members in items.items():
        digests = {item.id: digest_image(item.image) for item in members if item.image is not None}
        unseen = [item_id for item_id, digest in digests.items() if digest not in training_images]
        if unseen:
            raise ArtifactError(
                f"{path} does not know the picture of {unseen[0]} and of {len(unseen) - 1} others: the benchmarks have "
                "changed since the gate compared them; run `dvc repro`"
            )
        leaked[name] = frozenset(item_id for item_id, digest in digests.items() if training_images[digest])
    return leaked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cambrian regrade`."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run of params.yaml, or a folder with its replies")
    parser.add_argument("--csv", type=Path, help="a file for the table")
    parser.add_argument(
        "--leakage", type=Path, help="a gate's data/SCALE/leakage/MIX.parquet: scores the clean part too"
    )
    parser.add_argument("--judge", help="the name of a model behind OPENAI_BASE_URL")
    parser.add_argument(
        "--recordings", type=Path, default=Path("judgements.jsonl"), help="what the judge said (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Regrade runs of the scale that params.yaml names, and print the table."""
    files = ParamsFiles()
    folder = Path("data") / files.scale / "benchmarks"
    disputed = read_disputed(folder)
    config = files.block("evaluation", EvaluationConfig)
    items = {name: read_items(folder, name, prompt) for name, prompt in config.prompts.items()}
    judge = Judge(arguments.judge, arguments.recordings) if arguments.judge is not None else None
    leaked = {} if arguments.leakage is None else read_leaked(arguments.leakage, items)
    results = Path("results") / files.scale / "runs"
    rows = [
        row
        for name in arguments.runs
        for row in regrade(read_answers(name, results), items, disputed=disputed, leaked=leaked, judge=judge)
    ]
    if arguments.csv is not None:
        write_readings(arguments.csv, rows)
    sys.stdout.write(format_readings(rows))


def write_readings(path: Path, rows: Sequence[Readings]) -> None:
    """Write the table as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Readings)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def format_readings(rows: Sequence[Readings]) -> str:
    """The table as text."""
    lines = [
        f"{'run':20} {'score':12}{'items':>6}{'paper':>8}{'strict':>8}{'diff':>7}{'replies':>8}{'judge':>8}"
        f"{'undisputed':>11}{'clean':>8}"
    ]
    for row in rows:
        judged, undisputed, clean = (
            "" if value is None else f"{value:.1f}"
            for value in (row.judge, row.without_disputed_items, row.without_leaked_items)
        )
        lines.append(
            f"{row.run:20} {row.score:12}{row.items:6}{row.published:8.1f}{row.strict:8.1f}{row.difference:+7.1f}"
            f"{row.replies_read_differently:8}{judged:>8}{undisputed:>11}{clean:>8}"
        )
    return "\n".join(lines) + "\n"


def _read_score(
    run: str,
    name: str,
    pairs: Sequence[tuple[Item, str]],
    *,
    disputed: frozenset[str],
    leaked: frozenset[str],
    judge: Judge | None,
) -> Readings:
    benchmark = find_benchmark(name)
    items, texts = [item for item, _ in pairs], [text for _, text in pairs]
    published = [benchmark.match(text, item) for item, text in pairs]
    rule = strict_rule(benchmark.match)
    strict = [rule(text, item) for item, text in pairs]
    judged = judge.grade(items, texts) if judge is not None else None

    def without(ids: frozenset[str]) -> tuple[float, float] | tuple[None, None]:
        groups = {(item.category, item.group) for item in items if item.id in ids}
        kept = [
            (item, credit)
            for item, credit in zip(items, published, strict=True)
            if (item.category, item.group) not in groups
        ]
        return score_credits(benchmark.metric, *zip(*kept, strict=True)) if kept else (None, None)

    def change(credits_: Sequence[float]) -> tuple[float, float]:
        first, second = (group_values(benchmark.metric, items, values) for values in (published, credits_))
        mean, error = mean_of_strata(paired_changes(first, second))
        return benchmark.metric.full_marks * mean, benchmark.metric.full_marks * error

    score, error = score_credits(benchmark.metric, items, published)
    strict_score, strict_error = score_credits(benchmark.metric, items, strict)
    difference, difference_error = change(strict)
    by_judge = (None, None) if judged is None else score_credits(benchmark.metric, items, judged)
    judge_change = (None, None) if judged is None else change(judged)
    clean, clean_error = without(leaked)
    return Readings(
        run=run,
        score=name,
        items=len(items),
        published=score,
        standard_error=error,
        strict=strict_score,
        strict_error=strict_error,
        difference=difference,
        difference_error=difference_error,
        replies_read_differently=sum(one != two for one, two in zip(published, strict, strict=True)),
        disputed_items=sum(item.id in disputed for item in items),
        without_disputed_items=without(disputed)[0],
        leaked_items=sum(item.id in leaked for item in items),
        without_leaked_items=clean,
        without_leaked_error=clean_error,
        judge=by_judge[0],
        judge_error=by_judge[1],
        judge_difference=judge_change[0],
        judge_difference_error=judge_change[1],
    )
