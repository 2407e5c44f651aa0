"""Two workers that share nothing with the coordinator but git, S3 and Prefect's server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.flows.network import Line
from tests.flows.test_reproduce import CLEAN, read_states, run, start_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.conftest import DemoProject

POOL = "elsewhere"


class Worker:
    """`prefect worker start`, with a home, a temporary and a working folder of its own, and lines to the servers."""

    def __init__(self, home: Path, api: str, s3: str, *, pool: str = POOL, limit: int = 1, **more: str) -> None:
        self.home = home
        self.pool = pool
        self.limit = limit
        self.lines = [Line(api), Line(s3)]
        self.folder = home / "work"
        (self.folder / "tmp").mkdir(parents=True)
        self._environment = os.environ | {
            "HOME": str(home),
            "TMPDIR": str(self.folder / "tmp"),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": f"{self.lines[0].address}/api",
            "AWS_ENDPOINT_URL": self.lines[1].address,
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "FLOWS_WORKER_DIR": str(self.folder),
            "FLOWS_HEARTBEAT_S": "1",
            "CUDA_VISIBLE_DEVICES": "7",
            **more,
        }
        self.start()

    def start(self) -> None:
        command = ["prefect", "worker", "start", "--pool", self.pool]
        command += ["--name", self.home.name, "--limit", str(self.limit)]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=self.home,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def find_flow_runs(self) -> list[psutil.Process]:
        """Find the processes that the worker started for flow runs."""
        return psutil.Process(self.process.pid).children()

    def stop(self) -> None:
        for process in [*self.find_flow_runs(), psutil.Process(self.process.pid)]:
            process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def workers(s3: str, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Worker]]:
    from flows.local_s3 import make_bucket
    from flows.pool import create_pool

    make_bucket(s3, "artefacts")
    create_pool(POOL, kind="process", cpus=1, memory_gib=4, gpus=1)
    home = tmp_path_factory.mktemp("workers")
    started = [Worker(home / name, prefect_server, s3) for name in ("one", "two")]
    yield started
    for worker in started:
        worker.stop()


@pytest.fixture
def project(project: DemoProject, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoProject:
    """The coordinator's workspace, with a git remote and a DVC remote of its own."""
    import flows.pool

    monkeypatch.setattr(flows.pool, "_POLL_S", 0.3)
    remote = tmp_path.parent / f"{tmp_path.name}.git"
    project.git("init", "--quiet", "--bare", str(remote))
    project.git("remote", "add", "origin", str(remote))
    project.use_bucket(f"s3://artefacts/{tmp_path.name}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    return project


def here(name: str, *, deps: list[str], more: str = "", **rest: Any) -> dict[str, object]:
    """A stage that writes down where it ran."""
    reads = f"cat {' '.join(deps)} > {name}.txt;"
    return {"cmd": f"{reads} pwd >> {name}.txt; {more}", "deps": deps, "outs": [f"{name}.txt"], **rest}


def waiting(folder: Path, name: str, *, more: str = "") -> dict[str, object]:
    """A stage that says in `folder` that it runs, and waits there for a word; only the tests see that folder."""
    says = f"echo $$ >> {folder}/{name}.up; while [ ! -e {folder}/{name}.go ]; do sleep 0.1; done;"
    return {"cmd": f"{says} cat source.txt > {name}.txt; {more}", "deps": ["source.txt"], "outs": [f"{name}.txt"]}


def read_starts(folder: Path, name: str) -> list[int]:
    """Read the process ids of the stage's starts, the first one first."""
    path = folder / f"{name}.up"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_for_start(folder: Path, name: str, number: int = 1) -> int:
    """Wait until a stage has been started so many times; returns the last one's process id."""
    deadline = time.monotonic() + 240
    while len(starts := read_starts(folder, name)) < number and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(starts) >= number, f"{name} was started {len(starts)} times"
    return starts[number - 1]


@pytest.fixture
def slow(project: DemoProject, tmp_path: Path) -> Path:
    """The folder over which a project of one waiting stage, `slow`, talks to the test."""
    folder = tmp_path.parent / f"{tmp_path.name}-talk"
    folder.mkdir()
    project.write({"slow": waiting(folder, "slow")})
    (project.root / "source.txt").write_text("1\n")
    project.commit()
    return folder


def start_run(project: DemoProject, api: str) -> subprocess.Popen[bytes]:
    return start_command(project, api, "--pool", POOL)


def test_two_workers_bring_a_project_up_to_date(project: DemoProject, workers: list[Worker]) -> None:
    project.write(
        {
            "left": here("left", deps=["source.txt", "script.py"], more="sleep 4", params=["rate"]),
            "right": here("right", deps=["source.txt"], more="sleep 4", meta={"flows": {"gpus": 1}}),
            # has the same commit as the two before it, and fetches it when one of them has ended
            "third": here("third", deps=["source.txt"], more="sleep 4"),
            "join": here("join", deps=["left.txt", "right.txt"]),
            "table": {"cmd": "wc -l < join.txt > table.txt", "deps": ["join.txt"],
                      "outs": [{"table.txt": {"cache": False}}]},
        },
        {"rate": 1},
    )  # fmt: skip
    (project.root / "source.txt").write_text("committed\n")
    project.commit()
    (project.root / "source.txt").write_text("edited\n")
    (project.root / "script.py").write_text("new\n")
    before = project.git("status", "--porcelain")
    state = run(pool=POOL)
    assert state.is_completed(), state.message
    assert read_states(state) == dict.fromkeys(["left", "right", "join", "table", "third"], "Completed")
    lines = (project.root / "join.txt").read_text().splitlines()
    assert lines[:2] == ["edited", "new"]
    lines += (project.root / "third.txt").read_text().splitlines()
    used = {worker.home.name for worker in workers for line in lines if line.startswith(str(worker.home))}
    assert used == {"one", "two"}
    assert project.dvc("status") == CLEAN
    assert project.dvc("repro").endswith(CLEAN)
    assert project.git("status", "--porcelain", "--", "*.py", "source.txt", "dvc.yaml") == before
    assert len(project.git("ls-remote", "origin", "refs/flows/*").splitlines()) == 1


def test_a_stage_of_a_worker_that_was_killed_is_run_by_another(
    project: DemoProject, slow: Path, workers: list[Worker], monkeypatch: pytest.MonkeyPatch, prefect_server: str
) -> None:
    monkeypatch.setenv("FLOWS_LOST_S", "15")
    command = start_run(project, prefect_server)
    first = wait_for_start(slow, "slow")
    victim = next(worker for worker in workers if psutil.Process(first).cwd().startswith(str(worker.home)))
    victim.stop()
    try:
        second = wait_for_start(slow, "slow", 2)
        assert not psutil.pid_exists(first)  # the watchdog of the dead worker's machine has ended it
        assert not psutil.Process(second).cwd().startswith(str(victim.home))
        (slow / "slow.go").touch()
        assert command.wait(240) == 0
    finally:
        command.kill()
        victim.start()
    assert project.dvc("status") == CLEAN


def test_what_a_killed_coordinator_had_given_away_is_not_run_twice(
    project: DemoProject, slow: Path, workers: list[Worker], prefect_server: str
) -> None:
    command = start_run(project, prefect_server)
    wait_for_start(slow, "slow")
    command.kill()
    command.wait()
    threading.Timer(3, (slow / "slow.go").touch).start()
    state = run(pool=POOL)
    assert state.is_completed(), state.message
    assert len(read_starts(slow, "slow")) == 1
    assert project.dvc("status") == CLEAN


@pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_worker_without_network_for_a_while_finishes_its_stage(
    seconds: int, project: DemoProject, slow: Path, workers: list[Worker]
) -> None:
    def cut() -> None:
        try:
            wait_for_start(slow, "slow")
            for worker in workers:
                worker.lines[0].cut()
        finally:
            (slow / "slow.go").touch()  # it ends while nobody can hear of it
        time.sleep(seconds)
        for worker in workers:
            worker.lines[0].mend()

    thread = threading.Thread(target=cut)
    thread.start()
    state = run(pool=POOL)
    thread.join()
    assert state.is_completed(), state.message
    assert len(read_starts(slow, "slow")) == 1


def test_an_interrupted_run_ends_its_stages_elsewhere(
    project: DemoProject, slow: Path, workers: list[Worker], prefect_server: str
) -> None:
    command = start_run(project, prefect_server)
    stage_process = wait_for_start(slow, "slow")
    command.send_signal(signal.SIGINT)
    assert command.wait(120) == 130
    deadline = time.monotonic() + 30
    while psutil.pid_exists(stage_process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(stage_process)
    assert not (project.root / "dvc.lock").exists()


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("pool", "there is no work pool nothing"),
        ("gpus", "slow needs 2 gpus, and on a worker of pool elsewhere there are 1"),
        ("remote", "no DVC remote is configured"),
        ("bucket", "cannot be reached"),
        ("ignored", "slow needs .*source.txt, which neither git nor DVC holds"),
        ("submodule", "the submodule part has edits that are not committed there"),
        ("git", "git push"),
    ],
)
def test_what_other_machines_cannot_do_is_refused_before_anything_runs(
    case: str, message: str, project: DemoProject, slow: Path, workers: list[Worker], s3: str, tmp_path: Path
) -> None:
    if case == "gpus":
        stage = waiting(slow, "slow") | {"meta": {"flows": {"gpus": 2}}}
        project.write({"slow": stage})
    elif case == "remote":
        (project.root / ".dvc/config").write_text("")
    elif case == "bucket":
        project.use_bucket("s3://no-such-bucket/dvc", s3)
    elif case == "ignored":
        (project.root / ".gitignore").write_text("source.txt\n")
        project.git("rm", "--quiet", "--cached", "source.txt")
        project.git("add", ".gitignore")
        project.git("commit", "--quiet", "--message", "A source that git ignores")
    elif case == "submodule":
        part = project.root / "part"
        part.mkdir()
        for command in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "First"]):
            project.git("-C", str(part), *command)
        project.git("add", "part")
        project.git("commit", "--quiet", "--message", "With a submodule")
        (part / "edit.txt").write_text("not committed\n")
    elif case == "git":
        project.git("remote", "set-url", "origin", str(tmp_path / "nowhere.git"))
    state = run(pool="nothing" if case == "pool" else POOL)
    assert state.is_failed()
    assert re.search(message, str(state.message)), state.message
    assert read_starts(slow, "slow") == []
