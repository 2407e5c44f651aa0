"""One command for every number of processes: a stage that wants a launcher starts itself again under it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cambrian.interfaces import ParamsError
from cambrian.training.processes import is_launched

if TYPE_CHECKING:
    from collections.abc import Sequence

ALONE = ["python", "-m"]
"""The value of `training.launch` that starts one process, which is this one."""


def launch(command: Sequence[str], module: str) -> None:
    """Become `command module ARGUMENTS`; return at once where the launcher did that already, or none is wanted.

    DVC cannot put a scale's value into a stage's command (its `vars` take no variable file names), so the command
    starts one process, and the value decides here what becomes of it.

    Raises:
        ParamsError: the launcher's program is not installed.
    """
    if list(command) == ALONE or is_launched():
        return
    try:
        os.execvp(command[0], [*command, module, *sys.argv[1:]])
    except FileNotFoundError as error:
        raise ParamsError(
            f"training.launch: {command[0]!r} is not on this machine's PATH: deepspeed and torchrun come with "
            f"`make setup` (put .venv/bin on PATH), any other has to be installed; or start one process by {ALONE}"
        ) from error
