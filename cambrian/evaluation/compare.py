"""`cambrian compare RUN_A RUN_B`: what changed between two runs beyond noise, and on which items."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_manifest, write_json
from cambrian.evaluation.benchmarks.registry import GROUPS, PAPER_SCORES, find_benchmark, read_items
from cambrian.evaluation.config import EvaluationConfig
from cambrian.evaluation.metrics import mean_scores, out_of_100
from cambrian.evaluation.replies import read_replies
from cambrian.evaluation.scoring import find_texts, grade_replies
from cambrian.evaluation.statistics import Difference, adjust_p_values, compare_credits, normal_p_value
from cambrian.interfaces import ArtifactError
from cambrian.params import ParamsFiles
from cambrian.runtime import generator_seed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from cambrian.interfaces import Item, Reply

AVERAGE = "Average"
LEVEL = 0.05
"""A change is beyond noise when its p-value, adjusted for the number of scores compared, is below this."""
NUM_RESAMPLES = 10_000
WITHOUT_IMAGE = ":without-image"
"""Behind a run's name: its replies without the image."""
_REPLIES_NAME = "replies.parquet"
_NUM_SHOWN = 3
"""Items shown of each kind of change, of each score."""
_SEED = 0


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item whose credit differs between two runs."""

    item: Item
    replies: tuple[str, str]
    credits: tuple[float, float]
    """0 to 1."""


@dataclass(frozen=True, slots=True)
class ScoreChange:
    """One score of two runs."""

    name: str
    difference: Difference
    adjusted_p: float
    """By Holm, over all scores of the comparison."""
    items: list[ItemChange]
    """Those whose credit differs, in the benchmark's order."""

    @property
    def is_beyond_noise(self) -> bool:
        """Whether chance is ruled out at LEVEL."""
        return self.adjusted_p < LEVEL


@dataclass(frozen=True, slots=True)
class MeanChange:
    """One of the paper's means over scores, of two runs, 0 to 100."""

    name: str
    first: float
    second: float
    standard_error: float
    """Of `second - first`; the scores' items are different ones, so their errors add in squares."""
    adjusted_p: float
    """From the normal distribution, by Holm over all means of the comparison."""


@dataclass(frozen=True, slots=True)
class Answers:
    """One side of a comparison: a run's replies in one of the two modes."""

    name: str
    replies: Mapping[str, Sequence[Reply]]
    """By benchmark; both modes."""
    with_image: bool


def compare_answers(items: Mapping[str, Sequence[Item]], first: Answers, second: Answers) -> list[ScoreChange]:
    """Compare two sets of replies to the same items, score by score; items without a public answer are left out.

    Raises:
        ArtifactError: a side has no reply to an item, two, or one to something that is no item.
        ValueError: two items have one id.
    """
    differences: dict[str, Difference] = {}
    changed: dict[str, list[ItemChange]] = {}
    for name, members in items.items():
        one, two = (_grade(name, members, side) for side in (first, second))
        known = [item for item in members if item.answers]
        if not known:
            continue
        differences[name] = compare_credits(
            find_benchmark(name).metric,
            known,
            [credit for _, credit in one],
            [credit for _, credit in two],
            num_resamples=NUM_RESAMPLES,
            seed=generator_seed(_SEED, f"comparison/{name}"),
        )
        changed[name] = [
            ItemChange(item, (before, after), (credit, other))
            for item, (before, credit), (after, other) in zip(known, one, two, strict=True)
            if credit != other
        ]
    adjusted = adjust_p_values({name: difference.p_value for name, difference in differences.items()})
    return [ScoreChange(name, differences[name], adjusted[name], changed[name]) for name in differences]


def compare_means(changes: Sequence[ScoreChange]) -> list[MeanChange]:
    """What the changes of scores do to the means of the paper's groups of scores, and to the mean of all of them.

    There are none where none of the paper's scores was compared.
    """
    by_name = {change.name: change.difference for change in changes if change.name in PAPER_SCORES}
    if not by_name:
        return []
    members = {
        group: [benchmark.name for benchmark in benchmarks if benchmark.name in by_name]
        for group, benchmarks in GROUPS.items()
    }
    members = {**{group: names for group, names in members.items() if names}, AVERAGE: list(by_name)}
    first, second = (
        _means({name: getattr(difference, side) for name, difference in by_name.items()})
        for side in ("first", "second")
    )
    errors = {
        group: math.hypot(*(out_of_100(name, by_name[name].standard_error) for name in names)) / len(names)
        for group, names in members.items()
    }
    adjusted = adjust_p_values(
        {group: normal_p_value(second[group] - first[group], errors[group]) for group in members}
    )
    return [MeanChange(group, first[group], second[group], errors[group], adjusted[group]) for group in members]


def format_changes(changes: Sequence[ScoreChange], first: str, second: str, *, num_shown: int) -> str:
    """The comparison as text: a line for each score and mean, then the items behind what changed beyond noise."""
    num_groups = sum(change.difference.groups for change in changes)
    lines = [
        f"A = {first}",
        f"B = {second}",
        "",
        f"{'score':14}{'A':>8}{'B':>8}{'B - A':>8}{'error':>7}{'better':>8}{'worse':>7}{'of':>6}{'p':>9}  verdict",
        *map(_format_score, changes),
        "",
        *map(_format_mean, compare_means(changes)),
        "",
        f"p: how often runs that are equally good differ as much, for all {len(changes)} scores at once and for all "
        "means at once (Holm).",
        f"of: groups of items that are right or wrong together, {num_groups} in all.",
    ]
    beyond = [change for change in changes if change.is_beyond_noise]
    if not beyond:
        lines.append(f"Nothing changed beyond noise (p below {LEVEL}).")
    for change in beyond:
        lines += _format_items(change, num_shown)
    return "\n".join(lines) + "\n"


def read_answers(run: str, results: Path) -> Answers:
    """Read a run's replies: `run` is its name in `results` or a folder, with `:without-image` behind it or not.

    Raises:
        ArtifactError: there are no replies, or none in the mode that is asked for.
    """
    name = run.removesuffix(WITHOUT_IMAGE)
    with_image = name == run
    folder = Path(name) if (Path(name) / _REPLIES_NAME).is_file() else results / name
    replies = read_replies(folder / _REPLIES_NAME)
    if not any(reply.with_image == with_image for members in replies.values() for reply in members):
        hint = f"; compare {name}{WITHOUT_IMAGE}" if with_image else ""
        raise ArtifactError(
            f"{folder / _REPLIES_NAME} has no replies {'with' if with_image else 'without'} the image{hint}"
        )
    return Answers(run, replies, with_image)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cambrian compare`."""
    run_help = f"a run of params.yaml, or a folder with its {_REPLIES_NAME}; NAME{WITHOUT_IMAGE} for the other mode"
    parser.add_argument("first", metavar="RUN_A", help=run_help)
    parser.add_argument("second", metavar="RUN_B", help="the run it is compared with, of the same scale")
    parser.add_argument("--items", type=int, default=_NUM_SHOWN, help="items shown of each kind (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="a file for all of it, every changed item included")


def run(arguments: argparse.Namespace) -> None:
    """Compare two runs of the scale that params.yaml names, and print what changed."""
    files = ParamsFiles()
    results = Path("results") / files.scale / "runs"
    first, second = (read_answers(name, results) for name in (arguments.first, arguments.second))
    folder = Path("data") / files.scale / "benchmarks"
    read_manifest(folder)
    config = files.block("evaluation", EvaluationConfig)
    items = {name: read_items(folder, name, prompt) for name, prompt in config.prompts.items()}
    changes = compare_answers(items, first, second)
    if arguments.json is not None:
        write_json(arguments.json, [_describe(change) for change in changes])
    sys.stdout.write(format_changes(changes, first.name, second.name, num_shown=arguments.items))


def _grade(name: str, items: Sequence[Item], side: Answers) -> list[tuple[str, float]]:
    """The reply and the credit of every item that has a public answer."""
    if name not in side.replies:
        raise ArtifactError(f"{side.name} has no replies to {name}: it was evaluated with other scores")
    replies = side.replies[name]
    texts = find_texts(items, replies, with_image=side.with_image)
    credits_ = grade_replies(items, replies, with_image=side.with_image)
    return [(text, credit) for item, text, credit in zip(items, texts, credits_, strict=True) if item.answers]


def _means(scores: Mapping[str, float]) -> dict[str, float]:
    groups, average = mean_scores(scores)
    return {**groups, AVERAGE: average}


def _format_score(change: ScoreChange) -> str:
    found = change.difference
    return _format_row(
        change.name,
        (found.first, found.second, found.standard_error),
        f"{found.better:8}{found.worse:7}{found.groups:6}",
        change.adjusted_p,
    )


def _format_mean(change: MeanChange) -> str:
    values = (change.first, change.second, change.standard_error)
    return _format_row(change.name, values, " " * 21, change.adjusted_p)


def _format_row(name: str, values: tuple[float, float, float], counts: str, adjusted_p: float) -> str:
    first, second, error = values
    verdict = "" if adjusted_p >= LEVEL else "better" if second > first else "worse"
    p_value = "< .0001" if adjusted_p < 1e-4 else f"{adjusted_p:.4f}".removeprefix("0")
    return (
        f"{name:14}{first:8.1f}{second:8.1f}{second - first:+8.1f}{error:7.1f}{counts}{p_value:>9}  {verdict}".rstrip()
    )


def _format_items(change: ScoreChange, num_shown: int) -> list[str]:
    lines = []
    for what, members in (
        ("B is better on", [one for one in change.items if one.credits[1] > one.credits[0]]),
        ("B is worse on", [one for one in change.items if one.credits[1] < one.credits[0]]),
    ):
        if members:
            lines += ["", f"{change.name}: {what} {len(members)} items"]
            lines += [
                f"  {one.item.id}  {one.item.question!r}  answer {' | '.join(one.item.answers)!r}  "
                f"A {one.replies[0]!r}  B {one.replies[1]!r}"
                for one in members[:num_shown]
            ]
            if len(members) > num_shown:
                lines.append(f"  and {len(members) - num_shown} more")
    return lines


def _describe(change: ScoreChange) -> dict[str, Any]:
    return {
        "score": change.name,
        **asdict(change.difference),
        "change": change.difference.change,
        "adjusted_p": change.adjusted_p,
        "is_beyond_noise": change.is_beyond_noise,
        "items": [
            {
                "id": one.item.id, "question": one.item.question, "choices": one.item.choices,
                "answers": one.item.answers, "replies": one.replies, "credits": one.credits,
            }
            for one in change.items
        ],
    }  # fmt: skip
