from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flows.difference import DifferenceError, MetricChange, list_metric_changes, write_difference

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import DemoProject


def commit(root: Path) -> None:
    for command in (["add", "--all"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def write_scores(project: DemoProject, score: float, rate: float) -> None:
    scores = json.dumps({"mmlu": {"score": score, "standard_error": 3.0}, "items": 10})
    project.write(
        {
            "train": {
                "cmd": f"echo '{scores}' > scores.json; seq {int(score)} > model.txt",
                "params": ["rate"],
                "outs": ["model.txt"],
                "metrics": ["scores.json"],
            }
        },
        {"rate": rate},
    )
    project.dvc("repro", "--quiet")


def test_scores_params_data_and_minutes_stand_in_the_difference(project: DemoProject) -> None:
    write_scores(project, 40, 0.1)
    commit(project.root)
    write_scores(project, 55, 0.2)
    text = write_difference(project.root, "HEAD", {"train": [60.0, 90.0]}, noise_metric="standard_error")
    assert "| `scores.json: mmlu.score` | 40 | 55 | +15 | 3.5 standard errors |" in text
    assert "standard_error`" not in text
    assert "| `params.yaml: rate` | `0.1` | `0.2` |" in text
    assert "| `model.txt` | 111 bytes | 156 bytes |" in text
    assert "| `train` | 1.00 | 1.50 |" in text


def test_without_a_change_there_is_nothing_to_say(project: DemoProject) -> None:
    write_scores(project, 40, 0.1)
    commit(project.root)
    text = write_difference(project.root, "HEAD", {}, noise_metric="standard_error")
    assert text.endswith("\nNothing changed.\n")


def test_every_dvc_lock_counts(project: DemoProject) -> None:
    (project.root / "sub").mkdir()
    pipeline = project.root / "sub/dvc.yaml"
    pipeline.write_text("stages: {a: {cmd: seq 3 > a.txt, outs: [a.txt]}}")
    project.dvc("repro", "--quiet", "sub/dvc.yaml")
    commit(project.root)
    pipeline.write_text("stages: {a: {cmd: seq 4 > a.txt, outs: [a.txt]}}")
    project.dvc("repro", "--quiet", "sub/dvc.yaml")
    text = write_difference(project.root, "HEAD", {"sub/dvc.yaml:a": [60.0]}, noise_metric="standard_error")
    assert "| `sub/a.txt` | 6 bytes | 8 bytes |" in text
    assert "| `sub/dvc.yaml:a` |  | 1.00 |" in text


def test_before_the_first_run_everything_is_new(project: DemoProject) -> None:
    (project.root / "readme").write_text("x")
    commit(project.root)
    write_scores(project, 40, 0.1)
    text = write_difference(project.root, "HEAD", {}, noise_metric="standard_error")
    assert "| `scores.json: mmlu.score` |  | 40 |  | new |" in text


@pytest.mark.parametrize(
    ("old", "new", "error", "verdict"),
    [
        (40.0, 44.0, 3.0, "1.3 standard errors, noise"),
        (40.0, 46.0, 3.0, "2.0 standard errors"),
        (40.0, 30.0, 2.0, "5.0 standard errors"),
        (40.0, 30.0, None, ""),
        (None, 30.0, None, "new"),
        (30.0, None, 1.0, "gone"),
    ],
)
def test_a_difference_within_two_standard_errors_is_noise(
    old: float | None, new: float | None, error: float | None, verdict: str
) -> None:
    assert MetricChange("a", old, new, error).verdict == verdict


def test_the_noise_of_a_difference_has_that_of_both_sides() -> None:
    values = {"a.score": {"old": 1, "new": 2}, "a.noise": {"old": 3, "new": 4}, "b": {"old": 5, "new": 5}}
    (change,) = list_metric_changes({"s.json": values}, noise_metric="noise")
    assert change == MetricChange("s.json: a.score", 1, 2, 5.0)
    del values["a.noise"]["old"]
    (change,) = list_metric_changes({"s.json": values}, noise_metric="noise")
    assert change.standard_error is None


def test_a_commit_that_there_is_not_is_named(project: DemoProject) -> None:
    with pytest.raises(DifferenceError, match="nowhere"):
        write_difference(project.root, "nowhere", {}, noise_metric="standard_error")


def test_the_command_prints_markdown(project: DemoProject) -> None:
    write_scores(project, 40, 0.1)
    commit(project.root)
    write_scores(project, 41, 0.1)
    printed = subprocess.run(
        [sys.executable, "-m", "flows", "diff"], cwd=project.root, capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith("## Against ")
    assert "| `scores.json: mmlu.score` | 40 | 41 | +1 | 0.2 standard errors, noise |" in printed
