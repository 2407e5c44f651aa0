"""Two workers that share nothing with the coordinator but git, S3 and Prefect's server."""

from __future__ import annotations

import contextlib
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

import flows.pool
from flows.local_s3 import make_bucket
from flows.pool import create_pool
from tests.flows.aftermath import assert_goes_on, assert_soon, is_alive
from tests.flows.conftest import REPOSITORY, DemoProject
from tests.flows.network import Line
from tests.flows.slurm import submit
from tests.flows.test_reproduce import CLEAN, read_states, run, start_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Start = Callable[..., subprocess.Popen[bytes]]

POOL = "elsewhere"
SLURM_SCRIPT = REPOSITORY / "deploy/worker.sbatch"
# seldom enough for a server that shares two cores with everything else
BEATS = {"PREFECT_WORKER_QUERY_SECONDS": "1", "FLOWS_HEARTBEAT_S": "2"}


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
            **BEATS,
            "FLOWS_WORKER_DIR": str(self.folder),
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

    def cut(self) -> None:
        """Take the network away."""
        for line in self.lines:
            line.cut()

    def mend(self) -> None:
        """Give the network back."""
        for line in self.lines:
            line.mend()

    def stop(self) -> None:
        for process in [*self.find_flow_runs(), psutil.Process(self.process.pid)]:
            process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def services(s3: str, prefect_server: str) -> None:
    """A bucket, and a work pool."""
    make_bucket(s3, "artefacts")
    create_pool(POOL, kind="process", cpus=1, memory_gib=4, gpus=1)


@pytest.fixture(scope="module")
def workers(
    s3: str, prefect_server: str, services: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Worker]]:
    home = tmp_path_factory.mktemp("workers")
    started = [Worker(home / name, prefect_server, s3) for name in ("one", "two")]
    yield started
    for worker in started:
        worker.stop()


@pytest.fixture
def project(
    project: DemoProject, s3: str, services: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DemoProject:
    """The coordinator's workspace, with a git remote and a DVC remote of its own."""
    monkeypatch.setattr(flows.pool, "_POLL_S", 1.0)
    monkeypatch.setenv("FLOWS_POOL_POLL_S", "1")
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


def waiting(folder: Path, name: str, **more: Any) -> dict[str, object]:
    """A stage that says in `folder` that it runs, and waits there for a word; only the tests see that folder."""
    says = f"echo $$ >> {folder}/{name}.up; echo {name} >> {folder}/ran; "
    says += f"while [ ! -e {folder}/{name}.go ]; do sleep 0.1; done;"
    return {"cmd": f"{says} cat first.txt > {name}.txt", "deps": ["first.txt"], "outs": [f"{name}.txt"], **more}


def copying(folder: Path, source: str, name: str) -> dict[str, object]:
    """A stage that says in `folder` that it ran."""
    command = f"echo {name} >> {folder}/ran; cp {source} {name}.txt"
    return {"cmd": command, "deps": [source], "outs": [f"{name}.txt"]}


def read_starts(folder: Path, name: str) -> list[int]:
    """Read the process ids of the stage's starts, the first one first."""
    path = folder / f"{name}.up"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_for_start(folder: Path, name: str, number: int = 1) -> psutil.Process:
    """Wait until a stage has been started so many times; returns the last one's process."""
    deadline = time.monotonic() + 240
    while len(starts := read_starts(folder, name)) < number and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(starts) >= number, f"{name} was started {len(starts)} times"
    return psutil.Process(starts[number - 1])


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stages and tests know: one for all tests, so that all have the same sequential run."""
    return tmp_path_factory.mktemp("talk")


@pytest.fixture
def slow(project: DemoProject, talk: Path) -> Path:
    """The folder over which the stage `slow`, which waits, talks to the test; `first` and `after` run here."""
    folder = talk
    for path in folder.iterdir():
        path.unlink()
    project.trace = folder / "ran"
    project.write(
        {
            "first": copying(folder, "source.txt", "first"),
            "slow": waiting(folder, "slow"),
            "after": copying(folder, "slow.txt", "after"),
        }
    )
    (project.root / "source.txt").write_text("1\n")
    project.commit()
    return folder


THERE: dict[str, Any] = {"pool": POOL, "pool_stages": ["slow"]}


@pytest.fixture
def start_run(project: DemoProject, prefect_server: str) -> Iterator[Start]:
    """Starts the command, which gives `slow` to a pool; killed at the end, should the test fail."""
    started = []

    def start(*, api: str = prefect_server, pool: str = POOL) -> subprocess.Popen[bytes]:
        started.append(start_command(project, api, "--pool", pool, "--pool-stage", "slow"))
        return started[-1]

    yield start
    for command in started:
        command.kill()
        command.wait()


def list_folders(workers: list[Worker]) -> list[Path]:
    """List the folders of workers that had a stage."""
    return [worker.folder for worker in workers if list(worker.folder.glob("*/0.lock"))]


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


def find_worker(workers: list[Worker], process: psutil.Process) -> Worker:
    """Find the worker that runs a process."""
    return next(worker for worker in workers if process.cwd().startswith(str(worker.home)))


def wait_for_end(process: psutil.Process) -> None:
    assert_soon(lambda: [str(process)] if is_alive(process) else [])


@pytest.mark.parametrize("how", ["killed", "away"])
def test_a_stage_of_a_worker_that_was_given_up_is_run_by_another(
    how: str,
    project: DemoProject,
    slow: Path,
    workers: list[Worker],
    start_run: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed, or without network until another has the stage: then it hears of that, and ends its own."""
    monkeypatch.setenv("FLOWS_LOST_S", "15")
    command = start_run()
    first = wait_for_start(slow, "slow")
    victim = find_worker(workers, first)
    (victim.stop if how == "killed" else victim.cut)()
    try:
        second = wait_for_start(slow, "slow", 2)
        assert find_worker(workers, second) is not victim
        assert is_alive(first) == (how == "away")  # the watchdog of the dead worker's machine has ended it
    finally:
        (victim.start if how == "killed" else victim.mend)()
    wait_for_end(first)
    (slow / "slow.go").touch()
    assert command.wait(240) == 0
    assert project.list_ran() == ["first", "slow", "slow", "after"]
    assert_goes_on(project, left=[], folders=list_folders(workers), **THERE)


def test_what_a_killed_coordinator_had_given_away_is_not_run_twice(
    project: DemoProject, slow: Path, workers: list[Worker], start_run: Start
) -> None:
    command = start_run()
    wait_for_start(slow, "slow")
    command.kill()
    command.wait()
    threading.Timer(3, (slow / "slow.go").touch).start()
    assert_goes_on(project, left=["after"], folders=list_folders(workers), **THERE)


def test_two_coordinators_of_two_clones_have_a_stage_run_once(
    project: DemoProject, slow: Path, workers: list[Worker], start_run: Start, tmp_path: Path
) -> None:
    clone = DemoProject(tmp_path.parent / f"{tmp_path.name}-clone")
    project.git("clone", "--quiet", str(project.root), str(clone.root))
    clone.git("-C", str(clone.root), "remote", "set-url", "origin", project.git("remote", "get-url", "origin").strip())
    clone.trace = project.trace
    command = start_run()
    wait_for_start(slow, "slow")
    threading.Timer(3, (slow / "slow.go").touch).start()
    with contextlib.chdir(clone.root):
        state = run(**THERE)
    assert state.is_completed(), state.message
    assert command.wait(240) == 0
    assert sorted(project.list_ran()) == ["after", "after", "first", "first", "slow"]
    for one in (project, clone):
        with contextlib.chdir(one.root):
            assert_goes_on(one, left=[], folders=list_folders(workers), **THERE)


def test_stages_that_fail_or_hang_on_a_worker_are_all_that_the_next_run_runs(
    project: DemoProject, slow: Path, workers: list[Worker]
) -> None:
    trouble = f"if [ -e {slow}/trouble ]; then"
    project.write(
        {
            "first": copying(slow, "source.txt", "first"),
            "bad": {**copying(slow, "first.txt", "bad"), "cmd": f"echo bad >> {slow}/ran; {trouble} exit 3; fi; "
                    "cp first.txt bad.txt"},
            "hang": {**copying(slow, "first.txt", "hang"), "cmd": f"echo hang >> {slow}/ran; {trouble} sleep 600; fi; "
                     "cp first.txt hang.txt"},
        }
    )  # fmt: skip
    needs = project.root / "pyproject.toml"
    needs.write_text("[tool.flows.needs]\nhang = {limit_s = 10}\n")
    (slow / "trouble").touch()
    state = run(pool=POOL, pool_stages=["bad", "hang"], keep_going=True)
    assert read_states(state) == {"first": "Completed", "bad": "Failed", "hang": "Failed"}
    (slow / "trouble").unlink()
    needs.unlink()
    assert_goes_on(project, left=["bad", "hang"], folders=list_folders(workers), pool=POOL, pool_stages=["bad", "hang"])


@pytest.mark.parametrize(("who", "seconds"), [("everybody", 6), pytest.param("workers", 60, marks=pytest.mark.slow)])
def test_who_has_no_network_for_a_while_finishes_its_stage(
    who: str,
    seconds: int,
    project: DemoProject,
    slow: Path,
    workers: list[Worker],
    start_run: Start,
    prefect_server: str,
) -> None:
    """Workers lose Prefect's server and S3; everybody loses Prefect's server, as when it is started anew."""
    ours = Line(prefect_server)
    command = start_run(api=f"{ours.address}/api")
    lines = [line for worker in workers for line in worker.lines]
    if who == "everybody":
        lines = [ours, *(worker.lines[0] for worker in workers)]
    try:
        wait_for_start(slow, "slow")
        for line in lines:
            line.cut()
        (slow / "slow.go").touch()  # it ends while nobody can hear of it
        time.sleep(seconds)
        for line in lines:
            line.mend()
        assert command.wait(240) == 0
    finally:
        for line in lines:
            line.mend()
        ours.cut()
    assert project.list_ran() == ["first", "slow", "after"]
    assert_goes_on(project, left=[], folders=list_folders(workers), **THERE)


def test_an_interrupted_run_ends_its_stages_elsewhere(
    project: DemoProject, slow: Path, workers: list[Worker], start_run: Start
) -> None:
    command = start_run()
    stage_process = wait_for_start(slow, "slow")
    command.send_signal(signal.SIGINT)
    assert command.wait(120) == 130
    wait_for_end(stage_process)
    (slow / "slow.go").touch()
    assert_goes_on(project, left=["slow", "after"], folders=list_folders(workers), **THERE)


def test_a_slurm_job_takes_a_stage_and_when_its_time_is_over_the_next_job_does(
    project: DemoProject,
    slow: Path,
    start_run: Start,
    prefect_server: str,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWS_LOST_S", "60")
    create_pool("slurm", kind="process", cpus=16, memory_gib=120, gpus=2)
    folder = tmp_path_factory.mktemp("cluster")
    environment = {
        "HOME": str(folder), "PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": prefect_server,
        **BEATS,
    }  # fmt: skip
    command = start_run(pool="slurm")
    jobs = []
    try:
        for number in (17, 18):
            jobs.append(submit(SLURM_SCRIPT, "slurm", folder=folder, number=number, **environment))
            stage_process = wait_for_start(slow, "slow", len(jobs))
            assert stage_process.cwd().startswith(f"{folder}/node/flows-{number}/")
            if number == 17:
                jobs[0].terminate()  # as `--signal=B:TERM@120` has it, two minutes before the end
                assert jobs[0].wait(300) is not None
                assert not is_alive(stage_process)
        (slow / "slow.go").touch()
        assert command.wait(240) == 0
    finally:
        for job in jobs:
            job.kill()
    assert project.list_ran() == ["first", "slow", "slow", "after"]
    folders = sorted((folder / "node").iterdir())
    assert [one.name for one in folders] == ["flows-17", "flows-18"]
    assert_goes_on(project, left=[], folders=folders, pool="slurm", pool_stages=["slow"])


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("pool", "there is no work pool nothing"),
        ("gpus", "slow needs 2 gpus, and on a worker of pool elsewhere there are 1"),
        ("remote", "no DVC remote is configured"),
        ("bucket", "cannot be reached"),
        ("ignored", "first needs .*source.txt, which neither git nor DVC holds"),
        ("submodule", "the submodule part has edits that are not committed there"),
        ("git", "git push"),
    ],
)
def test_what_other_machines_cannot_do_is_refused_before_anything_runs(
    case: str, message: str, project: DemoProject, slow: Path, workers: list[Worker], s3: str, tmp_path: Path
) -> None:
    if case == "gpus":
        stage = waiting(slow, "slow") | {"meta": {"flows": {"gpus": 2}}}
        project.write({"first": copying(slow, "source.txt", "first"), "slow": stage})
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
    assert project.list_ran() == []
