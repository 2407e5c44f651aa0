"""What the paper computes over its runs: correlation of benchmarks, their map, quartiles of recipes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cambrian.report.published import MME, MME_DIVISOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CVBENCH = "CV-Bench"
MIN_RUNS = 3
"""A correlation over fewer runs says nothing."""


def join_cvbench(scores: Mapping[str, float]) -> dict[str, float]:
    """The fifteen benchmarks of the paper's map: CV-Bench is the mean of its two scores, MME-P is out of 100."""
    joined = {name: value for name, value in scores.items() if not name.startswith(CVBENCH)}
    joined[MME] = joined[MME] / MME_DIVISOR
    joined[CVBENCH] = (scores["CV-Bench-2D"] + scores["CV-Bench-3D"]) / 2
    return joined


def correlate(runs: Sequence[Mapping[str, float]], names: Sequence[str]) -> list[list[float | None]]:
    """Pearson's correlation of every two benchmarks over the runs; None where a benchmark does not vary."""
    import numpy

    if len(runs) < MIN_RUNS:
        return [[None] * len(names) for _ in names]
    columns = numpy.array([[run[name] for name in names] for run in runs])
    deviations = columns - columns.mean(axis=0)
    norms = numpy.linalg.norm(deviations, axis=0)
    return [
        [
            round(float(deviations[:, i] @ deviations[:, j] / (norms[i] * norms[j])), 4)
            if norms[i] * norms[j]
            else None
            for j in range(len(names))
        ]
        for i in range(len(names))
    ]


def map_benchmarks(
    runs: Sequence[Mapping[str, float]], printed: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Each benchmark's place on the first two principal components of its standardised scores over the runs.

    A benchmark is a point whose coordinates are its scores, each benchmark standardised over the runs. Components have
    unit length over the benchmarks; a component's sign is arbitrary, and the one that agrees with the printed map is
    taken.
    """
    import numpy

    names = list(printed)

    if len(runs) < MIN_RUNS:
        return {}
    points = numpy.array([[run[name] for run in runs] for name in names])
    points = points - points.mean(axis=1, keepdims=True)
    spread = points.std(axis=1, keepdims=True)
    points = numpy.divide(points, spread, out=numpy.zeros_like(points), where=spread > 0)
    components = numpy.linalg.svd(points - points.mean(axis=0), full_matrices=False)[0][:, :2]
    agreement = (components * numpy.array([printed[name] for name in names])).sum(axis=0)
    signs = numpy.where(agreement < 0, -1.0, 1.0)
    places = numpy.round(components * signs, 6)
    return {name: (float(place[0]), float(place[1])) for name, place in zip(names, places, strict=True)}


def contrast_groups(matrix: Sequence[Sequence[float | None]], groups: Sequence[str]) -> float | None:
    """Mean correlation of benchmarks of one group less that of benchmarks of two; None where either has no pair."""
    pairs: dict[bool, list[float]] = {True: [], False: []}
    for i, row in enumerate(matrix):
        for j, value in enumerate(row[:i]):
            if value is not None:
                pairs[groups[i] == groups[j]].append(value)
    if not pairs[True] or not pairs[False]:
        return None
    return math.fsum(pairs[True]) / len(pairs[True]) - math.fsum(pairs[False]) / len(pairs[False])


def measure_grouping(
    runs: Sequence[Mapping[str, float]], names: Sequence[str], groups: Sequence[str]
) -> tuple[float, float] | None:
    """The contrast of groups over the runs and its jackknife error over them; None for too few runs."""
    left_out = [contrast_groups(correlate([*runs[:i], *runs[i + 1 :]], names), groups) for i in range(len(runs))]
    whole = contrast_groups(correlate(runs, names), groups)
    known = [value for value in left_out if value is not None]
    if whole is None or len(known) < len(runs) or len(runs) <= MIN_RUNS:
        return None
    centre = math.fsum(known) / len(known)
    variance = (len(known) - 1) / len(known) * math.fsum((value - centre) ** 2 for value in known)
    return whole, math.sqrt(variance)


def box(values: Sequence[float]) -> dict[str, float]:
    """A box plot's numbers: quartiles by linear interpolation, whiskers to the last value within 1.5 times the box."""
    import numpy

    first, median, third = (float(value) for value in numpy.percentile(values, [25, 50, 75]))
    reach = 1.5 * (third - first)
    inside = [value for value in values if first - reach <= value <= third + reach]
    return {"low": min(inside), "first": first, "median": median, "third": third, "high": max(inside)}
