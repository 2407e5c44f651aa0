"""Files of a stage over a DVC remote that breaks: answers 500, answers slowly, stops half way."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from dvc.exceptions import DvcException

import flows.patience
from flows.exchange import Exchange, ExchangeError
from flows.local_s3 import make_bucket
from flows.repository import open_repository
from flows.stage import run_stage
from tests.flows.network import FaultyProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.flows.conftest import DemoProject

CONTENT = "a line of some length\n" * 2000


@pytest.fixture
def proxy(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    monkeypatch.setattr(flows.patience, "_FIRST_PAUSE_S", 0.05)
    proxy = FaultyProxy(s3)
    yield proxy
    proxy.close()


@pytest.fixture
def published(project: DemoProject, proxy: FaultyProxy, s3: str, tmp_path: Path) -> str:
    """A stage that ran here, and whose result lies in the bucket; the workspace has forgotten it."""
    name = tmp_path.name.replace("_", "-").lower()[-40:].strip("-")
    make_bucket(s3, name)
    project.use_bucket(f"s3://{name}/dvc", proxy.address)
    project.write({"copy": {"cmd": "cp source.txt copy.txt", "deps": ["source.txt"], "outs": ["copy.txt"]}})
    (project.root / "source.txt").write_text(CONTENT)
    assert run_stage("copy", force=False) == 0
    entry: str = exchange(Exchange.publish)["entry"]
    (project.root / "dvc.lock").unlink()
    (project.root / "copy.txt").unlink()
    shutil.rmtree(project.root / ".dvc/cache")
    return entry


def exchange(do, address: str = "copy"):  # type: ignore[no-untyped-def]
    repository = open_repository()
    try:
        return do(Exchange(repository, address, "s3"))
    finally:
        repository.close()


@pytest.mark.parametrize("fault", ["500", "slow", "half"])
def test_a_remote_that_falters_a_few_times_is_asked_again(
    fault: str, project: DemoProject, proxy: FaultyProxy, published: str
) -> None:
    proxy.faults = [(fault, "GET", "/runs/"), (fault, "GET", "/files/md5/"), (fault, "GET", "/files/md5/")]
    exchange(lambda found: found.take(published))
    assert proxy.caused >= 2
    assert (project.root / "copy.txt").read_text() == CONTENT
    assert project.dvc("status") == "Data and pipelines are up to date."


@pytest.mark.parametrize("fault", ["500", "half"])
def test_an_upload_that_breaks_is_made_again(
    fault: str, project: DemoProject, proxy: FaultyProxy, published: str
) -> None:
    (project.root / "source.txt").write_text(CONTENT * 2)
    assert run_stage("copy", force=False) == 0
    proxy.faults = [(fault, "PUT", "/files/md5/"), (fault, "PUT", "/runs/")]
    entry = exchange(Exchange.publish)["entry"]
    assert proxy.caused == 2
    assert entry != published
    shutil.rmtree(project.root / ".dvc/cache")
    (project.root / "copy.txt").unlink()
    exchange(lambda found: found.take(entry))
    assert (project.root / "copy.txt").read_text() == CONTENT * 2


def test_a_remote_that_never_gives_more_than_half_records_nothing(
    project: DemoProject, proxy: FaultyProxy, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.patience, "_PATIENCE_S", 1.0)
    proxy.faults = [("half", "GET", "/files/md5/")] * 200
    with pytest.raises((ExchangeError, DvcException, OSError)):
        exchange(lambda found: found.take(published))
    assert not (project.root / "dvc.lock").exists()
    assert not (project.root / "copy.txt").exists()
    assert not list((project.root / ".dvc/cache/files").rglob("*/??????????????????????????????"))
    proxy.faults = []
    exchange(lambda found: found.take(published))
    assert (project.root / "copy.txt").read_text() == CONTENT


def test_a_source_that_changed_here_while_the_stage_ran_elsewhere_records_nothing(
    project: DemoProject, published: str
) -> None:
    (project.root / "source.txt").write_text("edited\n")
    with pytest.raises(ExchangeError, match="nothing was recorded"):
        exchange(lambda found: found.take(published))
    assert not (project.root / "dvc.lock").exists()


def test_a_result_that_lies_in_the_remote_is_found_before_anything_is_sent(
    project: DemoProject, published: str
) -> None:
    sent = exchange(Exchange.send)
    assert (sent["entry"], sent["is_here"], sent["files"]) == (published, False, [])
