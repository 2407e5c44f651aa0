"""`cambrian regrade RUN ...`: stored replies by the paper's rules, by strict ones and by a judge, side by side.

One set of raw replies, several readings: what is between two columns is measuring, not model. Items whose labels are
disputed (disputed.yaml) are scored with and without.
"""

from __future__ import annotations

import csv
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.artifacts import read_manifest
from cambrian.evaluation.benchmarks.registry import find_benchmark, read_items
from cambrian.evaluation.compare import read_answers
from cambrian.evaluation.config import EvaluationConfig
from cambrian.evaluation.judge import Judge
from cambrian.evaluation.metrics import score_credits
from cambrian.evaluation.scoring import find_texts
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
    strict: float
    difference: float
    """Strict less published."""
    replies_read_differently: int
    disputed_items: int
    without_disputed_items: float | None
    """By the paper's rules, without the items whose labels are disputed; None where they are all of them."""
    judge: float | None
    """None where no judge was named."""
    judge_difference: float | None
    """Judge less published."""


def regrade(
    answers: Answers,
    items: Mapping[str, Sequence[Item]],
    *,
    disputed: Mapping[str, frozenset[str]],
    judge: Judge | None,
) -> list[Readings]:
    """Every score of one run in every reading; items without a public answer are left out.

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
            found.append(_read_score(answers.name, name, pairs, disputed.get(name, frozenset()), judge))
    return found


def read_disputed(benchmarks: Path) -> dict[str, frozenset[str]]:
    """Ids of the disputed items, by score, of those data sets that were taken as published."""
    published = read_manifest(benchmarks).get("sources", {})
    return {
        name: frozenset(f"{name}/{entry['id']}" for entry in entries)
        for name, entries in read_yaml(DISPUTED_PATH).items()
        if name in published
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cambrian regrade`."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run of params.yaml, or a folder with its replies")
    parser.add_argument("--csv", type=Path, help="a file for the table")
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
    rows = [
        row
        for name in arguments.runs
        for row in regrade(
            read_answers(name, Path("results") / files.scale / "runs"), items, disputed=disputed, judge=judge
        )
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
        f"{'undisputed':>11}"
    ]
    for row in rows:
        judged = "" if row.judge is None else f"{row.judge:.1f}"
        undisputed = "" if row.without_disputed_items is None else f"{row.without_disputed_items:.1f}"
        lines.append(
            f"{row.run:20} {row.score:12}{row.items:6}{row.published:8.1f}{row.strict:8.1f}{row.difference:+7.1f}"
            f"{row.replies_read_differently:8}{judged:>8}{undisputed:>11}"
        )
    return "\n".join(lines) + "\n"


def _read_score(
    run: str, name: str, pairs: Sequence[tuple[Item, str]], disputed: frozenset[str], judge: Judge | None
) -> Readings:
    benchmark = find_benchmark(name)
    items, texts = [item for item, _ in pairs], [text for _, text in pairs]
    published = [benchmark.match(text, item) for item, text in pairs]
    rule = strict_rule(benchmark.match)
    strict = [rule(text, item) for item, text in pairs]
    kept = [number for number, item in enumerate(items) if item.id not in disputed]
    judged = judge.grade(items, texts) if judge is not None else None

    def score(credits_: Sequence[float], numbers: Sequence[int] = range(len(items))) -> float:
        return score_credits(benchmark.metric, [items[n] for n in numbers], [credits_[n] for n in numbers])[0]

    by_judge = None if judged is None else score(judged)
    return Readings(
        run=run,
        score=name,
        items=len(items),
        published=score(published),
        strict=score(strict),
        difference=score(strict) - score(published),
        replies_read_differently=sum(one != two for one, two in zip(published, strict, strict=True)),
        disputed_items=len(items) - len(kept),
        without_disputed_items=score(published, kept) if kept else None,
        judge=by_judge,
        judge_difference=None if by_judge is None else by_judge - score(published),
    )
