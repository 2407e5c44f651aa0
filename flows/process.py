"""A command with everything that it starts: its output line by line, its end as a whole group."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Protocol

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_POLL_S = 0.05
_STOP_INTERVAL_S = 0.2
_FOREGROUND_PATIENCE_S = 10.0
_BACKGROUND_PATIENCE_S = 5.0
_AFTER_LEADER_PATIENCE_S = 1.0
_DRAIN_S = 2.0


class CancelledError(RuntimeError):
    """The command was ended because somebody asked for it."""


class LimitError(RuntimeError):
    """The command was ended because it ran longer than it may."""


class Stop:
    """What ends commands that run in other threads: politely when it is asked once, at once when it is asked again."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._urgent = threading.Event()

    def ask(self) -> None:
        """Ask once, or once more."""
        (self._urgent if self._asked.is_set() else self._asked).set()

    @property
    def is_asked(self) -> bool:
        """Whether running commands are to be ended and no more are to be started."""
        return self._asked.is_set()

    @property
    def is_urgent(self) -> bool:
        """Whether they are to be killed without asking them first."""
        return self._urgent.is_set()


class Started(Protocol):
    """A process that was started, as far as `subprocess.Popen` is needed of it."""

    pid: int
    stdout: IO[bytes] | None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status, or raise `subprocess.TimeoutExpired`."""

    def poll(self) -> int | None:
        """Take note of its end, if it has ended."""


class Launch(Protocol):
    """Starts a command with an environment, in a session of its own, its output in a pipe; descriptors stay open."""

    def __call__(  # noqa: D102
        self, command: Sequence[str], environment: Mapping[str, str], keep_open: Sequence[int], /
    ) -> Started: ...


def run_group(
    command: Sequence[str],
    *,
    write_line: Callable[[str], None],
    environment: Mapping[str, str],
    stop: Stop,
    limit_s: float | None = None,
    keep_open: Sequence[int] = (),
    on_start: Callable[[int], None] | None = None,
    launch: Launch | None = None,
) -> int:
    """Run a command in a process group of its own and return its exit status.

    Every line of its output (both streams) goes to `write_line`, from another thread, when it is written. Whatever
    ends this call, an exception or a signal that raises one included, ends the whole group first, and processes that
    left the group; what the command left in the background does not outlive it.

    Args:
        command: what to start, without a shell.
        write_line: takes a line of output, without its end.
        environment: all of the command's environment.
        stop: ends the command when it is asked to.
        limit_s: wall time that it may take; None is for ever.
        keep_open: descriptors that it inherits, as holders of leases.
        on_start: takes the id of the group (which is that of its leader) once there is one.
        launch: starts the command; by default as a new process.

    Raises:
        CancelledError: `stop` was asked.
        LimitError: the command ran longer than `limit_s`.
    """
    started = time.monotonic()
    process = (launch or launch_process)(command, environment, keep_open)
    assert process.stdout is not None
    reader = threading.Thread(target=_forward_lines, args=(process.stdout, write_line), daemon=True)
    reader.start()
    try:
        if on_start is not None:
            on_start(process.pid)
        while True:
            try:
                return process.wait(timeout=_STOP_INTERVAL_S)
            except subprocess.TimeoutExpired:
                if stop.is_asked:
                    raise CancelledError("cancelled") from None
                if limit_s is not None and time.monotonic() - started > limit_s:
                    raise LimitError(f"ran longer than {limit_s:g} s") from None
    finally:
        end_group(process.pid, write_line=write_line, stop=stop)
        process.poll()
        reader.join(_DRAIN_S)


def launch_process(command: Sequence[str], environment: Mapping[str, str], keep_open: Sequence[int], /) -> Started:
    """Start a command as a new process, in a session of its own, with its output in a pipe."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,
        pass_fds=tuple(keep_open),
    )


def _forward_lines(stream: IO[bytes], write_line: Callable[[str], None]) -> None:
    with stream:
        for line in stream:
            # a progress bar redraws itself behind carriage returns: its last state is the line
            text = line.decode(errors="replace").rstrip().rsplit("\r", 1)[-1]
            if text:
                write_line(text)


def end_group(leader: int, *, write_line: Callable[[str], None], stop: Stop) -> None:
    """End what is left of a group: politely while its leader lives, as DVC must give its lock back; then firmly."""
    known: set[psutil.Process] = set()
    steps = [(signal.SIGTERM, _BACKGROUND_PATIENCE_S), (signal.SIGKILL, _BACKGROUND_PATIENCE_S)]
    # what children of a process that ignores SIGINT start ignores it too
    if _is_leader_living(leader) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        steps.insert(0, (signal.SIGINT, _FOREGROUND_PATIENCE_S))
    try:
        for number, patience_s in steps:
            if stop.is_urgent and number != signal.SIGKILL:
                continue
            living = _find_living(leader, known)
            if not living:
                return
            write_line(f"ending {', '.join(_name(member) for member in living)} ({signal.Signals(number).name})")
            for member in living:
                _send(member, number)
            deadline = time.monotonic() + patience_s
            while _find_living(leader, known) and time.monotonic() < deadline:
                if number != signal.SIGKILL and stop.is_urgent:
                    break
                if number == signal.SIGINT and not _is_leader_living(leader):
                    # what shells start in the background ignores SIGINT: no use in waiting for it
                    deadline = min(deadline, time.monotonic() + _AFTER_LEADER_PATIENCE_S)
                time.sleep(_POLL_S)
    except BaseException:
        for member in _find_living(leader, known):
            _send(member, signal.SIGKILL)
        raise
    if living := _find_living(leader, known):
        write_line(f"still alive after SIGKILL: {', '.join(_name(member) for member in living)}")


def _find_living(leader: int, known: set[psutil.Process]) -> list[psutil.Process]:
    """List the living members of the group and, while their parents live, descendants that left it.

    What was seen once stays `known`: a launcher's workers in sessions of their own lose their parent when it ends.
    A zombie that nobody waits for is not living.
    """
    for pid in psutil.pids():
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(pid) == leader:
                known.add(psutil.Process(pid))
    for member in list(known):
        with suppress(psutil.NoSuchProcess):
            known.update(member.children(recursive=True))
    return sorted((member for member in known if _is_living(member)), key=lambda member: member.pid)


def _is_leader_living(leader: int) -> bool:
    try:
        return _is_living(psutil.Process(leader))
    except psutil.NoSuchProcess:
        return False


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
