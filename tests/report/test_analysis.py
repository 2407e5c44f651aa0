"""The paper's statistics over runs, against other ways to the same numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cambrian.report.analysis import contrast_groups, correlate, map_benchmarks, measure_grouping

NAMES = ["p", "q", "r", "s"]
GROUPS = ["one", "one", "two", "two"]


def make_runs(num_runs: int = 12) -> list[dict[str, float]]:
    """Scores in which p goes with q and r with s, and the two pairs with nothing."""
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, num_runs))
    noise = generator.normal(scale=0.3, size=(4, num_runs))
    columns = np.array([first, first, second, second]) + noise
    return [dict(zip(NAMES, map(float, row), strict=True)) for row in columns.T]


def as_matrix(runs: list[dict[str, float]]) -> np.ndarray:
    return np.array([[run[name] for name in NAMES] for run in runs])


def test_correlations_are_numpys() -> None:
    runs = make_runs()
    assert np.allclose(correlate(runs, NAMES), np.corrcoef(as_matrix(runs).T), atol=1e-4)  # type: ignore[arg-type]


def test_a_benchmark_that_does_not_vary_correlates_with_nothing() -> None:
    runs = [{**run, "q": 7.0} for run in make_runs()]
    matrix = correlate(runs, NAMES)
    assert matrix[1] == [None] * 4
    assert [row[1] for row in matrix] == [None] * 4
    assert matrix[0][0] == 1.0


def test_the_contrast_of_groups_is_within_less_between() -> None:
    matrix = [[1.0, 0.8, 0.1, 0.2], [0.8, 1.0, 0.3, 0.0], [0.1, 0.3, 1.0, 0.6], [0.2, 0.0, 0.6, 1.0]]
    assert contrast_groups(matrix, GROUPS) == pytest.approx((0.8 + 0.6) / 2 - (0.1 + 0.2 + 0.3 + 0.0) / 4)
    assert contrast_groups(matrix, ["one"] * 4) is None


def test_the_error_of_the_contrast_is_the_jackknifes() -> None:
    runs = make_runs()
    measured = measure_grouping(runs, NAMES, GROUPS)
    assert measured is not None

    def contrast(rows: np.ndarray) -> float:
        matrix = np.corrcoef(rows.T)
        return float((matrix[0, 1] + matrix[2, 3]) / 2 - matrix[:2, 2:].mean())

    table = as_matrix(runs)
    left_out = np.array([contrast(np.delete(table, i, axis=0)) for i in range(len(table))])
    error = math.sqrt((len(table) - 1) * left_out.var())
    assert measured == (pytest.approx(contrast(table), abs=1e-3), pytest.approx(error, abs=1e-3))
    assert measured[0] > 0.5


def test_a_contrast_of_three_runs_has_no_error() -> None:
    assert measure_grouping(make_runs(3), NAMES, GROUPS) is None


def test_the_map_has_the_leading_components_with_the_signs_that_are_printed() -> None:
    runs = make_runs()
    printed = {"p": (1.0, -1.0), "q": (1.0, 1.0), "r": (-1.0, -1.0), "s": (-1.0, 1.0)}
    places = np.array(list(map_benchmarks(runs, printed).values()))
    points = as_matrix(runs).T
    points = (points - points.mean(axis=1, keepdims=True)) / points.std(axis=1, keepdims=True)
    points -= points.mean(axis=0)
    values, vectors = np.linalg.eigh(points @ points.T)
    leading = vectors[:, np.argsort(values)[::-1][:2]]
    assert np.allclose(np.abs(places), np.abs(leading), atol=1e-5)
    assert (places * np.array(list(printed.values()))).sum(axis=0).min() > 0
    turned = map_benchmarks(runs, {name: (-x, -y) for name, (x, y) in printed.items()})
    assert np.allclose(np.array(list(turned.values())), -places)
