"""Prefect's server: one that stays, for the UI, and one for a single run where none is configured.

    python -m flows.server start [--port 4200]
    python -m flows.server stop

`start` returns when the server answers; its log and its process id are beside each other in logs/.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before prefect, which reads the environment when imported)

import argparse
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
from pathlib import Path
from typing import IO

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

_HOST = "127.0.0.1"
_LOG_PATH = Path("logs/prefect-server.log")
_PID_PATH = Path("logs/prefect-server.pid")
_START_S = 90.0
_STOP_S = 10.0
_POLL_S = 0.1
_log = logging.getLogger("prefect.flows")


class ServerError(RuntimeError):
    """The server did not come up."""


def start_server(port: int) -> str:
    """Start a server that outlives this process, or find the one of this folder; returns the UI's address.

    Its output goes to a file: `prefect server start --background` gives it a pipe that nobody reads, and the server
    dies when it logs.

    Raises:
        ServerError: another program has the port, or the server did not come up.
    """
    address = f"http://{_HOST}:{port}"
    running = _find_running()
    if running is not None:
        if f"--port {port}" not in " ".join(running.cmdline()):
            raise ServerError(f"a server of this folder runs at another port (process {running.pid}); stop it first")
        return address
    if not _is_free(port):
        raise ServerError(f"port {port} is taken by another program; choose another with --port")
    _LOG_PATH.parent.mkdir(parents=True, exist_ok=True)
    with _LOG_PATH.open("w+b") as output:
        server = _launch(port, output)
        _PID_PATH.write_text(f"{server.pid}\n", encoding="ascii")
        _wait_until_healthy(server, port, output)
    return address


def stop_server() -> bool:
    """Stop the server that `start_server` started from this folder; False when none runs."""
    running = _find_running()
    _PID_PATH.unlink(missing_ok=True)
    if running is None:
        return False
    running.terminate()
    try:
        running.wait(_STOP_S)
    except psutil.TimeoutExpired:
        running.kill()
    return True


def ensure_server() -> None:
    """Use the configured server, or else start one on loopback for as long as this process lives.

    Prefect would start one itself, in the process group of the terminal: Ctrl-C then ends the server before the flow
    can report, which hangs for minutes. This one has a session of its own. Its database is Prefect's usual one, so
    that a server that is started later shows the run.

    Raises:
        ServerError: it did not come up; with the last lines that it wrote.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    port = _find_port()
    with tempfile.TemporaryFile() as output:
        server = _launch(port, output)
        # at exit, after Prefect's threads (started later) have sent what they hold
        atexit.register(_end, server)
        _wait_until_healthy(server, port, output)
    # the environment, as Prefect's threads do not see temporary settings
    os.environ["PREFECT_API_URL"] = f"http://{_HOST}:{port}/api"
    refresh_global_settings_context()
    _log.info("temporary server, gone when this run ends: http://%s:%d", _HOST, port)


def main() -> None:
    """Start or stop the server of this folder."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Prefect's server for the UI.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("start").add_argument("--port", type=int, default=4200)
    commands.add_parser("stop")
    args = parser.parse_args()
    if args.command == "stop":
        _log.info("stopped" if stop_server() else "no server of this folder runs")
        return
    try:
        address = start_server(args.port)
    except ServerError as error:
        sys.exit(str(error))
    _log.info("UI: %s", address)
    _log.info("runs are shown there when they find it: export PREFECT_API_URL=%s/api", address)


def _launch(port: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    address = f"http://{_HOST}:{port}"
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        # without its own address, the UI asks port 4200
        env=os.environ | {"PREFECT_UI_API_URL": f"{address}/api"},
        start_new_session=True,
    )


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _find_running() -> psutil.Process | None:
    """Find the process that the file names, if it is still a Prefect server."""
    try:
        process = psutil.Process(int(_PID_PATH.read_text(encoding="ascii")))
        return process if "prefect" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None


def _find_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _wait_until_healthy(server: subprocess.Popen[bytes], port: int, output: IO[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://{_HOST}:{port}/api/health", timeout=_START_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    output.seek(0)
    tail = output.read().decode(errors="replace")[-2000:]
    found = f"did not answer in {_START_S:.0f} s" if server.poll() is None else f"ended with status {server.returncode}"
    if server.poll() is None:
        _end(server)
    raise ServerError(f"Prefect's server {found}. Its output ends:\n{tail}")


if __name__ == "__main__":
    main()
