"""One command for every number of processes: a stage that wants a launcher starts itself again under it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from cambrian.interfaces import ParamsError
from cambrian.training.processes import RANK, is_launched

if TYPE_CHECKING:
    from collections.abc import Sequence

ALONE = ["python", "-m"]
"""The value of `training.launch` that starts one process, which is this one."""

_STARTED = "CAMBRIAN_LAUNCH"
"""Environment variable of what a stage starts, so that a command that is no launcher does not start it without end."""


def launch(command: Sequence[str], module: str) -> None:
    """Run `command module ARGUMENTS` and exit as it does; return where the launcher did that, or none is wanted.

    DVC cannot put a scale's value into a stage's command (its `vars` take no variable file names), so the command
    starts one process, and the value decides here what becomes of it. SIGTERM goes on to the launched processes, which
    save and end: DeepSpeed's launcher would leave them running, and torchrun would kill them after 30 seconds.

    Raises:
        ParamsError: the launcher's program is not installed, or is no launcher.
    """
    if list(command) == ALONE or is_launched():
        return
    if _STARTED in os.environ:
        raise ParamsError(
            f"training.launch: {list(command)} started the stage without {RANK} in its environment, as no launcher "
            f"does: write {ALONE} for one process, or one of torchrun, deepspeed or another that sets {RANK}"
        )
    try:
        launcher = subprocess.Popen([*command, module, *sys.argv[1:]], env={**os.environ, _STARTED: "1"})
    except FileNotFoundError as error:
        raise ParamsError(
            f"training.launch: {command[0]!r} is not on this machine's PATH: deepspeed and torchrun come with "
            f"`make setup` (put .venv/bin on PATH), any other has to be installed; or start one process by {ALONE}"
        ) from error
    signal.signal(signal.SIGTERM, lambda number, frame: _end(launcher.pid))
    try:
        status = launcher.wait()
    except KeyboardInterrupt:
        _end(launcher.pid)
        launcher.wait()
        raise
    sys.exit(status if status >= 0 else 128 - status)


def _end(launcher: int) -> None:
    """Send SIGTERM to what a launcher started here, or to itself where that is not there yet or elsewhere."""
    import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

    with suppress(psutil.NoSuchProcess):  # it has ended
        tree = [psutil.Process(launcher), *psutil.Process(launcher).children(recursive=True)]
        workers = []
        for process in tree:
            with suppress(psutil.Error):
                workers += [process] if RANK in process.environ() else []
        for process in workers or tree:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
