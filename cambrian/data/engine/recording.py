"""Every request and its reply, kept so that the same work can be done again without network and without key."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

INDEX_NAME = "index.jsonl"
BODIES_NAME = "bodies"

_RETRIED = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: an address, and for the language model what is sent to it."""

    url: str
    body: str | None = None
    """JSON with sorted keys; None for a plain GET."""

    @property
    def key(self) -> str:
        """Equal for equal questions."""
        return hashlib.sha256(f"{self.url}\n{self.body or ''}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    """Those that the engine reads: content-type, location, retry-after."""
    body: bytes

    @property
    def is_final(self) -> bool:
        """Whether asking again would be no use."""
        return self.status not in _RETRIED


class Recording:
    """A folder of exchanges: `index.jsonl`, a line each in the order they happened, and bodies named by their SHA-256.

    A line is written after its body, in one piece; what a killed process left of a last line is dropped. The key of the
    endpoint is never part of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._final: dict[str, dict[str, object]] = {}
        self._last: dict[str, dict[str, object]] = {}
        self._num_torn = 0
        index = folder / INDEX_NAME
        if index.exists():
            self._read(index)

    def find(self, request: Request, *, only_final: bool) -> Reply | None:
        """The last reply to this request, or the last final one; None where there is none.

        Raises:
            ArtifactError: its body is missing or is not what was recorded.
        """
        entry = self._final.get(request.key) or (None if only_final else self._last.get(request.key))
        if entry is None:
            return None
        path = self._folder / BODIES_NAME / str(entry["sha256"])
        try:
            body = path.read_bytes()
        except OSError as error:
            raise ArtifactError(f"{path} is missing: restore the recording ({error.strerror})") from error
        if hashlib.sha256(body).hexdigest() != entry["sha256"]:
            raise ArtifactError(f"{path} is not what was recorded: restore the recording")
        headers = entry["headers"]
        assert isinstance(headers, dict)
        return Reply(int(str(entry["status"])), headers, body)

    def add(self, request: Request, reply: Reply) -> None:
        """Write one exchange down, final or not."""
        digest = hashlib.sha256(reply.body).hexdigest()
        path = self._folder / BODIES_NAME / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            partial = path.with_name(f".{digest}.partial")
            partial.write_bytes(reply.body)
            os.replace(partial, path)
        entry: dict[str, object] = {
            "key": request.key,
            "url": request.url,
            "body": request.body,
            "status": reply.status,
            "headers": reply.headers,
            "sha256": digest,
        }
        self._drop_torn_line()
        with (self._folder / INDEX_NAME).open("ab") as file:
            file.write(json.dumps(entry, sort_keys=True, ensure_ascii=False).encode() + b"\n")
        self._keep(entry)

    def _read(self, index: Path) -> None:
        lines = index.read_bytes().split(b"\n")
        self._num_torn = len(lines.pop())
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                self._keep(entry)
            except (ValueError, KeyError, TypeError) as error:
                raise ArtifactError(
                    f"{index}, line {number} is no exchange ({error}): restore the recording"
                ) from error

    def _keep(self, entry: dict[str, object]) -> None:
        key = str(entry["key"])
        self._last[key] = entry
        if int(str(entry["status"])) not in _RETRIED:
            self._final[key] = entry

    def _drop_torn_line(self) -> None:
        if self._num_torn:
            index = self._folder / INDEX_NAME
            os.truncate(index, index.stat().st_size - self._num_torn)
            self._num_torn = 0
