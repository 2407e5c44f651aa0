"""Stages that are forked, not started: what they print, how they end, what they hold."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from flows.nursery import Nursery
from flows.process import CancelledError, Stop, run_group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.flows.conftest import DemoProject


@pytest.fixture
def nursery(project: DemoProject) -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


def run(nursery: Nursery, project: DemoProject, command: str, **arguments: object) -> tuple[int, list[str]]:
    project.write({"only": {"cmd": command, "outs": ["out.txt"], "always_changed": True}})
    lines: list[str] = []
    status = run_group(
        [sys.executable, "-m", "flows.stage", "only"],
        write_line=lines.append,
        environment=os.environ | {"ONLY": "here"},
        stop=arguments.pop("stop", None) or Stop(),  # type: ignore[arg-type]
        launch=nursery.start,
        **arguments,  # type: ignore[arg-type]
    )
    return status, lines


def test_stages_that_are_forked_run_end_and_print_as_if_they_were_started(
    nursery: Nursery, project: DemoProject
) -> None:
    status, lines = run(nursery, project, 'echo "$ONLY" > out.txt; echo "said $ONLY"')
    assert status == 0
    assert "said here" in lines
    assert "Running stage 'only':" in lines
    assert (project.root / "out.txt").read_text() == "here\n"
    status, lines = run(nursery, project, "echo too hot >&2; exit 7")
    assert status == 1
    assert "too hot" in lines
    assert "failed to run" in "\n".join(lines)


def test_a_stage_that_is_killed_says_so_and_the_next_one_is_forked(nursery: Nursery, project: DemoProject) -> None:
    assert run(nursery, project, "kill -9 $PPID; sleep 600")[0] == -signal.SIGKILL
    assert run(nursery, project, "echo 1 > out.txt")[0] == 0


def test_without_the_nursery_stages_are_started_as_new_processes(nursery: Nursery, project: DemoProject) -> None:
    nursery._process.kill()
    nursery._process.wait()
    assert run(nursery, project, "echo 1 > out.txt")[0] == 0


def test_a_stage_whose_nursery_is_killed_is_ended(nursery: Nursery, project: DemoProject) -> None:
    groups: list[int] = []

    def kill(group: int) -> None:
        groups.append(group)
        nursery._process.kill()

    assert run(nursery, project, "sleep 600", on_start=kill)[0] == -signal.SIGKILL
    assert not _find_living(groups[0])


def test_a_stage_that_is_stopped_leaves_nothing(nursery: Nursery, project: DemoProject) -> None:
    stop = Stop()
    groups: list[int] = []

    def note(group: int) -> None:
        groups.append(group)
        threading.Timer(0.5, stop.ask).start()

    with pytest.raises(CancelledError):
        run(nursery, project, "sleep 600 & sleep 600", stop=stop, on_start=note)
    assert not _find_living(groups[0])


def _find_living(group: int) -> list[int]:
    living = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            # whose parent is gone stays a zombie where nothing waits for orphans
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                living.append(process.pid)
    return living
