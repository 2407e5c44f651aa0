"""One stage brought up to date by DVC, in a process group of its own."""

from __future__ import annotations

import os
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.process import run_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.process import Stop
    from flows.slots import Holding
    from flows.watchdog import Watchdog

_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Execution:
    """How a stage ended."""

    status: int
    """Exit status; 0 is success."""
    restored: bool
    """Whether DVC took the outputs from its run-cache instead of running the command."""
    unchanged: bool
    """Whether DVC found nothing to do."""
    tail: tuple[str, ...]
    """The last lines of output."""


def execute_stage(
    address: str,
    *,
    force: bool,
    holding: Holding,
    watchdog: Watchdog,
    stop: Stop,
    write_line: Callable[[str], None],
    on_start: Callable[[], None],
) -> Execution:
    """Bring a stage up to date whose dependencies are, on the slots that it holds.

    DVC decides what this takes: nothing, taking the outputs from its run-cache, or the stage's command. Its output
    goes to `write_line` line by line; no process of the stage outlives the call. `on_start` is called while the process
    comes up, which takes it half a second.

    Raises:
        CancelledError: `stop` was asked, and the stage was ended.
        LimitError: the stage ran longer than it said that it needs, and was ended.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    skipped = {
        f"Stage '{address}' is cached - skipping run, checking out outputs": "restored",
        f"Stage '{address}' didn't change, skipping": "unchanged",
        f"'{address}' didn't change, skipping": "unchanged",
    }
    seen: set[str] = set()

    def take_line(line: str) -> None:
        if line in skipped:
            seen.add(skipped[line])
        tail.append(line)
        write_line(line)

    group: list[int] = []

    def note_start(started: int) -> None:
        group.append(started)
        watchdog.note_start(started)
        on_start()

    try:
        status = run_group(
            [sys.executable, "-m", "flows.stage", address, *(["--force"] if force else [])],
            write_line=take_line,
            # unbuffered, else lines come when the stage ends
            environment=os.environ | holding.build_environment() | {"PYTHONUNBUFFERED": "1"},
            stop=stop,
            limit_s=holding.needs.limit_s,
            keep_open=[lease.descriptor for lease in holding.gpus],
            on_start=note_start,
        )
    finally:
        for started in group:
            watchdog.note_end(started)
    return Execution(status, restored="restored" in seen, unchanged="unchanged" in seen, tail=tuple(tail))
