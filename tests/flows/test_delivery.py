from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from flows.delivery import DeliveryError, commit_results

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name in ("dvc.lock", "code.py"):
        (tmp_path / name).write_text("1\n")
    (tmp_path / ".gitignore").write_text("scores.json\n")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", "first")
    return tmp_path


def test_results_are_one_commit_on_a_branch_and_the_checkout_stays(repository: Path) -> None:
    (repository / "dvc.lock").write_text("2\n")
    (repository / "scores.json").write_text("{}")
    head, index = git(repository, "rev-parse", "HEAD"), git(repository, "ls-files", "--stage")
    (repository / "sub").mkdir()
    for name in ("dvc.lock", "notes.txt"):
        (repository / "sub" / name).write_text("new\n")
    commit = commit_results(repository, "results/mini", "Results\n\nmore")
    assert commit == git(repository, "rev-parse", "results/mini")
    assert git(repository, "rev-parse", "results/mini^") == head == git(repository, "rev-parse", "HEAD")
    assert git(repository, "diff", "--name-only", "HEAD", "results/mini").split() == ["dvc.lock", "sub/dvc.lock"]
    assert git(repository, "show", "results/mini:dvc.lock") == "2"
    assert git(repository, "log", "-1", "--format=%B", "results/mini") == "Results\n\nmore"
    assert git(repository, "ls-files", "--stage") == index
    assert git(repository, "status", "--porcelain") == "M dvc.lock\n?? sub/"


def test_the_next_results_replace_the_last_ones(repository: Path) -> None:
    for text in ("2\n", "3\n"):
        (repository / "dvc.lock").write_text(text)
        commit_results(repository, "results/mini", "Results")
    assert git(repository, "rev-list", "--count", "main..results/mini") == "1"
    assert git(repository, "show", "results/mini:dvc.lock") == "3"


def test_without_a_change_there_is_no_commit(repository: Path) -> None:
    assert commit_results(repository, "results/mini", "Results") is None
    assert git(repository, "branch", "--list", "results/*") == ""


def test_results_of_code_that_is_in_no_commit_are_refused(repository: Path) -> None:
    (repository / "dvc.lock").write_text("2\n")
    (repository / "code.py").write_text("edited\n")
    with pytest.raises(DeliveryError, match=r"code\.py was edited and is not committed"):
        commit_results(repository, "results/mini", "Results")
    assert git(repository, "branch", "--list", "results/*") == ""


def test_the_branch_that_is_checked_out_is_left_alone(repository: Path) -> None:
    with pytest.raises(DeliveryError, match="main is checked out"):
        commit_results(repository, "main", "Results")


def test_what_the_run_makes_and_git_holds_is_a_result(repository: Path) -> None:
    (repository / "tables").mkdir()
    (repository / "tables/one.csv").write_text("1\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "-m", "tables")
    (repository / "tables/one.csv").write_text("2\n")
    (repository / "tables/two.csv").write_text("3\n")
    with pytest.raises(DeliveryError, match=r"tables/one\.csv was edited"):
        commit_results(repository, "results", "Results")
    commit_results(repository, "results", "Results", ["tables"])
    assert git(repository, "show", "results:tables/one.csv") == "2"
    assert git(repository, "show", "results:tables/two.csv") == "3"
