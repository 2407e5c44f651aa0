"""A process that outlives a run which was killed, and ends what that run had started.

    python -m flows.watchdog        (nobody types this)

Stages have process groups of their own, so `kill -9` of a run leaves them alone, with their GPUs and DVC's locks. The
watchdog reads the run's pipe: `+ID` is a group that was started, `-ID` one that ended. When the pipe breaks, the run is
gone; groups that are left are ended. Until then it shares the run's lease on the workspace: no other run starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from flows.process import Stop, end_group

_END_S = 60.0


class Watchdog:
    """The run's end of the pipe; the process is started with it."""

    def __init__(self, lease: int) -> None:
        """Start the process; it shares the lease with that file descriptor."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it
            pass_fds=(lease,),
        )

    def note_start(self, group: int) -> None:
        """Have a group ended if this process dies."""
        self._write(f"+{group}\n")

    def note_end(self, group: int) -> None:
        """Forget a group that has ended."""
        self._write(f"-{group}\n")

    def close(self) -> None:
        """Let it go, and wait until it is gone."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(_END_S)

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed the watchdog: the run goes on without one
            os.write(self._process.stdin.fileno(), line.encode("ascii"))  # a short line is written whole, by any thread


def main() -> None:
    """Read the pipe to its end, then end the groups that are left."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change, group = line[0], int(line[1:])
        (groups.add if change == "+" else groups.discard)(group)
    if groups:
        with ThreadPoolExecutor(len(groups)) as pool:
            for group in groups:
                pool.submit(end_group, group, write_line=lambda _line: None, stop=Stop())


if __name__ == "__main__":
    main()
