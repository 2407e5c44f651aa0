"""Runs that differ in nothing but their seed: their mean, and how far seeds lie apart."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.report.scores import RunScores

SEED = "seed"
MIN_DEGREES_OF_FREEDOM = 8
"""From fewer repeats the spread of seeds is not estimated: a variance from eight is known to about a half."""


def group_seeds(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """The runs by the first of those that are equal but for `seed`, in the order of the rows."""
    groups: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for name, row in rows.items():
        key = repr(sorted((field, value) for field, value in row.items() if field != SEED))
        groups.setdefault(first.setdefault(key, name), []).append(name)
    return groups


def average_seeds(
    scores: Mapping[str, RunScores], groups: Mapping[str, Sequence[str]]
) -> tuple[dict[str, RunScores], dict[str, float]]:
    """The mean over seeds of each group under its first run's name, and each measure's deviation between seeds.

    A run's seeds answer the same questions: the error over items of their mean is theirs, not a smaller one. The
    deviation is pooled over groups and empty where there are too few repeats.
    """
    averaged: dict[str, RunScores] = {}
    squares: dict[str, float] = {}
    degrees = 0
    for name, members in groups.items():
        runs = [scores[member] for member in members if member in scores]
        if not runs:
            continue
        averaged[name] = _average(name, runs)
        if len(runs) > 1:
            degrees += len(runs) - 1
            for measure, centre in averaged[name].headline.items():
                spread = math.fsum((run.headline[measure] - centre) ** 2 for run in runs)
                squares[measure] = squares.get(measure, 0.0) + spread
    if degrees < MIN_DEGREES_OF_FREEDOM:
        return averaged, {}
    return averaged, {measure: math.sqrt(total / degrees) for measure, total in squares.items()}


def _average(name: str, runs: Sequence[RunScores]) -> RunScores:
    if len(runs) == 1:
        return replace(runs[0], run=name)
    means: dict[str, dict[str, float]] = {}
    for reading in ("with_image", "without_image", "standard_error", "chance"):
        readings = [getattr(run, reading) for run in runs]
        means[reading] = {
            measure: math.fsum(numbers[measure] for numbers in readings) / len(readings) for measure in readings[0]
        }
    return replace(runs[0], run=name, num_seeds=len(runs), **means)
