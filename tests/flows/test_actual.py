from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from flows.actual import describe_commit, write_actual
from flows.graph import Project
from flows.settings import SettingsError, read_settings
from tests.flows.test_difference import commit

if TYPE_CHECKING:
    from tests.flows.conftest import DemoProject


def note_run(project: DemoProject, stage: str, wall_s: float, *, ended: float | None = None) -> None:
    """Add a line to the log of stages, as a stage does at its end."""
    path = project.root / "logs/timings.jsonl"
    path.parent.mkdir(exist_ok=True)
    finished = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() if ended is None else ended))
    line = {"stage": stage, "finished": finished, "wall_s": wall_s, "cpu_s": 1.5 * wall_s, "peak_mib": 100}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


@pytest.fixture
def trained(project: DemoProject) -> DemoProject:
    """Two stages that ran just now, and a log of both."""
    (project.root / "pyproject.toml").write_text('[tool.flows]\nactual_file = "{scale}/actual.json"\n')
    (project.root / ".gitignore").write_text("logs\n")
    train = {"cmd": "mkdir -p ${scale}/${item} && echo 1 > ${scale}/${item}/weights", "outs": ["${scale}/${item}"]}
    project.write({"train": {"foreach": ["a", "b"], "do": train}}, {"scale": "small"})
    project.dvc("repro", "--quiet")
    commit(project.root)
    for name in ("a", "b"):
        note_run(project, f"train@{name}", 5.0)
    return project


def write(project: DemoProject, scale: str = "small") -> dict[str, Any]:
    settings = read_settings(project.root / "pyproject.toml")
    with Project() as opened:
        path = write_actual(opened, project.root / "logs/timings.jsonl", settings)
    assert path == project.root / scale / "actual.json"
    stages: dict[str, Any] = json.loads(path.read_text())["stages"]
    return stages


def test_what_stages_took_stands_with_commit_and_machine(trained: DemoProject) -> None:
    stages = write(trained)
    assert set(stages) == {"train@a", "train@b"}
    assert (stages["train@a"]["wall_s"], stages["train@a"]["cpu_s"]) == (5.0, 7.5)
    assert stages["train@a"]["commit"] == trained.git("rev-parse", "--short", "HEAD").strip()
    assert f"{len(os.sched_getaffinity(0))} cores" in stages["train@a"]["machine"]


def test_what_is_known_keeps_its_commit_and_what_ran_again_gets_a_new_one(trained: DemoProject) -> None:
    first = write(trained)
    trained.git("commit", "--allow-empty", "--quiet", "--message", "later")
    assert write(trained) == first
    weights = trained.root / "small/b/weights"
    later = time.time() + 60
    os.utime(weights, (later - 1, later - 1))
    note_run(trained, "train@b", 3.0, ended=later)
    second = write(trained)
    assert second["train@a"] == first["train@a"]
    assert second["train@b"]["wall_s"] == 3.0
    assert second["train@b"]["commit"] == trained.git("rev-parse", "--short", "HEAD").strip()


def test_the_log_of_a_run_that_did_not_make_what_lies_here_is_not_taken(trained: DemoProject) -> None:
    """As after outputs came from the run-cache."""
    note_run(trained, "train@a", 100.0, ended=time.time() + 3600)
    assert set(write(trained)) == {"train@b"}


def test_what_stages_of_the_same_names_took_at_another_scale_is_not_taken(trained: DemoProject) -> None:
    """Their outputs lie here as well, and dvc.lock has them until the stages run at this scale."""
    (trained.root / "params.yaml").write_text("scale: large\n")
    assert write(trained, "large") == {}
    trained.dvc("repro", "--quiet", "train@b")
    note_run(trained, "train@b", 9.0)
    assert set(write(trained, "large")) == {"train@b"}


def test_nothing_is_noted_of_the_stage_that_reads_the_file(trained: DemoProject) -> None:
    """It runs again when the file changes; with its own time in it, the file would change at every run."""
    write(trained)
    stages = yaml.safe_load((trained.root / "dvc.yaml").read_text())["stages"]
    stages["publish"] = {"cmd": "cp small/actual.json report", "deps": ["small/actual.json"], "outs": ["report"]}
    trained.write(stages, {"scale": "small"})
    trained.dvc("repro", "--quiet")
    note_run(trained, "publish", 5.0)
    assert set(write(trained)) == {"train@a", "train@b"}
    assert trained.dvc("status") == "Data and pipelines are up to date."


@pytest.mark.parametrize(
    ("path", "is_edit"),
    [
        ("params.yaml", True),
        ("code.py", True),
        ("dvc.lock", False),
        ("scores.json", False),
        ("small/actual.json", False),
    ],
)
def test_a_commit_that_is_not_all_of_what_ran_is_called_edited(project: DemoProject, path: str, is_edit: bool) -> None:
    (project.root / "small").mkdir()
    for name in ("params.yaml", "code.py", "dvc.lock", "scores.json", "small/actual.json"):
        (project.root / name).write_text("a: 1\n")
    commit(project.root)
    commit_id = project.git("rev-parse", "--short", "HEAD").strip()
    written = ["scores.json", "small/actual.json"]
    assert describe_commit(project.root, written) == commit_id
    (project.root / path).write_text("a: 2\n")
    assert describe_commit(project.root, written) == commit_id + (" with edits" if is_edit else "")


def test_without_a_place_to_write_to_the_command_says_so(trained: DemoProject) -> None:
    (trained.root / "pyproject.toml").unlink()
    with Project() as opened, pytest.raises(SettingsError, match="has no actual_file"):
        write_actual(opened, trained.root / "logs/timings.jsonl", read_settings(trained.root / "pyproject.toml"))
    ended = subprocess.run(
        [sys.executable, "-m", "flows.timings", "--write"],
        cwd=trained.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "has no actual_file" in ended.stderr
