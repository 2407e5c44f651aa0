"""Findings on three or four hand-made runs: effects, errors and intervals worked out beside them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cambrian.report.config import Contrast, Finding, ReportConfig, read_tables_config
from cambrian.report.findings import Judged, judge_findings
from cambrian.report.published import read_published
from cambrian.report.scores import RunScores
from cambrian.report.talk import Talk

CONFIG = ReportConfig(min_standard_errors=2.0, seed_standard_deviation=1.0)
MEASURE = "General"


def run(name: str, score: float, *, blind: float = 30.0, error: float = 2.0, num_seeds: int = 1) -> RunScores:
    return RunScores(
        name,
        with_image={MEASURE: score, "MME-P": 10 * score},
        without_image={MEASURE: blind, "MME-P": 10 * blind},
        standard_error={MEASURE: error, "MME-P": 10 * error},
        chance={MEASURE: 25.0, "MME-P": 250.0},
        num_seeds=num_seeds,
    )


def judge(*runs: RunScores, talk: dict[str, Talk] | None = None, spread: float | None = None, **fields: Any) -> Judged:
    values: dict[str, Any] = {
        "id": "one", "claim": "one", "source": "ours", "measure": MEASURE, "reading": "with_image", "plus": ["a"],
        "minus": ["b"], "paired": True, "expect": "above", "limit": 0.0,
    }  # fmt: skip
    (judged,) = judge_findings(
        [Finding(**{**values, **fields})],
        {one.run: one for one in runs},
        CONFIG,
        read_tables_config(),
        read_published(),
        seed_deviations={} if spread is None else {MEASURE: spread},
        talk=talk or {},
    )
    return judged


def test_an_effect_is_the_difference_with_errors_over_items_and_seeds() -> None:
    judged = judge(run("a", 50.0, error=3.0), run("b", 41.0, error=4.0))
    assert judged.effect == pytest.approx(9.0)
    error = math.sqrt(3**2 + 4**2 + 2 * 1.0**2)
    assert judged.standard_error == pytest.approx(error, abs=1e-3)
    assert judged.low == pytest.approx(9 - 1.96 * error, abs=1e-3)
    assert judged.high == pytest.approx(9 + 1.96 * error, abs=1e-3)
    assert judged.verdict == "inconclusive"


def test_three_seeds_shrink_the_error_of_seeds_and_not_that_of_items() -> None:
    judged = judge(run("a", 50.0, num_seeds=3), run("b", 41.0, num_seeds=3))
    assert judged.standard_error == pytest.approx(math.sqrt(2 * 2**2 + 2 * 1.0**2 / 3), abs=1e-3)


def test_a_measured_spread_of_seeds_takes_the_place_of_the_scales() -> None:
    judged = judge(run("a", 50.0), run("b", 41.0), spread=5.0)
    assert judged.standard_error == pytest.approx(math.sqrt(2 * 2**2 + 2 * 5.0**2), abs=1e-3)


def test_paired_runs_are_left_out_together() -> None:
    fields = {"plus": ["a", "c"], "minus": ["b", "d"]}
    judged = judge(run("a", 50.0), run("b", 41.0), run("c", 90.0), **fields)
    assert (judged.effect, judged.runs, judged.missing) == (9.0, ["a", "b"], ["d"])
    together = judge(run("a", 50.0), run("b", 41.0), run("c", 90.0), paired=False, **fields)
    assert (together.effect, together.runs) == (70.0 - 41.0, ["a", "b", "c"])


def test_a_relative_effect_is_the_difference_of_two() -> None:
    other = Contrast(measure=MEASURE, plus=["c"], minus=["d"])
    judged = judge(run("a", 50.0), run("b", 41.0), run("c", 45.0), run("d", 43.0), relative_to=other)
    assert judged.effect == pytest.approx(9.0 - 2.0)
    assert judged.standard_error == pytest.approx(math.sqrt(4 * 2**2 + 4 * 1.0**2), abs=1e-3)


def test_a_gap_is_with_less_without_the_image_out_of_100() -> None:
    judged = judge(run("a", 50.0, blind=38.0), minus=[], paired=False, reading="gap", measure="MME-P")
    assert judged.effect == pytest.approx((500 - 380) / 20)
    assert judged.standard_error == pytest.approx(math.sqrt(2 * (20 / 20) ** 2 + 1.0**2), abs=1e-3)


def test_blind_over_chance_is_without_the_image_less_guessing() -> None:
    judged = judge(run("a", 50.0, blind=38.0), minus=[], paired=False, reading="blind_over_chance", expect="below")
    assert (judged.effect, judged.verdict) == (13.0, "not supported")


def test_without_one_side_nothing_is_judged() -> None:
    judged = judge(run("a", 50.0))
    assert (judged.effect, judged.low, judged.verdict, judged.missing) == (None, None, "not attempted", ["b"])


def test_a_claim_about_all_its_runs_is_not_judged_by_some() -> None:
    fields = {"plus": ["a", "c"], "minus": ["b", "d"], "paired": False}
    runs = [run(name, score) for name, score in (("a", 50.0), ("b", 41.0), ("c", 52.0), ("d", 45.0))]
    part = judge(*runs[:3], needs_all=True, **fields)
    assert (part.effect, part.verdict, part.runs, part.missing) == (None, "not attempted", [], ["d"])
    assert judge(*runs, needs_all=True, **fields).effect == pytest.approx(51.0 - 43.0)


def talk_of(*words: float) -> Talk:
    return Talk({"words in a reply": list(words)})


def test_talk_is_compared_question_by_question() -> None:
    fields = {"reading": "talk", "measure": "words in a reply"}
    judged = judge(talk={"a": talk_of(5, 7, 9), "b": talk_of(1, 2, 3)}, **fields)
    assert judged.effect == pytest.approx(5.0)
    assert judged.standard_error == pytest.approx(math.sqrt(2) / 3, abs=1e-3)  # of 4, 5, 6
    assert (judged.verdict, judged.runs) == ("supported", ["a", "b"])
    alone = judge(talk={"a": talk_of(5, 7, 9)}, **fields)
    assert (alone.effect, alone.verdict, alone.missing) == (None, "not attempted", ["b"])
