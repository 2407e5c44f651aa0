"""Two workers that share nothing with the coordinator but git, S3 and Prefect's server."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.flows.test_reproduce import CLEAN, read_states, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.conftest import DemoProject

POOL = "elsewhere"


class Worker:
    """`prefect worker start`, with a home, a temporary folder and a working folder of its own."""

    def __init__(self, home: Path, api: str) -> None:
        self.home = home
        (home / "tmp").mkdir(parents=True)
        self._environment = os.environ | {
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": api,
            "PREFECT_WORKER_QUERY_SECONDS": "0.5",
            "FLOWS_WORKER_DIR": str(home / "work"),
            "FLOWS_HEARTBEAT_S": "0.5",
            "CUDA_VISIBLE_DEVICES": "7",
        }
        self.start()

    def start(self) -> None:
        command = ["prefect", "worker", "start", "--pool", POOL, "--name", self.home.name, "--limit", "1"]
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
    started = [Worker(home / name, prefect_server) for name in ("one", "two")]
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
    project.use_bucket(f"s3://artefacts/{tmp_path.name}", s3)
    return project


def here(name: str, *, deps: list[str], more: str = "", **rest: Any) -> dict[str, object]:
    """A stage that writes down where it ran."""
    reads = f"cat {' '.join(deps)} > {name}.txt;"
    return {"cmd": f"{reads} pwd >> {name}.txt; {more}", "deps": deps, "outs": [f"{name}.txt"], **rest}


def test_two_workers_bring_a_project_up_to_date(project: DemoProject, workers: list[Worker]) -> None:
    project.write(
        {
            "collect": here("collect", deps=["source.txt", "script.py"]),
            "left": here("left", deps=["collect.txt"], more="sleep 4", params=["rate"]),
            "right": here("right", deps=["collect.txt"], more="sleep 4", meta={"flows": {"gpus": 1}}),
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
    before = subprocess.check_output(["git", "status", "--porcelain"], cwd=project.root)
    state = run(pool=POOL)
    assert state.is_completed(), state.message
    assert read_states(state) == dict.fromkeys(["collect", "left", "right", "join", "table"], "Completed")
    lines = (project.root / "join.txt").read_text().splitlines()
    assert lines[:2] == ["edited", "new"]
    places = {line for line in lines if line.startswith("/")}
    assert {next(str(w.home) for w in workers if line.startswith(str(w.home))) for line in places} == {
        str(worker.home) for worker in workers
    }
    assert project.dvc("status") == CLEAN
    assert project.dvc("repro").endswith(CLEAN)
    assert before == subprocess.check_output(["git", "status", "--porcelain", "--", "*.py", "source.txt"])
    refs = subprocess.check_output(["git", "ls-remote", "origin", "refs/flows/*"], cwd=project.root, text=True)
    assert len(refs.splitlines()) == 1
