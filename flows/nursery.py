"""A process that has DVC imported, and forks one process per stage: a stage then starts in milliseconds.

    python -m flows.nursery        (nobody types this)

Importing DVC takes most of a second of processor; eight stages that start at once would wait four seconds for it on two
processors. The nursery has one thread and opens nothing, so that its forks are as good as new processes.

The run sends a request over a socket: module, arguments and environment as JSON, and descriptors: where output goes,
where to answer, and leases that the stage holds. The answers are the process's id, then its exit status, one line each.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before dvc, which reads the environment when imported)

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from flows.process import launch_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.process import Started

_PRELOADED = (
    "flows.stage",
    "dvc.cachemgr",
    "dvc.data_cloud",
    "dvc.repo.index",
    "dvc.stage.cache",
    "dvc.stage.loader",
    "dvc.stage.run",
    "dvc.rwlock",
    "scmrepo.git",
)
_MAX_BYTES = 2**20
_MAX_DESCRIPTORS = 64
_LOST = -signal.SIGKILL


class Nursery:
    """The run's end of the socket; the process is started with it."""

    def __init__(self) -> None:
        """Start the process, which imports DVC while this one goes on."""
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.nursery", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                # DVC looks at them once for whether to colour its lines
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is not for it
            )
        self._lock = threading.Lock()

    def start(self, command: Sequence[str], environment: Mapping[str, str], keep_open: Sequence[int], /) -> Started:
        """Start the command `PYTHON -m MODULE ...`, in a session of its own; the module has a function `main`.

        Where the nursery was killed, a new process is started instead.
        """
        output, their_output = os.pipe()
        answers, their_answers = socket.socketpair()
        request = json.dumps({"module": list(command[2:]), "environment": dict(environment)}).encode()
        try:
            with their_answers, self._lock:
                socket.send_fds(self._socket, [request], [their_output, their_answers.fileno(), *keep_open])
            return Child(answers, os.fdopen(output, "rb"))
        except OSError:
            return launch_process(command, environment, keep_open)
        finally:
            os.close(their_output)

    def close(self) -> None:
        """Let the process end."""
        self._socket.close()
        self._process.wait()


class Child:
    """A process that the nursery forked, as far as `subprocess.Popen` is needed of it."""

    def __init__(self, answers: socket.socket, stdout: IO[bytes]) -> None:
        self.stdout: IO[bytes] | None = stdout
        self._answers = answers.makefile("rb")
        answers.close()
        line = self._answers.readline()
        if not line:
            raise OSError("the process that starts stages is gone")
        self.pid = int(line)
        self._status: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended; returns its exit status, negative after a signal.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        if self._status is None:
            if not select.select([self._answers], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            line = self._answers.readline()
            # without an answer the nursery was killed: what became of the child is not known, and its group is ended
            self._status = int(line) if line else _LOST
            self._answers.close()
        return self._status

    def poll(self) -> int | None:
        """Return the status, if it is known; the nursery takes note of what ended by itself."""
        return self._status


def main() -> None:
    """Fork whatever is asked for until the run is gone, and say how it ended."""
    for name in _PRELOADED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a fork beside threads may hang"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    running: dict[int, tuple[int, int]] = {}  # by descriptors of processes: their ids, and where to answer
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while True:
            ready = select.select([requests.fileno(), *running], [], [])[0]
            for descriptor in running.keys() & set(ready):
                _report(descriptor, *running.pop(descriptor))
            if requests.fileno() not in ready:
                continue
            message, descriptors, _, _ = socket.recv_fds(requests, _MAX_BYTES, _MAX_DESCRIPTORS)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                others = [number for process, (_, answers) in running.items() for number in (process, answers)]
                _become(json.loads(message), descriptors, [requests.fileno(), *others])
            output, answers, *leases = descriptors
            for descriptor in (output, *leases):
                os.close(descriptor)
            running[os.pidfd_open(pid)] = (pid, answers)
            _answer(answers, pid)


def _report(process: int, pid: int, answers: int) -> None:
    _answer(answers, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os.close(process)
    os.close(answers)


def _answer(answers: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the run is gone
        os.write(answers, f"{number}\n".encode())


def _become(request: dict[str, Any], descriptors: list[int], not_mine: list[int]) -> None:
    """Be the process that was asked for; does not return."""
    status = 1
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        output, answers, *_leases = descriptors
        os.dup2(output, 1)
        os.dup2(output, 2)
        for descriptor in (output, answers, *not_mine):
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(request["environment"])
        sys.argv = list(request["module"])
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        importlib.import_module(sys.argv[0]).main()
        status = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
