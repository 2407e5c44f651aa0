"""A whole flow, with a worker, whose S3 answers 500, slower than anybody waits, or half a body: up and down."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

import flows.elsewhere
import flows.pool
from flows.local_s3 import make_bucket
from flows.pool import create_pool
from tests.flows.aftermath import assert_goes_on
from tests.flows.network import FaultyProxy
from tests.flows.test_remote import Worker
from tests.flows.test_reproduce import read_states, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.conftest import DemoProject

POOL = "faulty"
SOURCE = "a line of some length\n" * 2000
IMPATIENT = {"FLOWS_PATIENCE_S": "6", "AWS_MAX_ATTEMPTS": "1"}
TIMEOUT_S = 3
"""After which a request is made anew; the proxy is slower."""


@pytest.fixture(scope="module")
def proxy(s3: str) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(s3, slow_s=TIMEOUT_S + 1)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def worker(s3: str, prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    make_bucket(s3, "faulty")
    create_pool(POOL, kind="process", cpus=1, memory_gib=4, gpus=0)
    worker = Worker(
        tmp_path_factory.mktemp("workers") / "impatient", prefect_server, s3, pool=POOL, limit=2, **IMPATIENT
    )
    yield worker
    worker.stop()


@pytest.fixture
def faulty(
    project: DemoProject, proxy: FaultyProxy, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DemoProject:
    """A project whose files go over the proxy, here and on the worker; stages leave their names beside it."""
    monkeypatch.setattr(flows.pool, "_POLL_S", 1.0)  # shorter ones make the server the slowest of all
    for name, value in IMPATIENT.items():
        monkeypatch.setenv(name, value)
    remote = tmp_path.parent / f"{tmp_path.name}.git"
    project.git("init", "--quiet", "--bare", str(remote))
    project.git("remote", "add", "origin", str(remote))
    project.trace = tmp_path.parent / f"{tmp_path.name}-ran"
    project.use_bucket(f"s3://faulty/{tmp_path.name}", proxy.address, read_timeout=TIMEOUT_S)
    (project.root / "source.txt").write_text(SOURCE)
    proxy.faults, proxy.always, proxy.caused = [], [], 0
    return project


def appending(project: DemoProject, source: str, name: str) -> dict[str, object]:
    command = f"echo {name} >> {project.trace}; cat {source} > {name}.txt; echo {name} >> {name}.txt"
    return {"cmd": command, "deps": [source], "outs": [f"{name}.txt"]}


def locate(*names: str) -> str:
    """Where the output of the last of the stages lies, of which each appends to the output of the one before."""
    content = SOURCE + "".join(f"{name}\n" for name in names)
    digest = hashlib.md5(content.encode(), usedforsecurity=False).hexdigest()
    return f"/files/md5/{digest[:2]}/{digest[2:]}"


def read_messages(state: Any, *, num_stages: int) -> dict[str, str]:
    """Read what the UI says of every stage."""
    filter_ = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
    with get_client(sync_client=True) as client:
        found = wait_for(
            lambda: client.read_task_runs(flow_run_filter=filter_),
            lambda runs: len(runs) == num_stages and all(run.state and run.state.is_final() for run in runs),
        )
    return {run.name: str(run.state.message) for run in found}


def test_a_run_ends_well_when_every_transfer_breaks_once(
    faulty: DemoProject, proxy: FaultyProxy, worker: Worker
) -> None:
    faulty.write({"first": appending(faulty, "source.txt", "first"), "work": appending(faulty, "first.txt", "work")})
    faulty.commit()
    proxy.faults = [
        ("slow", "PUT", locate("first")),  # here, for the worker
        ("half", "GET", locate("first")),  # there
        ("500", "PUT", locate("first", "work")),
        ("half", "PUT", "/runs/"),
        ("500", "GET", "/runs/"),  # here again
        ("slow", "GET", locate("first", "work")),
    ]
    state = run(pool=POOL, pool_stages=["work"])
    assert state.is_completed(), state.message
    assert (proxy.faults, proxy.caused) == ([], 6)
    assert faulty.list_ran() == ["first", "work"]
    assert_goes_on(faulty, left=[], folders=[worker.folder], pool=POOL, pool_stages=["work"])


def test_a_run_whose_s3_stays_broken_says_so_and_the_next_one_goes_on(
    faulty: DemoProject, proxy: FaultyProxy, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.elsewhere, "_MAX_TRIES", 2)  # a worker is asked twice
    there = ["forth", "up", "back"]
    faulty.write(
        {"first": appending(faulty, "source.txt", "first"), "for_forth": appending(faulty, "source.txt", "for_forth")}
        | {name: appending(faulty, "first.txt", name) for name in ("up", "back")}
        | {"forth": appending(faulty, "for_forth.txt", "forth")}
    )
    faulty.commit()
    broken = {
        "forth": ("slow", "PUT", locate("for_forth")),  # here, for the worker
        "up": ("500", "PUT", locate("first", "up")),  # there
        "back": ("half", "GET", locate("first", "back")),  # here again
    }
    proxy.always = list(broken.values())
    state = run(pool=POOL, pool_stages=there, keep_going=True)
    assert state.is_failed()
    assert read_states(state) == {
        "first": "Completed", "for_forth": "Completed", "forth": "Failed", "up": "Failed", "back": "Failed"
    }  # fmt: skip
    messages = read_messages(state, num_stages=5)
    for name, (_, method, path) in broken.items():
        verb = {"PUT": "put", "GET": "get"}[method]
        assert f"could not {verb} 1 object at the DVC remote s3 (s3://faulty/" in messages[name]
        assert path in messages[name]
        assert "python -m flows.storage --remote s3 check" in messages[name]
    assert sorted(faulty.list_ran()) == ["back", "first", "for_forth", "up"]
    proxy.always = []
    assert_goes_on(
        faulty, left=["forth"], restored=["up", "back"], folders=[worker.folder], pool=POOL, pool_stages=there
    )
