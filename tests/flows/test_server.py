from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest

import flows.server
from flows.server import ServerError, start_server
from tests.flows.conftest import REPOSITORY, DemoProject, stage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's home, shared as a new database costs ten seconds."""
    return tmp_path_factory.mktemp("home")


def run_module(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "DO_NOT", "DVC_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=kept | {"PYTHONPATH": str(REPOSITORY), "PREFECT_HOME": str(cwd)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_stays_until_it_is_stopped(tmp_path: Path, home: Path) -> None:
    port = find_port()
    try:
        for _ in range(2):
            started = run_module(
                "-m", "flows.server", "start", "--port", str(port), cwd=tmp_path, PREFECT_HOME=str(home)
            )
            assert started.returncode == 0, started.stderr
            assert f"UI: http://127.0.0.1:{port}" in started.stderr
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings") as answer:
            assert f'"api_url":"http://127.0.0.1:{port}/api"' in answer.read().decode()
        elsewhere = run_module("-m", "flows.server", "start", "--port", str(find_port()), cwd=tmp_path)
        assert (elsewhere.returncode, "at another port" in elsewhere.stderr) == (1, True)
    finally:
        stopped = run_module("-m", "flows.server", "stop", cwd=tmp_path)
    assert "stopped" in stopped.stderr
    assert "no server" in run_module("-m", "flows.server", "stop", cwd=tmp_path).stderr


def test_a_port_that_is_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken"):
            start_server(port)


def test_a_server_that_does_not_come_up_is_reported_with_its_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(flows.server.sys, "executable", "/bin/echo")
    with pytest.raises(ServerError, match=r"ended with status 0(.|\n)*server start"):
        start_server(find_port())


def test_nothing_phones_home_even_outside_make(tmp_path: Path) -> None:
    script = """
import builtins, os
real, seen = builtins.__import__, []
def note(name, *rest, **more):
    if name.split(".")[0] in ("prefect", "dvc") and not seen:
        seen.append({key: os.environ.get(key) for key in
                     ("DO_NOT_TRACK", "PREFECT_SERVER_ANALYTICS_ENABLED", "DVC_NO_ANALYTICS")})
    return real(name, *rest, **more)
builtins.__import__ = note
import flows.MODULE
print(seen)
"""
    expected = {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DVC_NO_ANALYTICS": "1"}
    done = run_module("-c", script.replace("MODULE", "reproduce"), cwd=tmp_path)
    assert done.stdout.strip() == str([expected]), done.stderr


def test_without_a_configured_server_a_run_brings_its_own(project: DemoProject, home: Path) -> None:
    project.write({"one": stage("echo 1 > one.txt", out="one.txt")})
    done = run_module("-m", "flows.reproduce", cwd=project.root, PREFECT_HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert "1 stages: 1 Completed" in done.stdout + done.stderr
    assert "failed" not in (done.stdout + done.stderr).lower()
    assert project.list_ran() == ["one"]
