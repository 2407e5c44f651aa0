"""A command with everything that it starts: its output line by line, its end as a whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_S = 0.05
_FOREGROUND_PATIENCE_S = 10.0
_BACKGROUND_PATIENCE_S = 5.0
_AFTER_LEADER_PATIENCE_S = 1.0
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
    ends this call, an exception or a signal that raises one included, ends the whole group first, and processes that
    left the group; what the command left in the background does not outlive it. A second Ctrl-C kills at once.

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
    """End what is left of the command: politely while its leader lives, as DVC must give its lock back; then firmly."""
    known: set[psutil.Process] = set()
    steps = [(signal.SIGTERM, _BACKGROUND_PATIENCE_S), (signal.SIGKILL, _BACKGROUND_PATIENCE_S)]
    if process.poll() is None and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # which children inherit
        steps.insert(0, (signal.SIGINT, _FOREGROUND_PATIENCE_S))
    try:
        for number, patience_s in steps:
            living = _find_living(process, known)
            if not living:
                return
            write_line(f"ending {', '.join(_name(member) for member in living)} ({signal.Signals(number).name})")
            for member in living:
                _send(member, number)
            deadline = time.monotonic() + patience_s
            while _find_living(process, known) and time.monotonic() < deadline:
                if number == signal.SIGINT and process.poll() is not None:
                    # what shells start in the background ignores SIGINT: no use in waiting for it
                    deadline = min(deadline, time.monotonic() + _AFTER_LEADER_PATIENCE_S)
                time.sleep(_POLL_S)
    except BaseException:
        for member in _find_living(process, known):
            _send(member, signal.SIGKILL)
        raise
    if living := _find_living(process, known):
        write_line(f"still alive after SIGKILL: {', '.join(_name(member) for member in living)}")


def _find_living(process: subprocess.Popen[bytes], known: set[psutil.Process]) -> list[psutil.Process]:
    """List the living members of the group and, while their parents live, descendants that left it.

    What was seen once stays `known`: a launcher's workers in sessions of their own lose their parent when it ends.
    A zombie that nobody waits for is not living.
    """
    process.poll()
    for pid in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(pid) == process.pid:
                known.add(psutil.Process(pid))
    for member in list(known):
        with suppress(psutil.NoSuchProcess):
            known.update(member.children(recursive=True))
    return sorted((member for member in known if _is_living(member)), key=lambda member: member.pid)


def _is_living(member: psutil.Process) -> bool:
    try:
        return bool(member.is_running() and member.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _name(member: psutil.Process) -> str:
    try:
        return f"{member.name()} {member.pid}"
    except psutil.NoSuchProcess:
        return str(member.pid)


def _send(member: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        member.send_signal(number)
