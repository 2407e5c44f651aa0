"""The words of `python -m flows why` on real DVC and git repositories."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from flows.graph import GraphError, Project
from flows.why import explain_stage
from tests.flows.conftest import DIAMOND, DIAMOND_PARAMS, stage

if TYPE_CHECKING:
    from tests.flows.conftest import DemoProject


def explain(address: str) -> list[str]:
    with Project() as project:
        return explain_stage(project, address)


def commit(project: DemoProject) -> None:
    for command in (["add", "--all"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *command], cwd=project.root, check=True)


def test_nothing_changed(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    assert explain("report") == ["report is up to date, and so is everything that it depends on."]


def test_a_value_from_what_to_what(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    diamond.write(DIAMOND, DIAMOND_PARAMS | {"sizes": {"small": 1, "large": 3}})
    lines = explain("train@large")
    assert (lines[0], lines[-1]) == ("train@large would run:", "  param sizes.large changed from 2 to 3")
    assert lines[1] == "  its command changed"  # it has the value in it
    assert explain("report")[: len(lines)] == lines
    assert explain("report")[len(lines) :] == [
        "report runs if what it depends on changes:",
        "  it depends on train@large, which may make something else",
    ]


def test_the_innermost_value_is_named(project: DemoProject) -> None:
    stages: dict[str, object] = {"train": stage("echo 1 > out.txt", out="out.txt", params=["model"])}
    project.write(stages, {"model": {"dim": 8, "layers": [1, 2], "old": True}})
    project.dvc("repro")
    project.write(stages, {"model": {"dim": 16, "layers": [1, 3], "new": "x"}})
    assert explain("train")[1:] == [
        "  param model.dim changed from 8 to 16",
        "  param model.layers[1] changed from 2 to 3",
        "  param model.old was True, and is gone",
        "  param model.new is new: x",
    ]


def test_the_lines_of_a_source(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    commit(diamond)
    (diamond.root / "source.txt").write_text("1\n2\nthree\n")
    lines = explain("collect")
    assert lines[0] == "collect would run:"
    assert lines[1].startswith("  source.txt changed (")
    assert lines[2].startswith("    since ")
    assert "      +three" in lines


def test_lines_are_found_from_a_folder_below(diamond: DemoProject, monkeypatch: pytest.MonkeyPatch) -> None:
    (diamond.root / "sub").mkdir()
    (diamond.root / "sub/dvc.yaml").write_text(
        "stages: {a: {cmd: cp ../source.txt a.txt, deps: [../source.txt], outs: [a.txt]}}"
    )
    diamond.dvc("repro", "--quiet", "sub/dvc.yaml")
    commit(diamond)
    (diamond.root / "source.txt").write_text("1\n2\nthree\n")
    assert "      +three" in explain("sub/dvc.yaml:a")
    monkeypatch.chdir(diamond.root / "sub")
    assert "      +three" in explain("a")


def test_the_version_with_which_it_ran_is_found_behind_later_commits(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    commit(diamond)
    for text in ("1\n2\n3\n", "1\n2\n3\n4\n"):
        (diamond.root / "source.txt").write_text(text)
        commit(diamond)
    lines = explain("collect")
    assert {"      +3", "      +4"} <= set(lines)
    assert not any("in no commit" in line for line in lines)


def test_a_version_that_was_never_committed_is_said_to_be_so(diamond: DemoProject) -> None:
    commit(diamond)
    (diamond.root / "source.txt").write_text("never committed\n")
    diamond.dvc("repro")
    (diamond.root / "source.txt").write_text("1\n2\nnow\n")
    assert any(
        line.startswith("    the version with which it ran is in no commit; the nearest is")
        for line in explain("collect")
    )


def test_the_files_of_a_folder(project: DemoProject) -> None:
    (project.root / "code" / "deep").mkdir(parents=True)
    for name in ("a.py", "b.py", "deep/c.py"):
        (project.root / "code" / name).write_text("x = 1\n")
    project.write({"use": stage("echo 1 > out.txt", deps=["code"], out="out.txt")})
    project.dvc("repro")
    commit(project)
    (project.root / "code/deep/c.py").write_text("x = 2\n")
    (project.root / "code/new.py").write_text("")
    lines = explain("use")
    assert any(line.startswith("    since ") for line in lines), lines
    assert {"      code/deep/c.py", "      -x = 1", "      +x = 2"} <= set(lines)
    assert "      code/new.py is new, and git does not know it" in lines
    assert not any("a.py" in line for line in lines)


def test_a_command_an_output_and_a_stage_that_never_ran(diamond: DemoProject) -> None:
    assert explain("aside") == ["aside would run:", "  it has never run: dvc.lock has no entry for it"]
    diamond.dvc("repro")
    (diamond.root / "aside.txt").unlink()
    assert explain("aside")[1:] == ["  its output aside.txt is missing"]
    (diamond.root / "aside.txt").write_text("edited\n")
    assert explain("aside")[1:] == ["  its output aside.txt is not what it made"]
    diamond.dvc("checkout", "--force", "aside.txt")
    diamond.write(DIAMOND | {"aside": stage("echo aside > aside.txt #", out="aside.txt")}, DIAMOND_PARAMS)
    lines = explain("aside")
    assert lines[1] == "  its command changed"
    assert lines[3].endswith("aside.txt #")


def test_a_dependency_that_another_stage_makes_is_named_with_its_maker(project: DemoProject) -> None:
    project.write(
        {"a": stage("echo 1 > a.txt", out="a.txt"), "b": stage("cp a.txt b.txt", deps=["a.txt"], out="b.txt")}
    )
    project.dvc("repro")
    project.write(
        {"a": stage("echo 2 > a.txt", out="a.txt"), "b": stage("cp a.txt b.txt", deps=["a.txt"], out="b.txt")}
    )
    project.dvc("repro", "--single-item", "a")
    lines = explain("b")
    assert lines[1].startswith("  a.txt, which a makes, changed (")
    (project.root / "a.txt").unlink()
    assert "  a.txt, which a makes, is missing" in explain("b")


def test_an_unknown_stage_is_an_error_of_the_command(diamond: DemoProject) -> None:
    with pytest.raises(GraphError, match="'tarin' not found"):
        explain("tarin")
    ended = subprocess.run(
        [sys.executable, "-m", "flows", "why", "tarin"], cwd=diamond.root, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "'tarin' not found" in ended.stderr


def test_the_commands_print_and_start_nothing(diamond: DemoProject) -> None:
    def ask(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "flows", *arguments], cwd=diamond.root, capture_output=True, text=True, check=True
        ).stdout

    assert "aside would run:" in ask("why", "aside")
    table = ask("plan", "--cpus", "2").splitlines()
    assert table[1].split()[:2] == ["collect", "new"]
    assert table[-1].startswith("5 stages to run, 0 up to date; 0.0 minutes one after the other, and 5 of unknown")
    assert diamond.list_ran() == []
    diamond.dvc("repro")
    assert ask("plan") == "nothing to do: 5 stages are up to date\n"
