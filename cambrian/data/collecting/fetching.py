"""Files of a place on this machine: whole, checked, fetched again from where they broke off."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cambrian.artifacts import read_json, write_json
from cambrian.data.collecting.readers import NoSuchRangeError, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cambrian.data.collecting.config import Limits
    from cambrian.data.collecting.readers import RemoteFile

T = TypeVar("T")

_log = logging.getLogger("cambrian")


class ChecksumError(Exception):
    """A file that is whole and not the one that was pinned."""


class TooLargeError(Exception):
    """A file that does not fit into what may wait on the disk."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """A file that is here, whole."""

    path: Path
    num_bytes: int
    sha256: str
    is_ours: bool
    """Whether it may be removed when it has been read."""


def fetch_file(file: RemoteFile, folder: Path, limits: Limits, *, sha256: str | None) -> FetchedFile:
    """Bring one file into the folder, or take it from there if it was brought before.

    What has arrived of a file stays beside it as `NAME.part` and is gone on from, as long as the server calls the file
    by the same version.

    Raises:
        GoneError: it is not there.
        UnansweredError: the server did not deliver it within `limits.num_attempts`.
        ChecksumError: it has another SHA-256 than `sha256`, twice where the first copy was put together.
        TooLargeError: it is larger than what may wait on the disk.
    """
    if file.path is not None:
        found = _digest(file.path)
        _check(file, found, sha256)
        return FetchedFile(file.path, file.path.stat().st_size, found, is_ours=False)
    target = folder / hashlib.sha256(file.name.encode()).hexdigest()[:16]
    facts_path = target.with_suffix(".json")
    if target.exists() and facts_path.exists():
        found = read_json(facts_path)["sha256"]
        if sha256 in (None, found):
            return FetchedFile(target, target.stat().st_size, found, is_ours=True)
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    was_continued = part.exists()
    _fetch_part(file, part, limits)
    found = _digest(part)
    if was_continued and sha256 not in (None, found):
        part.unlink()
        _fetch_part(file, part, limits)
        found = _digest(part)
    try:
        _check(file, found, sha256)
    except ChecksumError:
        part.unlink()
        raise
    os.replace(part, target)
    write_json(facts_path, {"name": file.name, "where": file.where, "sha256": found})
    return FetchedFile(target, target.stat().st_size, found, is_ours=True)


def _fetch_part(file: RemoteFile, part: Path, limits: Limits) -> None:
    """Go on until the whole file is there."""
    ask_patiently(lambda: _read_on(file, part, limits), limits)


def ask_patiently(ask: Callable[[], T], limits: Limits) -> T:
    """Ask again while there is no answer, after what the server says or twice as long each time.

    Raises:
        UnansweredError: there was none within `limits.num_attempts`.
    """
    wait_s = limits.retry_wait_s
    for attempt in itertools.count(1):
        try:
            return ask()
        except UnansweredError as error:
            if attempt == limits.num_attempts:
                raise UnansweredError(f"{error}, after {attempt} attempts") from error
            pause_s = max(wait_s, error.retry_after_s or 0.0)
            _log.warning("%s; trying again in %.1f s (%d of %d)", error, pause_s, attempt, limits.num_attempts)
            time.sleep(pause_s)
            wait_s *= 2
    raise AssertionError("the attempts have an end")


def _read_on(file: RemoteFile, part: Path, limits: Limits) -> None:
    assert file.open is not None
    version_path = part.with_suffix(".version")
    have = part.stat().st_size if part.exists() else 0
    if file.size is not None and have == file.size:
        return
    if file.size is not None and have > file.size:
        part.unlink()
        have = 0
    known = version_path.read_text(encoding="utf-8") if version_path.exists() else ""
    with _begin_anew(part), file.open(have) as opened:
        if opened.start and opened.version != known:
            part.unlink()
            raise UnansweredError(f"{file.where} changed while it was fetched; beginning anew")
        version_path.write_text(opened.version, encoding="utf-8")
        num_bytes = opened.start
        with part.open("ab" if opened.start else "wb") as out:
            for chunk in opened.chunks:
                num_bytes += len(chunk)
                if num_bytes > limits.max_waiting_bytes:
                    raise TooLargeError(
                        f"{file.where} has more than limits.max_waiting_bytes ({limits.max_waiting_bytes}) bytes"
                    )
                out.write(chunk)
    if file.size is not None and num_bytes != file.size:
        raise UnansweredError(f"{file.where} broke off at {num_bytes} of {file.size} bytes")
    version_path.unlink()


@contextmanager
def _begin_anew(part: Path) -> Iterator[None]:
    """Throw away what has arrived where the server has less than that."""
    try:
        yield
    except NoSuchRangeError:
        part.unlink(missing_ok=True)
        raise


def _check(file: RemoteFile, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise ChecksumError(f"{file.where} has SHA-256 {found}, pinned is {expected}: it is not the same file any more")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Budget:
    """Bytes that may wait on the disk; asks are served in the order of their numbers, so none waits for ever."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used = 0
        self._changed = threading.Condition()
        self._is_closed = False

    def take(self, num_bytes: int) -> None:
        """Wait until so many bytes are free.

        Raises:
            TooLargeError: they never will be, or nobody wants them any more.
        """
        if num_bytes > self._max_bytes:
            raise TooLargeError(f"{num_bytes} bytes, limits.max_waiting_bytes allows {self._max_bytes}")
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._used + num_bytes <= self._max_bytes)
            if self._is_closed:
                raise TooLargeError("the collection has ended")
            self._used += num_bytes

    def give_back(self, num_bytes: int) -> None:
        """Free what was taken."""
        with self._changed:
            self._used -= num_bytes
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Files that are converted together, and where they may lie until then."""

    files: Sequence[RemoteFile]
    checksums: Sequence[str | None]
    folder: Path

    @property
    def num_bytes(self) -> int:
        """What they take on the disk, as far as the place says."""
        return sum(file.size or 0 for file in self.files if file.path is None)


@contextmanager
def fetch_ahead(wanted: Sequence[Wanted], limits: Limits) -> Iterator[Iterator[Future[list[FetchedFile]]]]:
    """Yield what is fetched in the order of `wanted`, while `num_workers` threads fetch what comes next.

    The files of a unit are removed, and their bytes free, when the next unit is asked for. A unit whose fetching failed
    is a future that raises.
    """
    budget = Budget(limits.max_waiting_bytes)
    files = ThreadPoolExecutor(limits.num_workers, thread_name_prefix="fetch")
    futures: list[Future[list[FetchedFile]]] = [Future() for _ in wanted]

    has_bytes = [False] * len(wanted)

    def feed() -> None:
        """Start units in their order, each when its bytes are free: the one that is waited for is never last."""
        for number, (unit, future) in enumerate(zip(wanted, futures, strict=True)):
            try:
                budget.take(unit.num_bytes)
            except TooLargeError as error:
                future.set_exception(error)
                continue
            has_bytes[number] = True
            parts = [
                files.submit(fetch_file, file, unit.folder, limits, sha256=sha256)
                for file, sha256 in zip(unit.files, unit.checksums, strict=True)
            ]
            files.submit(_join, parts, future)

    def deliver() -> Iterator[Future[list[FetchedFile]]]:
        for number, (unit, future) in enumerate(zip(wanted, futures, strict=True)):
            future.exception()
            yield future
            # Only where the unit was converted: what a failing stage has fetched is there for the next.
            shutil.rmtree(unit.folder, ignore_errors=True)
            if has_bytes[number]:
                budget.give_back(unit.num_bytes)

    feeder = threading.Thread(target=feed, name="feed", daemon=True)
    feeder.start()
    try:
        yield deliver()
    finally:
        budget.close()
        files.shutdown(wait=True, cancel_futures=True)
        feeder.join()


def _join(parts: Sequence[Future[FetchedFile]], whole: Future[list[FetchedFile]]) -> None:
    """Pass the results on. The parts stand before this in the queue, so that they never wait for its thread."""
    try:
        whole.set_result([part.result() for part in parts])
    except Exception as error:
        whole.set_exception(error)
