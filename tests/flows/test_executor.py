"""Stages at the same time, what is refused before anything runs, and faults: each one is caused, then the next run."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from flows.stage import run_stage
from tests.flows.aftermath import assert_goes_on, find_processes, is_alive, list_lock_files
from tests.flows.conftest import DIAMOND, DIAMOND_PARAMS, DemoProject, stage
from tests.flows.test_reproduce import CLEAN, read_states, run, start_command, wait_for, wait_for_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("prefect_server")


def meet(name: str, other: str) -> str:
    """A command that ends only if another one runs at the same time."""
    return f"touch {name}.up; while [ ! -e {other}.up ]; do sleep 0.05; done; echo {name} > {name}.txt"


def read_lock(project: DemoProject) -> Any:
    """Read what dvc.lock says, whatever the order in which it says it."""
    return yaml.safe_load((project.root / "dvc.lock").read_text())


def test_independent_stages_run_at_the_same_time(project: DemoProject) -> None:
    needs = {"meta": {"flows": {"limit_s": 120}}}
    project.write({"a": stage(meet("a", "b"), out="a.txt", **needs), "b": stage(meet("b", "a"), out="b.txt", **needs)})
    assert run(cpus=2).is_completed()
    assert project.dvc("status") == CLEAN


def test_after_parallel_runs_dvc_has_nothing_to_do_and_the_lock_is_that_of_a_sequential_run(
    project: DemoProject,
) -> None:
    """Twenty stages in four layers, each of which depends on two of the layer before."""
    stages: dict[str, object] = {}
    for number in range(20):
        layer, place = divmod(number, 5)
        deps = [f"{(layer - 1) * 5 + (place + step) % 5}.txt" for step in (0, 1)] if layer else []
        stages[f"s{number}"] = stage(f"cat {' '.join(deps)} > {number}.txt; echo {number} >> {number}.txt",
                                     deps=deps, out=f"{number}.txt")  # fmt: skip
    (project.root / "source.txt").write_text("1\n")
    project.write({name: {**body, "cmd": f"{body['cmd']} < source.txt"} for name, body in stages.items()})  # type: ignore[dict-item, index]
    project.dvc("repro", "--quiet")
    sequential = read_lock(project)
    assert len(sequential["stages"]) == 20
    for _ in range(3):
        (project.root / "dvc.lock").unlink()
        project.list_ran()
        assert run(cpus=8, force=True).is_completed()
        ran = project.list_ran()
        assert sorted(ran) == sorted(stages)
        for number in range(5, 20):
            for dep in stages[f"s{number}"]["deps"]:  # type: ignore[index]
                assert ran.index(f"s{dep.removesuffix('.txt')}") < ran.index(f"s{number}")
        assert read_lock(project) == sequential
        assert project.dvc("status") == CLEAN
        assert project.dvc("repro").endswith(CLEAN)
    assert project.list_ran() == []


def test_a_stage_has_the_gpus_that_it_asked_for(
    project: DemoProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    show = 'echo "$CUDA_VISIBLE_DEVICES" > '
    project.write(
        {
            name: stage(f"{meet(name, other)}; {show} {name}.txt", out=f"{name}.txt", meta={"flows": {"gpus": 1}})
            for name, other in (("a", "b"), ("b", "a"))
        }
        | {"none": stage(f"{show} none.txt", out="none.txt", meta={"flows": {"gpus": 0}})}
    )
    assert run(cpus=3, gpus=["2", "5"]).is_completed()
    shown = {name: (project.root / f"{name}.txt").read_text().strip() for name in ("a", "b", "none")}
    assert {shown["a"], shown["b"]} == {"2", "5"}
    assert shown["none"] == ""


def test_downstream_globs_and_all_pipelines_are_those_of_dvc(diamond: DemoProject) -> None:
    diamond.dvc("repro", "--quiet")
    diamond.list_ran()
    run(targets=["train@small"], downstream=True, force=True)
    assert diamond.list_ran() == ["train@small", "report"]
    assert set(read_states(run(targets=["train@*"], glob=True))) == {"collect", "train@small", "train@large"}
    (diamond.root / "sub").mkdir()
    (diamond.root / "sub/dvc.yaml").write_text("stages: {other: {cmd: echo 1 > other.txt, outs: [other.txt]}}")
    assert "sub/dvc.yaml:other" in read_states(run(all_pipelines=True))
    assert (diamond.root / "sub/other.txt").exists()


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"gpus": 2}, "aside needs 2 gpus, and there are 1"),
        ({"memory_gib": 9}, "aside needs 9 GiB of memory, and there are 4"),
    ],
)
def test_a_stage_that_needs_more_than_there_is_is_refused_before_anything_runs(
    needs: dict[str, int], message: str, diamond: DemoProject
) -> None:
    aside = {**DIAMOND["aside"], "meta": {"flows": needs}}  # type: ignore[dict-item]
    diamond.write(DIAMOND | {"aside": aside}, DIAMOND_PARAMS)
    state = run(cpus=4, memory_gib=4, gpus=["0"])
    assert state.is_failed()
    assert message in str(state.message)
    assert diamond.list_ran() == []
    assert list(read_states(run(cpus=4, gpus=["0"], targets=["collect"]))) == ["collect"]


def test_a_cycle_is_refused_before_anything_runs(project: DemoProject) -> None:
    project.write(
        {
            "first": stage("echo 1 > first.txt", out="first.txt"),
            "a": stage("cp b.txt a.txt", deps=["b.txt"], out="a.txt"),
            "b": stage("cp a.txt b.txt", deps=["a.txt"], out="b.txt"),
        }
    )
    state = run()
    assert state.is_failed()
    assert "both a dependency and an output" in str(state.message)
    assert project.list_ran() == []


def test_a_missing_param_is_refused_before_anything_runs(diamond: DemoProject) -> None:
    diamond.write(DIAMOND, {"sizes": DIAMOND_PARAMS["sizes"], "rate": 1})
    text = (diamond.root / "dvc.yaml").read_text()
    (diamond.root / "dvc.yaml").write_text(text.replace("- rate", "- rates"))
    state = run()
    assert "train@small needs rates of params.yaml, which is missing" in str(state.message)
    assert diamond.list_ran() == []


def test_an_output_that_somebody_edited_is_not_deleted(diamond: DemoProject) -> None:
    run()
    diamond.list_ran()
    (diamond.root / "report.txt").write_text("my notes\n")
    (diamond.root / "source.txt").write_text("3\n")
    state = run()
    assert state.is_failed()
    assert "report.txt was changed after report made it" in str(state.message)
    assert diamond.list_ran() == []
    assert (diamond.root / "report.txt").read_text() == "my notes\n"
    assert run(force=True).is_completed()
    assert (diamond.root / "report.txt").read_text() != "my notes\n"


def test_an_output_that_is_missing_or_of_an_earlier_run_is_nobodys_edit(diamond: DemoProject) -> None:
    run()
    diamond.write(DIAMOND, DIAMOND_PARAMS | {"sizes": {"small": 1, "large": 3}})
    run()
    lock = (diamond.root / "dvc.lock").read_text()
    diamond.write(DIAMOND, DIAMOND_PARAMS)
    run()
    (diamond.root / "dvc.lock").write_text(lock)  # as after `git checkout`, without `dvc checkout`
    (diamond.root / "numbers.txt").unlink()
    diamond.list_ran()
    assert run().is_completed()
    assert diamond.list_ran() == []
    assert diamond.dvc("status") == CLEAN


def test_a_source_that_changes_while_its_stage_runs_is_named_and_nothing_is_recorded(diamond: DemoProject) -> None:
    edit = {**DIAMOND["collect"], "cmd": "cp source.txt numbers.txt; echo 3 >> source.txt"}  # type: ignore[dict-item]
    diamond.write(DIAMOND | {"collect": edit}, DIAMOND_PARAMS)
    state = run(targets=["collect"])
    assert state.is_failed()
    assert not (diamond.root / "dvc.lock").exists()
    assert not (diamond.root / ".dvc/cache/runs").exists()
    diamond.write(DIAMOND, DIAMOND_PARAMS)
    assert run().is_completed()
    assert (diamond.root / "numbers.txt").read_text() == "1\n2\n3\n"


def test_a_source_that_changes_after_its_stage_ran_is_named(diamond: DemoProject) -> None:
    edit = {**DIAMOND["report"], "cmd": "cat model-*.txt > report.txt; echo 3 >> source.txt"}  # type: ignore[dict-item]
    diamond.write(DIAMOND | {"report": edit}, DIAMOND_PARAMS)
    state = run()
    assert state.is_failed()
    assert str(state.message).startswith("changed while the run was under way")
    assert "collect (source.txt)" in str(state.message)


def test_a_stage_that_always_runs_is_not_called_changed_at_the_end(project: DemoProject) -> None:
    project.write({"always": stage("date +%N > now.txt", out="now.txt", always_changed=True)})
    for _ in range(2):
        assert run().is_completed()
        assert project.list_ran() == ["always"]


def test_a_stage_that_hangs_is_ended_at_its_limit(make_sleeper: Callable[[], DemoProject]) -> None:
    project = make_sleeper()
    (project.root / "pyproject.toml").write_text("[tool.flows.needs]\nsleeper = {limit_s = 3}\n")
    state = run()
    child = int((project.root / "child.pid").read_text())
    assert str(state.message).startswith("sleeper failed")
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    project.heal()
    assert_goes_on(project, left=LEFT)


def test_the_independents_of_a_failed_stage_finish_and_no_more_start(project: DemoProject) -> None:
    project.write(
        {
            "bad": stage("while [ ! -e good.up ]; do sleep 0.05; done; exit 3", out="bad.txt"),
            "good": stage("touch good.up; sleep 1; echo 1 > good.txt", out="good.txt"),
            "after": stage("cp good.txt after.txt", deps=["good.txt"], out="after.txt"),
        }
    )
    states = read_states(run(cpus=2))
    assert states == {"bad": "Failed", "good": "Completed", "after": "Skipped"}
    project.list_ran()
    (project.root / "good.up").unlink()
    states = read_states(run(cpus=2, keep_going=True, force=True))
    assert states == {"bad": "Failed", "good": "Completed", "after": "Completed"}


LEFT = ["sleeper", "after"]
"""What the project of `make_sleeper` has still to run when its second stage was interrupted."""


def test_kill_9_of_the_run_leaves_no_process_and_the_next_run_goes_on(
    make_sleeper: Callable[[], DemoProject], prefect_server: str
) -> None:
    project = make_sleeper()
    command = start_command(project, prefect_server)
    child = wait_for_child(project)
    command.kill()
    command.wait()
    project.heal()
    assert_goes_on(project, left=LEFT)  # waits until the watchdog is through
    assert not is_alive(child)


@pytest.mark.parametrize("victim", ["the command", "DVC"])
def test_kill_9_inside_a_stage_fails_it_and_the_next_run_goes_on(
    victim: str, make_sleeper: Callable[[], DemoProject], prefect_server: str
) -> None:
    project = make_sleeper()
    command = start_command(project, prefect_server)
    child = wait_for_child(project)
    shell = child.parent()
    assert shell is not None
    (shell if victim == "the command" else psutil.Process(shell.ppid())).kill()
    assert command.wait(120) == 1
    assert find_processes(project.root) == []
    assert not is_alive(child)
    project.heal()
    assert_goes_on(project, left=LEFT)


def test_a_second_run_in_the_same_folder_is_refused(
    make_sleeper: Callable[[], DemoProject], prefect_server: str
) -> None:
    project = make_sleeper()
    command = start_command(project, prefect_server)
    wait_for_child(project)
    state = run()
    assert state.is_failed()
    assert f"another run works in this folder (process {command.pid}, since" in str(state.message)
    command.send_signal(signal.SIGINT)
    assert command.wait(120) == 130
    project.heal()
    assert_goes_on(project, left=LEFT)


def test_gpus_are_free_after_a_run_was_killed(
    make_sleeper: Callable[[], DemoProject], prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = tmp_path / "temporary"
    gpus.mkdir()
    monkeypatch.setenv("TMPDIR", str(gpus))
    monkeypatch.setattr(tempfile, "tempdir", str(gpus))
    project = make_sleeper()
    (project.root / "pyproject.toml").write_text("[tool.flows.needs]\nsleeper = {gpus = 1}\n")
    command = start_command(project, prefect_server, "--gpus", "0")
    wait_for_child(project)
    command.kill()
    command.wait()
    project.heal()
    assert_goes_on(project, left=LEFT, gpus=["0"])
    assert [path.name for path in list_lock_files(project.root) if path.parent.name == "flows-gpus"] == ["0"]


def test_a_stage_that_fills_the_disk_fails_and_the_next_run_goes_on(project: DemoProject) -> None:
    fill = "if [ -e trouble ]; then cat before.txt > /dev/full; fi"
    project.write(
        {
            "before": stage("echo 1 > before.txt", out="before.txt"),
            "full": stage(f"touch out.txt; {fill} && cp before.txt out.txt", deps=["before.txt"], out="out.txt"),
        }
    )
    (project.root / "trouble").touch()
    state = run()
    assert str(state.message).startswith("full failed")
    project.heal()
    assert_goes_on(project, left=["full"])


def test_a_disk_that_is_full_when_outputs_are_kept_records_nothing(
    diamond: DemoProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dvc.stage.Stage.commit", fill)
        assert run_stage("collect", force=False) == 1
    assert not (diamond.root / "dvc.lock").exists()
    assert not (diamond.root / ".dvc/cache/runs").exists()
    assert diamond.list_ran() == ["collect"]
    assert_goes_on(diamond, left=["collect", "train@small", "train@large", "report", "aside"])


def test_dvc_lock_and_the_list_of_locks_are_never_half_written(diamond: DemoProject) -> None:
    diamond.dvc("repro", "--quiet")
    before = (diamond.root / "dvc.lock").read_text()
    script = """
import os, signal
from flows.repository import open_repository
with open_repository().fs.open("dvc.lock", "w+", encoding="utf-8") as file:
    file.write("stages:")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=diamond.root, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (diamond.root / "dvc.lock").read_text() == before
    assert_goes_on(diamond, left=[])


def test_a_list_of_locks_that_dvc_itself_left_in_pieces_is_named(diamond: DemoProject) -> None:
    (diamond.root / ".dvc/tmp/rwlock").write_text('{"read": {"')
    state = run()
    assert state.is_failed()
    assert "rwlock" in str(state.message)
    assert diamond.list_ran() == []


def test_a_server_that_is_killed_and_comes_back_fails_nothing(
    project: DemoProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.server import _find_port, start_server, stop_server

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    go = project.root / "go"  # wherever the stage runs: the look afterwards runs it in another folder
    project.write(
        {
            "slow": stage(f"touch up; while [ ! -e {go} ]; do sleep 0.1; done; echo 1 > slow.txt", out="slow.txt"),
            "after": stage("cp slow.txt after.txt", deps=["slow.txt"], out="after.txt"),
        }
    )
    port = _find_port()
    start_server(port)
    command = start_command(project, f"http://127.0.0.1:{port}/api")
    try:
        wait_for((project.root / "up").exists, bool)
        psutil.Process(int((project.root / "logs/prefect-server.pid").read_text())).kill()
        go.touch()
        wait_for((project.root / "slow.txt").exists, bool)
        start_server(port)
        assert command.wait(240) == 0
    finally:
        command.kill()
        stop_server()
    assert project.list_ran() == ["slow", "after"]
    assert_goes_on(project, left=[])
