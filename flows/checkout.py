"""Folders of a worker in which stages run: a git checkout each, held by one stage at a time, with one DVC cache.

They lie in FLOWS_WORKER_DIR (by default ~/.cache/flows): `<repository>/cache` for DVC, `<repository>/0`, `1`, ... for
the stages that run at the same time.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.leases import Lease, take_lease
from flows.snapshot import name_ref

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIES = 4
_PAUSE_S = 1.0


class CheckoutError(RuntimeError):
    """The code cannot be had; with what git said."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with the code of one commit."""

    folder: Path
    lease: Lease
    """On the folder; a watchdog may share it."""


@contextmanager
def hold_checkout(repository: str, commit: str) -> Iterator[Checkout]:
    """Check a commit out, with nothing in the folder that is not of it, and keep others out until the block ends.

    Args:
        repository: its address for git.
        commit: its id, which `flows.snapshot` has put under a ref of its own name.

    Raises:
        CheckoutError: git cannot fetch it.
    """
    home = Path(os.environ.get("FLOWS_WORKER_DIR") or Path.home() / ".cache/flows").absolute()
    name = repository.rstrip("/").rpartition("/")[2].removesuffix(".git")
    root = home / f"{name}-{hashlib.sha256(repository.encode()).hexdigest()[:12]}"
    folder, lease = _take_free(root)
    try:
        _check_out(folder, repository, commit)
        _write_config(folder, root / "cache")
        yield Checkout(folder, lease)
    finally:
        lease.release()


def _take_free(root: Path) -> tuple[Path, Lease]:
    number = 0
    while (lease := take_lease(root / f"{number}.lock", holder=str(os.getpid()))) is None:
        number += 1
    return root / str(number), lease


def _check_out(folder: Path, repository: str, commit: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for lock in (folder / ".git").rglob("*.lock"):  # of a worker that was killed: the folder is this one's alone
        lock.unlink()
    _git(folder, "init", "--quiet")  # again, as the first one may have been killed half way
    for step in range(_TRIES):
        try:
            # one commit, without its history
            _git(folder, "fetch", "--quiet", "--depth", "1", "--no-tags", repository, name_ref(commit))
            break
        except CheckoutError:
            if step == _TRIES - 1:
                raise
            time.sleep(_PAUSE_S * 2**step)
    _git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    _git(folder, "clean", "--quiet", "-d", "-x", "--force", "--force")
    if (folder / ".gitmodules").exists():
        _git(folder, "submodule", "--quiet", "update", "--init", "--recursive", "--force")


def _write_config(folder: Path, cache: Path) -> None:
    """Point DVC at the cache that the folders share; written as text, as starting DVC for it takes a second."""
    (folder / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")


def _git(folder: Path, *arguments: str) -> None:
    ended = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise CheckoutError(f"git {arguments[0]}: {ended.stderr.strip()}")
