"""What `kill -9` leaves in a workspace or in a worker's folder is no hindrance, and goes with the next run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flows.checkout import hold_checkout
from flows.elsewhere import Refs
from flows.graph import Project
from flows.snapshot import Snapshot, push_snapshot, take_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import DemoProject


@pytest.fixture
def dead() -> int:
    """The number of a process that was there."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_dead_processes_leave_dvcs_list_of_locks_and_living_ones_stay(diamond: DemoProject, dead: int) -> None:
    alive, gone = {"pid": os.getpid(), "cmd": "me"}, {"pid": dead, "cmd": "flows.stage collect"}
    path = diamond.root / ".dvc/tmp/rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"write": {"a": gone, "b": alive}, "read": {"c": [gone, alive], "d": [gone]}}))
    with Project() as project:
        project.plan()
        project.clear_leftovers()
    assert json.loads(path.read_text()) == {"write": {"b": alive}, "read": {"c": [alive]}}


def test_halves_of_lock_files_go_and_the_lock_files_stay(diamond: DemoProject) -> None:
    diamond.dvc("repro", "--quiet", "collect")
    whole = (diamond.root / "dvc.lock").read_text()
    for name in (".dvc.lock.k3x", ".dvc/tmp/.rwlock.k3x"):
        (diamond.root / name).write_text("sta")
    with Project() as project:
        project.plan()
        project.clear_leftovers()
    assert [path.name for path in diamond.root.rglob("*.k3x")] == []
    assert (diamond.root / "dvc.lock").read_text() == whole


@pytest.mark.parametrize("left", [["index.lock", "shallow.lock"], "a git init that did not end"])
def test_a_folder_in_which_git_was_killed_is_used_again(
    left: list[str] | str, project: DemoProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWS_WORKER_DIR", str(tmp_path / "work"))
    remote = tmp_path / "remote.git"
    project.git("init", "--quiet", "--bare", str(remote))
    project.git("remote", "add", "origin", str(remote))
    (project.root / "file.txt").write_text("1\n")
    project.git("add", "file.txt", ".dvc", ".dvcignore")
    project.git("commit", "--quiet", "--message", "All")
    snapshot = take_snapshot(project.root)
    push_snapshot(snapshot, "origin")
    with hold_checkout(str(remote), snapshot.commit) as checkout:
        git = checkout.folder / ".git"
    if isinstance(left, list):
        for name in left:
            (git / name).touch()
    else:
        (git / "HEAD").unlink()
        (git / "config").unlink()
    with hold_checkout(str(remote), snapshot.commit) as checkout:
        assert (checkout.folder / "file.txt").read_text() == "1\n"
        assert list(git.rglob("*.lock")) == []


def test_a_commit_stays_on_the_git_remote_until_the_last_stage_that_needs_it_has_ended(
    project: DemoProject, tmp_path: Path
) -> None:
    remote = tmp_path / "remote.git"
    project.git("init", "--quiet", "--bare", str(remote))
    project.git("remote", "add", "origin", str(remote))
    project.git("commit", "--quiet", "--allow-empty", "--message", "First")
    snapshot = Snapshot(project.root, project.git("rev-parse", "HEAD").strip())
    refs = Refs("origin")

    def is_there() -> bool:
        return snapshot.ref in project.git("ls-remote", "origin")

    for _ in range(2):  # two stages start with the same dvc.lock, and one of them waits for a worker
        refs.push(snapshot)
    refs.drop(snapshot)
    assert is_there()
    refs.drop(snapshot)
    assert not is_there()
    refs.push_again(snapshot)  # another coordinator of the same files took it away
    assert is_there()
