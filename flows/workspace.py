"""One run at a time in a workspace."""

from __future__ import annotations

import json
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

from flows.leases import Lease, read_holder, take_lease

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ENDING_S = 60.0
_POLL_S = 0.1


class WorkspaceBusyError(RuntimeError):
    """Another run works in this folder."""


@dataclass(frozen=True, slots=True)
class Hold:
    """The workspace, held by one run."""

    lease: Lease
    killed: str | None
    """The flow run that held it before, where that did not come to its end: its process was killed."""


@contextmanager
def hold_workspace(dvc_tmp: Path, flow_run_id: str) -> Iterator[Hold]:
    """Keep other runs out of the workspace until the block ends or this process does.

    After a run that was killed, waits until its watchdog has ended the stages that were left.

    Raises:
        WorkspaceBusyError: another run holds it; with its process and its start.
    """
    path = dvc_tmp / "flows" / "run.lock"
    started = f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"
    holder = json.dumps({"pid": os.getpid(), "started": started, "flow_run": flow_run_id})
    deadline = time.monotonic() + _ENDING_S
    before = _parse(read_holder(path))
    while (lease := take_lease(path, holder=holder)) is None:
        before = found = _parse(read_holder(path))
        if time.monotonic() > deadline or (found and psutil.pid_exists(found["pid"])):
            who = f"process {found['pid']}, since {found['started']}" if found else "a process that cannot be named"
            raise WorkspaceBusyError(f"another run works in this folder ({who}); wait until it ends, or end it")
        time.sleep(_POLL_S)
    try:
        is_killed = before is not None and "flow_run" in before and not psutil.pid_exists(before["pid"])
        yield Hold(lease, str(before["flow_run"]) if before is not None and is_killed else None)
        os.ftruncate(lease.descriptor, 0)  # who comes next sees that this one came to its end
    finally:
        lease.release()


def _parse(holder: str) -> dict[str, int | str] | None:
    try:
        return dict(json.loads(holder))
    except ValueError:  # it is being written
        return None
