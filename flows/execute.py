"""One stage brought up to date by DVC, in a process group of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from flows.nursery import Nursery
    from flows.process import Stop
    from flows.slots import Holding
    from flows.watchdog import Watchdog


@dataclass(frozen=True, slots=True)
class Execution:
    """How a stage ended."""

    status: int
    """Exit status; 0 is success."""
    restored: bool
    """Whether DVC took the outputs from its run-cache instead of running the command."""
    unchanged: bool
    """Whether DVC found nothing to do."""
    tail: str
    """The last lines of output."""


def execute_stage(
    address: str,
    *,
    force: bool,
    holding: Holding,
    watchdog: Watchdog,
    stop: Stop,
    nursery: Nursery,
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
    skipped = {
        f"Stage '{address}' is cached - skipping run, checking out outputs": "restored",
        f"Stage '{address}' didn't change, skipping": "unchanged",
        f"'{address}' didn't change, skipping": "unchanged",
    }
    seen: set[str] = set()

    def take_line(line: str) -> None:
        if line in skipped:
            seen.add(skipped[line])
        write_line(line)

    runner = Runner(watchdog, stop, take_line, nursery)
    status = runner.run(
        ["flows.stage", address, *(["--force"] if force else [])],
        holding=holding,
        limit_s=holding.needs.limit_s,
        on_start=on_start,
    )
    return Execution(status, "restored" in seen, "unchanged" in seen, runner.show_tail())
