from __future__ import annotations

import math

import pytest

from cambrian.evaluation.benchmarks.benchmark import PERCENT, Metric
from cambrian.evaluation.benchmarks.registry import PAPER_SCORES, find_benchmark
from cambrian.evaluation.metrics import chance_level, mean_scores, score_credits
from cambrian.interfaces import Item

PAIRS = Metric(group_value="all", by_category=False, full_marks=100)
MME = find_benchmark("MME-P").metric


def items(
    *groups: str, categories: tuple[str, ...] = (), choices: tuple[str, ...] = (), answer: str = "x"
) -> list[Item]:
    return [
        Item(
            id=f"X/{number}", benchmark="X", question="?", choices=choices, answers=(answer,),
            category=categories[number] if categories else "", group=group, image=None,
        )
        for number, group in enumerate(groups)
    ]  # fmt: skip


def test_accuracy_has_the_binomial_error() -> None:
    score, error = score_credits(PERCENT, items("0", "1", "2", "3"), [1, 0, 0, 0])
    assert score == 25
    assert error == pytest.approx(100 * math.sqrt(0.25 * 0.75 / 4))


def test_a_pair_counts_only_when_both_are_right() -> None:
    score, error = score_credits(PAIRS, items("0", "0", "1", "1"), [1, 1, 1, 0])
    assert score == 50
    assert error == pytest.approx(100 * math.sqrt(0.25 / 2))


def test_mme_sums_accuracy_and_pair_accuracy_over_its_subtasks() -> None:
    members = items(*"aabbccdd", categories=("count",) * 4 + ("color",) * 4)
    # count: 3 of 4 right, 1 of 2 pairs; color: 4 of 4, 2 of 2. Two subtasks of ten stretch to the full range.
    score, _ = score_credits(MME, members, [1, 1, 1, 0, 1, 1, 1, 1])
    assert score == pytest.approx(1000 * (0.75 + 0.5 + 1 + 1) / 2)


def test_ten_mme_subtasks_give_the_official_sum() -> None:
    names = tuple(f"task-{number}" for number in range(10) for _ in range(4))
    members = items(*(str(number // 2) for number in range(40)), categories=names)
    marks = [float(number % 3 != 0) for number in range(40)]
    official = 0.0
    for start in range(0, 40, 4):
        four = marks[start : start + 4]
        official += 100 * (sum(four) / 4 + (four[0] * four[1] + four[2] * four[3]) / 2)
    assert score_credits(MME, members, marks)[0] == pytest.approx(official)


def test_cvbench_2d_is_the_mean_of_its_sources_whatever_their_sizes() -> None:
    metric = find_benchmark("CV-Bench-2D").metric
    members = items("0", "1", "2", "3", "4", categories=("ADE20K", "COCO", "COCO", "COCO", "COCO"))
    score, error = score_credits(metric, members, [1, 1, 0, 0, 0])
    assert score == pytest.approx((100 + 25) / 2)
    assert error == pytest.approx(50 * math.sqrt(0.25 * 0.75 / 4))


def test_the_order_of_items_changes_nothing() -> None:
    members, marks = items(*"aabbcc", categories=("x", "x", "y", "y", "y", "y")), [1, 0, 1, 1, 0.3, 0.9]
    assert score_credits(MME, members, marks) == score_credits(MME, members[::-1], marks[::-1])


def test_no_items_give_no_score() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        score_credits(PERCENT, [], [])


def test_chance_follows_options_and_groups() -> None:
    four, two = ("a", "b", "c", "d"), ("a", "b")
    assert chance_level(find_benchmark("SEED-I"), items("0", "1", choices=four)) == 25
    assert chance_level(find_benchmark("MMVP"), items("0", "0", "1", "1", choices=two)) == 25
    assert chance_level(find_benchmark("MMB"), items("0", "0", "0", "0", choices=four)) == pytest.approx(100 / 256)
    assert chance_level(find_benchmark("MME-P"), items("0", "0", answer="Yes")) == 750
    assert chance_level(find_benchmark("GQA"), items("0", answer="yes")) == 0
    assert chance_level(find_benchmark("RealWorldQA"), [*items("0", answer="No"), *items("1", answer="3")]) == 25


def test_the_means_are_the_papers() -> None:
    # Cambrian-1-8B of the paper's final table
    published = {
        "MME-P": 1547.1, "MMB": 75.9, "SEED-I": 74.7, "GQA": 64.6, "SQA-I": 80.4, "MMMU-V": 42.7, "MathVista-M": 49.0,
        "AI2D": 73.0, "ChartQA": 73.3, "OCRBench": 62.4, "TextVQA": 71.7, "DocVQA": 77.8, "MMVP": 51.3,
        "RealWorldQA": 64.2, "CV-Bench-2D": 72.3, "CV-Bench-3D": 72.0,
    }  # fmt: skip
    assert set(published) == PAPER_SCORES
    means, average = mean_scores(published)
    printed = {"General": 73.1, "Knowledge": 61.3, "OCR & Chart": 71.3, "Vision-Centric": 65.0}
    assert means == pytest.approx(printed, abs=0.06)  # one decimal is printed
    assert average == pytest.approx(sum(means.values()) / 4)
