"""Python modules of ours in process groups of their own, which end when this process does, however that is."""

from __future__ import annotations

import json
import os
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from flows.process import run_group

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flows.nursery import Nursery
    from flows.process import Stop
    from flows.slots import Holding
    from flows.watchdog import Watchdog

_TAIL_LINES = 20
_SHOWN_LINES = 5
TRANSFER_STATUS = 75
"""Exit status of a process that could not move files: `EX_TEMPFAIL` of sysexits.h, worth another try."""
_ANSWER = "flows-answer: "


class TransferError(RuntimeError):
    """Files of a stage did not get from here to the DVC remote, or from there to here."""


def write_answer(answer: dict[str, Any]) -> None:
    """Tell the process that started this one something, as the last line of output."""
    sys.stdout.write(f"{_ANSWER}{json.dumps(answer)}\n")


class Runner:
    """Starts modules, one after the other, and keeps the last lines of what they write."""

    def __init__(
        self, watchdog: Watchdog, stop: Stop, write_line: Callable[[str], None], nursery: Nursery | None = None
    ) -> None:
        """Get ready; a nursery starts modules faster."""
        self._nursery = nursery
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._watchdog = watchdog
        self._stop = stop
        self._write_line = write_line

    def show_tail(self) -> str:
        """Join the last lines, for a message."""
        return "\n".join(list(self.tail)[-_SHOWN_LINES:])

    def run(
        self,
        module: Sequence[str],
        *,
        holding: Holding | None = None,
        limit_s: float | None = None,
        on_start: Callable[[], None] | None = None,
    ) -> int:
        """Run `python -m` with these arguments and return its exit status; see `run_group`."""
        group: list[int] = []

        def note_start(started: int) -> None:
            group.append(started)
            self._watchdog.note_start(started)
            if on_start is not None:
                on_start()

        more = {"PYTHONUNBUFFERED": "1"}  # else lines come when the process ends
        try:
            return run_group(
                [sys.executable, "-m", *module],
                write_line=self._take_line,
                environment=os.environ | more | (holding.build_environment() if holding else {}),
                stop=self._stop,
                limit_s=limit_s,
                keep_open=[lease.descriptor for lease in holding.gpus] if holding else (),
                on_start=note_start,
                launch=None if self._nursery is None else self._nursery.start,
            )
        finally:
            for started in group:
                self._watchdog.note_end(started)

    def exchange(self, verb: str, address: str, remote: str, *more: str) -> dict[str, Any]:
        """Run a command of `flows.exchange` and return its answer.

        Raises:
            TransferError: it failed; with the last lines of its output.
        """
        status = self.run(["flows.exchange", verb, address, "--remote", remote, *more])
        if status != 0:
            raise TransferError(f"{verb} of {address} failed:\n{self.show_tail()}")
        return self.read_answer()

    def read_answer(self) -> dict[str, Any]:
        """Read what the last process said by `write_answer`."""
        answer: dict[str, Any] = json.loads(self.tail[-1].removeprefix(_ANSWER))
        return answer

    def _take_line(self, line: str) -> None:
        self.tail.append(line)
        if not line.startswith(_ANSWER):
            self._write_line(line)
