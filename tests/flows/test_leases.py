from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from flows.leases import read_holder, take_gpus, take_lease

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the leases of other runs on this machine out."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


HOLD = """
import subprocess, sys, time
from pathlib import Path
from flows.leases import take_lease
lease = take_lease(Path(sys.argv[1]), holder="the other")
assert lease is not None
if len(sys.argv) > 2:
    subprocess.Popen(["sleep", "600"], pass_fds=[lease.descriptor], start_new_session=True, stdout=subprocess.DEVNULL)
print("held", flush=True)
time.sleep(600)
"""


def hold_elsewhere(path: Path, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.stdout.close()
    return process


def test_a_lease_is_free_again_when_it_is_released(tmp_path: Path) -> None:
    first = take_lease(tmp_path / "deep" / "lock", holder="first")
    assert first is not None
    assert take_lease(tmp_path / "deep" / "lock", holder="second") is None
    assert read_holder(tmp_path / "deep" / "lock") == "first"
    first.release()
    second = take_lease(tmp_path / "deep" / "lock", holder="me")
    assert second is not None
    assert read_holder(tmp_path / "deep" / "lock") == "me"
    second.release()


def test_kill_9_of_its_holder_frees_a_lease(tmp_path: Path) -> None:
    other = hold_elsewhere(tmp_path / "lock")
    assert take_lease(tmp_path / "lock", holder="me") is None
    assert read_holder(tmp_path / "lock") == "the other"
    other.kill()
    other.wait()
    lease = take_lease(tmp_path / "lock", holder="me")
    assert lease is not None
    lease.release()


def test_who_inherits_a_lease_holds_it_after_its_holder_is_killed(tmp_path: Path) -> None:
    other = hold_elsewhere(tmp_path / "lock", "with a child")
    (child,) = (int(pid) for pid in subprocess.check_output(["pgrep", "-P", str(other.pid)], text=True).split())
    other.kill()
    other.wait()
    assert take_lease(tmp_path / "lock", holder="me") is None
    os.kill(child, signal.SIGKILL)
    while os.path.exists(f"/proc/{child}/fd/1"):
        pass
    lease = take_lease(tmp_path / "lock", holder="me")
    assert lease is not None
    lease.release()


def test_gpus_are_taken_whole_and_all_or_none() -> None:
    gpus = ("0", "1", "2")
    two = take_gpus(2, gpus, holder="a")
    assert two is not None
    assert [lease.path.name for lease in two] == ["0", "1"]
    assert take_gpus(2, gpus, holder="b") is None
    one = take_gpus(1, gpus, holder="c")
    assert one is not None
    assert [lease.path.name for lease in one] == ["2"]
    for lease in [*one, *two]:
        lease.release()
    assert len(take_gpus(3, gpus, holder="d") or []) == 3


def test_no_gpu_is_always_there() -> None:
    assert take_gpus(0, (), holder="a") == []
