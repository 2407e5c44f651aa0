"""A DVC repository that several processes use at the same time, and of which any may be killed."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own
from dvc.dependency import param
from dvc.fs import LocalFileSystem
from dvc.lock import Lock, LockError
from dvc.repo import Repo
from dvc.rwlock import RWLOCK_FILE, _edit_rwlock
from dvc.utils.serialize import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LOCK_POLL_S = 0.02
_NUM_REMEMBERED_FILES = 64
_parse_params = param.load_path


def open_repository() -> Any:
    """Open the DVC project around the current folder.

    Raises:
        DvcException: there is none.
    """
    param.load_path = _load_params
    repository = Repo(_wait_for_lock=True)
    repository.fs = _ReplacingFileSystem()
    if type(repository.lock) is Lock:  # DVC has another kind for file systems without flock
        repository.lock = _EagerLock(*repository.lock.files, wait=True)
    return repository


def _load_params(path: str, fs: Any, **arguments: Any) -> Any:
    """Read a file of params as DVC does, but parse each version of it once: DVC does so again for every stage.

    A hundred stages that track values of one long file spend ten seconds on it.
    """
    if arguments or not isinstance(fs, LocalFileSystem):
        return _parse_params(path, fs, **arguments)
    version = os.stat(path)
    return _parse_version(path, version.st_mtime_ns, version.st_size, version.st_ino)


@lru_cache(maxsize=_NUM_REMEMBERED_FILES)
def _parse_version(path: str, *_version: int) -> Any:
    return _parse_params(path, LocalFileSystem())


def read_lock(path: Path) -> Mapping[str, Any]:
    """Read the stages of a `dvc.lock`, parsing each version of it once; no stages before the first run.

    It has every instance of a stage: a hundred that ask for their own entry would take minutes to parse it all.
    """
    if not path.exists():
        return {}
    version = path.stat()
    return _parse_lock(path.absolute(), version.st_mtime_ns, version.st_size, version.st_ino)


@lru_cache(maxsize=_NUM_REMEMBERED_FILES)
def _parse_lock(path: Path, *_version: int) -> Mapping[str, Any]:
    stages: Mapping[str, Any] = load_yaml(path).get("stages", {})
    return stages


def clear_leftovers(repository: Any) -> None:
    """Take away what a run that was killed left in the workspace; only for who holds the lease on it.

    That is files that were to replace a `dvc.lock` and did not, and dead processes in DVC's list of locks. DVC passes
    over dead processes, and takes away those that are in its way; others stay for ever, and block whoever comes once
    the system gives their number to another process.

    Raises:
        DvcException: the list of locks is torn (a plain `dvc repro` that was killed does that); with its path.
    """
    locks = {Path(stage.dvcfile._lockfile.path) for stage in repository.index.stages if stage.cmd}
    rwlock = Path(repository.tmp_dir) / RWLOCK_FILE
    for path in [*locks, rwlock]:
        for piece in path.parent.glob(name_pieces(path)):
            piece.unlink()
    with suppress(FileNotFoundError, ValueError, AttributeError):  # what DVC cannot read it names itself
        if not _list_dead(json.loads(rwlock.read_text(encoding="utf-8"))):
            return
    if not rwlock.exists():
        return
    with _edit_rwlock(repository.tmp_dir, repository.fs, repository.config["core"].get("hardlink_lock", False)) as lock:
        dead = _list_dead(lock)
        for path, holder in list(lock["write"].items()):
            if holder["pid"] in dead:
                del lock["write"][path]
        for path, holders in list(lock["read"].items()):
            lock["read"][path] = [holder for holder in holders if holder["pid"] not in dead]
            if not lock["read"][path]:
                del lock["read"][path]


def _list_dead(lock: Any) -> set[int]:
    """List the processes of DVC's list of locks that are not there any more."""
    holders = [*lock.get("write", {}).values(), *(holder for held in lock.get("read", {}).values() for holder in held)]
    return {pid for pid in {holder["pid"] for holder in holders} if not psutil.pid_exists(pid)}


class _ReplacingFileSystem(LocalFileSystem):  # type: ignore[misc]  # dvc has no types
    """Replaces `dvc.lock` and the list of DVC's locks, which DVC writes in place: kill -9 would leave half of them.

    Half a list of locks makes every DVC command fail until somebody deletes it; half a `dvc.lock` may even look whole.
    """

    def open(self, path: Any, mode: str = "r", **arguments: Any) -> Any:
        if "w" in mode and Path(path).name in ("dvc.lock", "rwlock"):
            return _replace(Path(path), encoding=arguments.get("encoding"))
        return super().open(path, mode, **arguments)


class _EagerLock(Lock):  # type: ignore[misc]  # dvc has no types
    """DVC's lock of the repository, looked at every few milliseconds: DVC does it twice a second.

    Stages hold it for a moment when they start and when they end. Eight of them would spend seconds waiting.
    """

    def lock(self) -> None:
        """Take the lock; waits for it."""
        while True:
            try:
                self._do_lock()
            except LockError:
                time.sleep(_LOCK_POLL_S)
            else:
                return


def name_pieces(path: Path) -> str:
    """Give the pattern of the files, beside it, that are to replace this one; `kill -9` may leave some."""
    return f".{path.name}.*"


@contextmanager
def _replace(path: Path, *, encoding: str | None) -> Iterator[IO[str]]:
    descriptor, name = tempfile.mkstemp(prefix=name_pieces(path).removesuffix("*"), dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding=encoding) as file:
            yield file
        os.chmod(name, path.stat().st_mode if path.exists() else 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
