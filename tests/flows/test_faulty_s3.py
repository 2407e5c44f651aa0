"""A whole flow, with a worker, whose S3 answers 500, slower than anybody waits, or half a body: up and down."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.flows.aftermath import assert_goes_on
from tests.flows.network import FaultyProxy
from tests.flows.test_remote import Worker
from tests.flows.test_reproduce import run

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
    from flows.local_s3 import make_bucket
    from flows.pool import create_pool

    make_bucket(s3, "faulty")
    create_pool(POOL, kind="process", cpus=1, memory_gib=4, gpus=0)
    worker = Worker(
        tmp_path_factory.mktemp("workers") / "impatient", prefect_server, s3, pool=POOL, limit=4, **IMPATIENT
    )
    yield worker
    worker.stop()


@pytest.fixture
def faulty(
    project: DemoProject, proxy: FaultyProxy, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DemoProject:
    """A project whose files go over the proxy, here and on the worker; stages leave their names beside it."""
    import flows.pool

    monkeypatch.setattr(flows.pool, "_POLL_S", 0.3)
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
