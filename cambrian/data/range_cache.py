"""Pieces of remote files on a local disk: bounded, whole or not there, and never in the way when the disk is full."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST_BYTES = 16
_FULL = (errno.ENOSPC, errno.EDQUOT)
_log = logging.getLogger("cambrian")


class RangeCache:
    """Keeps what was read last, up to `max_bytes`; processes may share a folder, each with its own bound.

    A piece is a file that starts with a digest of its content, so a damaged one is read from its source again.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._total = 0
        self._keeps = max_bytes > 0
        if self._keeps:
            self._take_stock()

    @property
    def num_bytes(self) -> int:
        """What the pieces that this process knows of take on the disk."""
        return self._total

    def get(self, key: str) -> bytes | None:
        """A piece, or None where it is not there (or no longer what was written)."""
        if self._max_bytes == 0:
            return None
        name = _name(key)
        try:
            content = (self._folder / name).read_bytes()
        except OSError:  # gone, or another process has just removed it: either way the source has it
            self._forget(name)
            return None
        digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if _digest(data) != digest:
            _log.warning("cache: %s is damaged and is fetched again", self._folder / name)
            self._remove(name)
            return None
        self._note(name, len(content))
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep a piece and remove the oldest ones beyond the bound.

        A full disk, or one that cannot be written, ends the keeping for this process, with a warning: the piece is in
        memory, and training goes on.
        """
        size = len(data) + _DIGEST_BYTES
        if not self._keeps or size > self._max_bytes:
            return
        name = _name(key)
        self._make_room(size)
        partial = self._folder / f".{name}.{os.getpid()}.{threading.get_ident()}.partial"
        try:
            with partial.open("wb") as file:
                file.write(_digest(data) + data)
            os.replace(partial, self._folder / name)
        except OSError as error:
            partial.unlink(missing_ok=True)
            self._keeps = False
            reason = "the disk is full" if error.errno in _FULL else str(error)
            _log.warning(
                "cache: %s cannot be written (%s); no more pieces are kept. Nothing is lost: free "
                "space or lower cache_mib, and the next start keeps pieces again",
                self._folder,
                reason,
            )
            return
        self._note(name, size)

    def __getstate__(self) -> dict[str, object]:
        return {"folder": self._folder, "max_bytes": self._max_bytes}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _take_stock(self) -> None:
        """Find what earlier processes left, oldest first; half-written pieces of dead ones are removed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        entries = []
        for entry in os.scandir(self._folder):
            try:
                if entry.name.endswith(".partial"):
                    if not _is_alive(int(entry.name.split(".")[2])):
                        os.unlink(entry.path)
                else:
                    entries.append((entry.stat().st_mtime_ns, entry.name, entry.stat().st_size))
            except OSError:  # another process was quicker
                continue
        for _, name, size in sorted(entries):
            self._note(name, size)
        self._make_room(0)

    def _make_room(self, size: int) -> None:
        with self._lock:
            oldest = []
            while self._sizes and self._total + size > self._max_bytes:
                name, freed = self._sizes.popitem(last=False)
                self._total -= freed
                oldest.append(name)
        for name in oldest:
            (self._folder / name).unlink(missing_ok=True)

    def _note(self, name: str, size: int) -> None:
        with self._lock:
            self._total += size - self._sizes.pop(name, 0)
            self._sizes[name] = size

    def _forget(self, name: str) -> None:
        with self._lock:
            self._total -= self._sizes.pop(name, 0)

    def _remove(self, name: str) -> None:
        self._forget(name)
        (self._folder / name).unlink(missing_ok=True)


def _name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
