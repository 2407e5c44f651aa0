"""A Prefect server for one run, where none is configured."""

from __future__ import annotations

import atexit
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import IO

from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL

_START_S = 60.0
_STOP_S = 5.0
_POLL_S = 0.1
_log = logging.getLogger("prefect.flows")


class ServerError(RuntimeError):
    """The temporary server did not come up."""


def ensure_server() -> None:
    """Use the configured server, or else start one on loopback for as long as this process lives.

    Prefect would start one itself, in the process group of the terminal: Ctrl-C then ends the server before the flow
    can report, which hangs for minutes. This one has a session of its own. Its database is Prefect's usual one, so
    that a server that is started later shows the run.

    Raises:
        ServerError: it did not come up; with the last lines that it wrote.
    """
    if PREFECT_API_URL.value():
        return
    port = _find_port()
    with tempfile.TemporaryFile() as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # at exit, after Prefect's threads (started later) have sent what they hold
        atexit.register(_stop, server)
        _wait_until_healthy(server, f"http://127.0.0.1:{port}/api/health", output)
    # the environment, as Prefect's threads do not see temporary settings
    os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
    refresh_global_settings_context()
    _log.info("temporary server, gone when this run ends: http://127.0.0.1:%d", port)


def _stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, output: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=_START_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    output.seek(0)
    tail = output.read().decode(errors="replace")[-2000:]
    found = "did not answer" if server.poll() is None else f"ended with status {server.returncode}"
    raise ServerError(f"Prefect's temporary server {found} within {_START_S:.0f} s. Its output ends:\n{tail}")
