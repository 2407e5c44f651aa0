from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import benchmarks.executor
from benchmarks.executor import judge, make_large

if TYPE_CHECKING:
    from pathlib import Path

UP_TO_DATE = {"dvc": [2.0, 9.0, 2.0], "ours": [3.0, 3.0, 4.0]}
CHANGED = {"dvc": 5.0, "ours": 13.0}
SLEEPING = {"dvc": 64.0, "2": 32.0, "8": 10.0}


def test_a_project_that_was_never_run_is_up_to_date_for_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.executor, "NUM_STAGES", 6)
    monkeypatch.setattr(benchmarks.executor, "WIDTH", 2)
    monkeypatch.setattr(benchmarks.executor, "NUM_CHANGED", 2)
    project, stages, params = make_large(tmp_path)
    lock = project.read_lock()
    assert len(lock["stages"]) == 6
    project.time("dvc", "repro", "--quiet")
    assert project.read_lock() == lock
    project.write(stages, {"values": params["values"] | {"value5": -1}})
    with pytest.raises(AssertionError, match="stage5"):
        project.assert_up_to_date()
    project.time("dvc", "repro", "--quiet")
    assert (tmp_path / "out5.txt").read_text() == project.outs["out5.txt"]


def test_the_median_counts_and_the_overhead_is_per_stage() -> None:
    assert judge(UP_TO_DATE, CHANGED, SLEEPING) == {
        "up_to_date_ratio": 1.5,
        "overhead_s": 1.0,
        "speedup_2": 2.0,
        "speedup_8": 6.4,
        "meets": True,
    }


@pytest.mark.parametrize(
    ("up_to_date", "changed", "sleeping"),
    [
        (UP_TO_DATE | {"ours": [5.0]}, CHANGED | {"ours": 15.0}, SLEEPING),
        (UP_TO_DATE, CHANGED | {"ours": 24.0}, SLEEPING),
        (UP_TO_DATE, CHANGED, SLEEPING | {"2": 36.0}),
        (UP_TO_DATE, CHANGED, SLEEPING | {"8": 11.0}),
    ],
)
def test_one_missed_goal_is_a_miss(
    up_to_date: dict[str, list[float]], changed: dict[str, float], sleeping: dict[str, float]
) -> None:
    assert judge(up_to_date, changed, sleeping)["meets"] is False


def test_a_run_that_fails_is_not_timed(tmp_path: Path) -> None:
    project = benchmarks.executor.Project(tmp_path, {})
    with pytest.raises(RuntimeError, match="failed"):
        project.time("dvc", "repro")
