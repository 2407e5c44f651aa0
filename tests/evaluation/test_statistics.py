from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.stats

from cambrian.evaluation import statistics
from cambrian.evaluation.benchmarks.benchmark import PERCENT, Metric
from cambrian.evaluation.benchmarks.registry import find_benchmark
from cambrian.evaluation.metrics import score_credits
from cambrian.evaluation.statistics import (
    Difference,
    Estimate,
    adjust_p_values,
    binomial_interval,
    compare_credits,
    estimate_score,
    mcnemar_p_value,
    normal_p_value,
    p_value_of_draws,
    resample_means,
)
from cambrian.interfaces import Item

PAIRS = find_benchmark("MMVP").metric
ROTATIONS = find_benchmark("MMB").metric
MME = find_benchmark("MME-P").metric
CVBENCH = find_benchmark("CV-Bench-2D").metric


def items(*groups: str, categories: tuple[str, ...] = ()) -> list[Item]:
    return [
        Item(
            id=f"X/{number}", benchmark="X", question="?", choices=(), answers=("x",),
            category=categories[number] if categories else "", group=group, image=None,
        )
        for number, group in enumerate(groups)
    ]  # fmt: skip


def singles(count: int) -> list[Item]:
    return items(*map(str, range(count)))


def estimate(metric: Metric, members: list[Item], marks: list[float]) -> Estimate:
    return estimate_score(metric, members, marks, confidence=0.95, num_resamples=2000, seed=1)


def compare(metric: Metric, members: list[Item], first: list[float], second: list[float]) -> Difference:
    return compare_credits(metric, members, first, second, num_resamples=2000, seed=1)


def test_an_accuracy_has_the_interval_of_clopper_and_pearson() -> None:
    found = estimate(PERCENT, singles(10), [1.0] * 3 + [0.0] * 7)
    assert (found.groups, found.method) == (10, "clopper-pearson")
    assert found.score == pytest.approx(30)
    assert found.standard_error == pytest.approx(100 * math.sqrt(0.3 * 0.7 / 10))
    assert [found.low, found.high] == pytest.approx([6.674, 65.245], abs=1e-3)  # Clopper and Pearson's table


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (1999, 4000)])
def test_the_binomial_interval_is_scipys(successes: int, trials: int) -> None:
    expected = scipy.stats.binomtest(successes, trials).proportion_ci(0.9, method="exact")
    assert binomial_interval(successes, trials, confidence=0.9) == pytest.approx(tuple(expected), abs=1e-9)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 3), (4, 3)])
def test_an_impossible_count_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {trials} trials"):
        binomial_interval(successes, trials, confidence=0.95)


def test_a_perfect_score_is_still_uncertain() -> None:
    found = estimate(PERCENT, singles(20), [1.0] * 20)
    assert found.standard_error == 0
    assert found.low == pytest.approx(100 * 0.025 ** (1 / 20))
    assert found.high == 100


@pytest.mark.parametrize("metric", [PAIRS, ROTATIONS])
def test_what_is_drawn_is_the_group_not_the_item(metric: Metric) -> None:
    members, marks = items(*"aabbccdd"), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    found = estimate(metric, members, marks)
    assert (found.score, found.groups) == (50, 4)
    assert found.standard_error == pytest.approx(100 * math.sqrt(0.25 / 4))
    assert (found.low / 100, found.high / 100) == binomial_interval(2, 4, confidence=0.95)


def test_the_bootstrap_agrees_with_the_error_of_a_sum_of_subtasks() -> None:
    generator = random.Random(0)
    names = tuple(f"task-{number % 5}" for number in range(400) for _ in range(2))
    members = items(*(str(number // 2) for number in range(800)), categories=names)
    marks = [float(generator.random() < 0.7) for _ in members]
    found = estimate(MME, members, marks)
    assert (found.method, found.groups) == ("bootstrap", 400)
    # 1.96 standard errors on each side, within the bootstrap's own error for 2000 draws (3%) and its lack of symmetry
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.standard_error, rel=0.1)
    assert found.low < found.score < found.high


def test_a_weighted_mean_keeps_the_sizes_of_its_sources() -> None:
    members = items(*"abcde", categories=("ADE20K", "COCO", "COCO", "COCO", "COCO"))
    found = estimate(CVBENCH, members, [1.0, 1.0, 0.0, 0.0, 0.0])
    assert found.method == "bootstrap"
    assert found.score == 62.5
    # the one item of ADE20K is drawn every time, so the score lies between 50 and 100
    assert 50 <= found.low < 62.5 < found.high <= 100


def test_credits_between_right_and_wrong_are_resampled() -> None:
    found = estimate(PERCENT, singles(4), [0.3, 0.6, 1.0, 0.0])
    assert found.method == "bootstrap"
    assert found.score == pytest.approx(47.5)


def test_resampled_means_are_those_of_all_resamples() -> None:
    # two groups in one stratum, one in the other: means of (0, .5, 1) and 1, with chances 1/4, 1/2, 1/4
    draws = resample_means([[0.0, 1.0], [1.0]], num_resamples=40_000, seed=3)
    values, counts = np.unique(draws, return_counts=True)
    assert values.tolist() == [0.5, 0.75, 1.0]
    assert (counts / 40_000).tolist() == pytest.approx([0.25, 0.5, 0.25], abs=0.01)  # four standard errors


def test_the_bound_on_memory_changes_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    strata = [[0.0, 0.5, 1.0], [0.2, 0.9, 0.4, 0.1]]
    whole = resample_means(strata, num_resamples=101, seed=3)
    monkeypatch.setattr(statistics, "_MAX_DRAWN", 7)
    assert np.array_equal(resample_means(strata, num_resamples=101, seed=3), whole)


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [(0, 0, 1), (1, 0, 1), (5, 0, 2 / 32), (0, 6, 2 / 64), (1, 9, 22 / 1024), (3, 3, 1), (2000, 2000, 1)],
)
def test_mcnemar_is_the_exact_binomial_test(better: int, worse: int, expected: float) -> None:
    assert mcnemar_p_value(better, worse) == pytest.approx(expected)
    if better + worse:
        assert mcnemar_p_value(better, worse) == pytest.approx(scipy.stats.binomtest(better, better + worse).pvalue)


def test_right_and_wrong_are_compared_by_their_discordant_items() -> None:
    first, second = [1.0] * 10 + [0.0] * 10, [1.0] * 9 + [0.0] + [1.0] * 6 + [0.0] * 4
    found = compare(PERCENT, singles(20), first, second)
    assert (found.first, found.second, found.change) == (50, 75, 25)
    assert (found.better, found.worse, found.groups, found.method) == (6, 1, 20, "mcnemar")
    assert found.p_value == pytest.approx(2 * (1 + 7) / 2**7)
    # differences: six of +1, one of -1, thirteen of 0
    assert found.standard_error == pytest.approx(100 * math.sqrt((7 / 20 - 0.25**2) / 20))


def test_pairs_are_compared_as_pairs() -> None:
    found = compare(PAIRS, items(*"aabbcc"), [1, 0, 1, 1, 0, 0], [1, 1, 0, 1, 0, 1])
    assert (found.better, found.worse, found.groups, found.change) == (1, 1, 3, 0)
    assert found.p_value == 1


def test_a_run_compared_with_itself_has_not_changed() -> None:
    for metric in (PERCENT, MME, CVBENCH):
        found = compare(metric, singles(4), [1.0, 0.3, 0.0, 1.0], [1.0, 0.3, 0.0, 1.0])
        assert (found.change, found.standard_error, found.p_value, found.better, found.worse) == (0, 0, 1, 0, 0)


def test_the_paired_bootstrap_sees_what_unpaired_errors_hide() -> None:
    generator = random.Random(5)
    first = [generator.random() * 0.8 for _ in range(100)]
    second = [credit + 0.02 for credit in first]
    found = compare(PERCENT, singles(100), first, second)
    assert found.method == "bootstrap"
    assert found.p_value < 0.001
    assert found.change < estimate(PERCENT, singles(100), first).standard_error
    assert found.p_value == 1 / 2001  # never 0: the found difference is one of the draws


def test_noise_is_called_a_change_as_often_as_it_should_be() -> None:
    """Two runs that are equally good differ at a level of .1 in about a tenth of the comparisons."""
    generator, called = np.random.default_rng(0), 0
    for number in range(300):
        first, second = generator.choice([0.0, 0.3, 0.6, 1.0], size=(2, 80)).tolist()
        found = compare_credits(PERCENT, singles(80), first, second, num_resamples=300, seed=number)
        called += found.p_value < 0.1
    assert 0.05 < called / 300 < 0.155  # 0.1 with three standard errors of 300 comparisons, .017 each


def test_the_order_of_items_changes_no_digit() -> None:
    generator = random.Random(2)
    names = tuple(generator.choice(("x", "y", "z")) for _ in range(60))
    members = items(*(str(generator.randrange(25)) for _ in range(60)), categories=names)
    first, second = ([float(generator.random() < share) for _ in members] for share in (0.5, 0.6))
    order = generator.sample(range(60), 60)
    for metric in (PERCENT, PAIRS, MME, CVBENCH):
        mixed = [members[index] for index in order]
        assert estimate(metric, mixed, [first[index] for index in order]) == estimate(metric, members, first)
        assert compare(metric, mixed, [first[index] for index in order], [second[index] for index in order]) == compare(
            metric, members, first, second
        )


def test_a_removed_item_leaves_the_numbers_of_the_rest() -> None:
    members, marks = singles(30), [float(number % 3 == 0) for number in range(30)]
    rest = [number for number in range(30) if number != 17]
    kept = estimate(PERCENT, [members[number] for number in rest], [marks[number] for number in rest])
    fresh = estimate(PERCENT, [member for member in members if member.id != "X/17"], marks[:17] + marks[18:])
    assert kept == fresh
    assert (kept.score, kept.standard_error) == score_credits(PERCENT, singles(29), marks[:17] + marks[18:])
    assert kept.groups == 29


def test_item_ids_that_stand_twice_are_named() -> None:
    twice = [*singles(3), singles(2)[1]]
    with pytest.raises(ValueError, match=r"1 item ids stand more than once: X/1; ids must differ"):
        estimate(PERCENT, twice, [1.0] * 4)
    with pytest.raises(ValueError, match="X/1"):
        compare(PERCENT, twice, [1.0] * 4, [0.0] * 4)


def test_no_items_give_no_estimate() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        estimate(PERCENT, [], [])


def test_holm_multiplies_the_smallest_by_the_number_of_tests() -> None:
    adjusted = adjust_p_values({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(adjusted) == list("abcd")
    assert adjust_p_values({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
    assert adjust_p_values({}) == {}


def test_the_p_value_of_draws_counts_the_found_one() -> None:
    assert p_value_of_draws(1.0, np.array([1.0, 2.5, 0.0, 1.2])) == pytest.approx((1 + 2) / 5)
    assert p_value_of_draws(0.0, np.array([0.0, 0.0])) == 1


def test_the_normal_p_value_is_the_two_sided_one() -> None:
    assert normal_p_value(-1.96, 1.0) == pytest.approx(0.05, abs=1e-4)
    assert (normal_p_value(0.0, 0.0), normal_p_value(1.0, 0.0)) == (1, 0)
