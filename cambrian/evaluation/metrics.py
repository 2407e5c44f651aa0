"""Credits to scores: with standard error and chance level, and the paper's means over scores."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from cambrian.evaluation.benchmarks.registry import GROUPS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.evaluation.benchmarks.benchmark import Benchmark, Metric
    from cambrian.interfaces import Item

MME_DIVISOR = 20
"""MME-P is 0 to 2000 and enters means divided by this (paper, benchmark section)."""


def score_credits(metric: Metric, items: Sequence[Item], credits_: Sequence[float]) -> tuple[float, float]:
    """The score and its standard error.

    A score is a mean of groups' values (MME's images, MMVP's pairs, MMBench's rotations, single items), or the mean
    over categories of such means. Groups are drawn, so the error of a mean is the standard deviation of its groups'
    values over the square root of their number: for single right-or-wrong items, the binomial's sqrt(p (1 - p) / n).

    Raises:
        ValueError: there is no item.
    """
    score, error = mean_of_strata([list(values.values()) for values in group_values(metric, items, credits_).values()])
    return metric.full_marks * score, metric.full_marks * error


def group_values(metric: Metric, items: Sequence[Item], credits_: Sequence[float]) -> dict[str, dict[str, float]]:
    """The value of every group, by category and group, both sorted; one category of no name where none is asked for."""
    members: dict[tuple[str, str], list[float]] = defaultdict(list)
    for item, credit in zip(items, credits_, strict=True):
        members[item.category if metric.by_category else "", item.group].append(credit)
    strata: dict[str, dict[str, float]] = defaultdict(dict)
    for category, group in sorted(members):
        strata[category][group] = _group_value(metric, members[category, group])
    return dict(strata)


def mean_of_strata(strata: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The mean of the strata's means, and its standard error when each stratum's values are drawn anew.

    Raises:
        ValueError: there is no stratum.
    """
    if not strata:
        raise ValueError("a score needs at least one item")
    means = [math.fsum(values) / len(values) for values in strata]
    variances = [
        math.fsum((value - mean) ** 2 for value in values) / len(values) ** 2
        for values, mean in zip(strata, means, strict=True)
    ]
    return math.fsum(means) / len(strata), math.sqrt(math.fsum(variances)) / len(strata)


def chance_level(benchmark: Benchmark, items: Sequence[Item]) -> float:
    """The score to be expected from guessing every item by itself.

    A group of items that must all be right is right with the product of its items' chances. Open questions count as
    never guessed, as in the paper's figure of scores with and without the image.
    """
    return score_credits(benchmark.metric, items, [_guess_credit(benchmark, item) for item in items])[0]


def mean_scores(scores: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """The mean of each of the paper's groups, and of all scores; MME-P enters divided by 20.

    A group of which no score is there is left out; the mean over all scores is the paper's average of sixteen. Scores
    that are in no group enter neither.

    Raises:
        ValueError: none of the paper's scores is there.
    """
    means = {}
    everything: list[float] = []
    for group, benchmarks in GROUPS.items():
        present = [
            out_of_100(benchmark.name, scores[benchmark.name]) for benchmark in benchmarks if benchmark.name in scores
        ]
        if present:
            means[group] = math.fsum(present) / len(present)
            everything += present
    if not everything:
        raise ValueError(f"a mean needs at least one of the paper's scores, there are {sorted(scores)}")
    return means, math.fsum(everything) / len(everything)


def _group_value(metric: Metric, credits_: Sequence[float]) -> float:
    mean, everything = math.fsum(credits_) / len(credits_), math.prod(credits_)
    return {"mean": mean, "all": everything, "mean-plus-all": mean + everything}[metric.group_value]


def _guess_credit(benchmark: Benchmark, item: Item) -> float:
    if item.choices:
        return 1 / len(item.choices)
    guesses = benchmark.guessed_answers
    return 1 / len(guesses) if any(answer.lower() in guesses for answer in item.answers) else 0.0


def out_of_100(name: str, value: float) -> float:
    """A score on the scale on which scores are averaged: MME-P divided by 20, the others as they are."""
    return value / MME_DIVISOR if name == "MME-P" else value
