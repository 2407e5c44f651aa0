"""One stage brought up to date by DVC itself."""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.process import run_group

if TYPE_CHECKING:
    from collections.abc import Callable

_TAIL_LINES = 20
_CANCEL_INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Execution:
    """How `dvc repro` of one stage ended."""

    status: int
    """Exit status; 0 is success."""
    restored: bool
    """Whether DVC took the outputs from its run-cache instead of running the command."""
    tail: tuple[str, ...]
    """The last lines of output."""


def execute_stage(
    address: str, *, force: bool, write_line: Callable[[str], None], is_cancelled: Callable[[], bool]
) -> Execution:
    """Run `dvc repro --single-item` on a stage whose dependencies are up to date.

    DVC decides what this takes: nothing, taking the outputs from its run-cache, or the stage's command. Its output
    goes to `write_line` line by line; no process of the stage outlives the call.

    Raises:
        CancelledError: `is_cancelled` said yes, and the stage was ended.
    """
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item"]
    command += ["--force", address] if force else [address]
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    restored = False

    def take_line(line: str) -> None:
        nonlocal restored
        restored = restored or line == f"Stage '{address}' is cached - skipping run, checking out outputs"
        tail.append(line)
        write_line(line)

    status = run_group(
        command,
        write_line=take_line,
        environment=os.environ | {"PYTHONUNBUFFERED": "1"},  # else lines come when the stage ends
        is_cancelled=is_cancelled,
        cancel_interval_s=_CANCEL_INTERVAL_S,
    )
    return Execution(status=status, restored=restored, tail=tuple(tail))
