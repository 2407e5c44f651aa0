"""Locks that expire with their holder: the kernel frees them when the last process that holds them is gone.

A lease is an advisory lock on an open file (flock). Processes that inherit the file hold it too, so a lease that was
given to a stage is free exactly when no process of the stage is left that has it, however these processes ended.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Lease:
    """A file that this process has locked."""

    path: Path
    descriptor: int
    """To be passed on to the processes that hold the lease as well."""

    def release(self) -> None:
        """Give up this process's hold on it."""
        os.close(self.descriptor)


def take_lease(path: Path, *, holder: str) -> Lease | None:
    """Lock a file, made if missing, or return None when somebody else holds it; `holder` says who we are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, holder.encode(), 0)
    return Lease(path, descriptor)


def read_holder(path: Path) -> str:
    """Read what the last holder of a lease said about itself."""
    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def take_gpus(count: int, gpus: tuple[str, ...], *, holder: str) -> list[Lease] | None:
    """Take that many of the machine's GPUs, or none at all when fewer are free.

    The locks lie in the machine's temporary folder, so that every project's runs see them. The last part of a lease's
    path is the device's name, as CUDA_VISIBLE_DEVICES has it.
    """
    leases: list[Lease] = []
    folder = Path(tempfile.gettempdir()) / "flows-gpus"
    for gpu in gpus:
        if len(leases) == count:
            break
        lease = take_lease(folder / gpu, holder=holder)
        if lease is not None:
            leases.append(lease)
    if len(leases) == count:
        return leases
    for lease in leases:
        lease.release()
    return None
