"""A command with everything that it starts: its output line by line, its end as a whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_S = 0.05
_FOREGROUND_PATIENCE_S = 10.0
_BACKGROUND_PATIENCE_S = 5.0
_DRAIN_S = 2.0


class CancelledError(RuntimeError):
    """The command was ended because somebody asked for it."""


def run_group(
    command: Sequence[str],
    *,
    write_line: Callable[[str], None],
    environment: Mapping[str, str],
    is_cancelled: Callable[[], bool],
    cancel_interval_s: float,
) -> int:
    """Run a command in a process group of its own and return its exit status.

    Every line of its output (both streams) goes to `write_line`, from another thread, when it is written. Whatever
    ends this call, an exception or a signal that raises one included, ends the whole group first: processes that the
    command left in the background do not outlive it. A second Ctrl-C kills at once.

    Raises:
        CancelledError: `is_cancelled`, asked every `cancel_interval_s`, said yes.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdout is not None
    reader = threading.Thread(target=_forward_lines, args=(process.stdout, write_line), daemon=True)
    reader.start()
    try:
        while True:
            try:
                return process.wait(timeout=cancel_interval_s)
            except subprocess.TimeoutExpired:
                if is_cancelled():
                    raise CancelledError("cancelled") from None
    finally:
        _end_group(process, write_line)
        reader.join(_DRAIN_S)


def _forward_lines(stream: IO[bytes], write_line: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            # a progress bar redraws itself behind carriage returns: its last state is the line
            text = line.decode(errors="replace").rstrip().rsplit("\r", 1)[-1]
            if text:
                write_line(text)


def _end_group(process: subprocess.Popen[bytes], write_line: Callable[[str], None]) -> None:
    """End what is left of the group: politely while its leader lives, as DVC must give its lock back; then firmly."""
    steps = [(signal.SIGTERM, _BACKGROUND_PATIENCE_S), (signal.SIGKILL, _BACKGROUND_PATIENCE_S)]
    if process.poll() is None:
        steps.insert(0, (signal.SIGINT, _FOREGROUND_PATIENCE_S))
    try:
        for number, patience_s in steps:
            left = _list_group(process)
            if not left:
                return
            write_line(f"ending {', '.join(left)} ({signal.Signals(number).name})")
            os.killpg(process.pid, number)
            deadline = time.monotonic() + patience_s
            while _list_group(process) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
    except ProcessLookupError:
        return
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    if left := _list_group(process):
        write_line(f"still alive after SIGKILL: {', '.join(left)}")


def _list_group(process: subprocess.Popen[bytes]) -> list[str]:
    """Name the group's living processes (a zombie that nobody waits for is not living)."""
    process.poll()
    living = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == process.pid:
                member = psutil.Process(pid)
                if member.status() != psutil.STATUS_ZOMBIE:
                    living.append(f"{member.name()} {pid}")
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return living
