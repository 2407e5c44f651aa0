"""Lines of the release's JSONL as usable records, or the reason why a line is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

import msgspec

from cambrian.data.records import parse_record
from cambrian.interfaces import IMAGE_PLACEHOLDER, Record, RecordError, Turn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path
    from typing import BinaryIO

UNREADABLE_SOURCE = "(unreadable)"
"""Under this name the ledger counts lines whose source cannot be read either."""

LINE_REASONS = frozenset(
    {
        "malformed-json", "wrong-encoding", "line-too-long", "wrong-type", "missing-field", "empty-field",
        "empty-conversation", "unknown-speaker", "image-placeholder", "unsafe-image-name", "starts-with-answer",
        "speakers-do-not-alternate", "no-answer", "unknown-source",
    }
)  # fmt: skip
"""Every reason for which a line is no usable record."""

_SPEAKERS = ("human", "gpt")
_PREVIEW_BYTES = 200
_SKIPPED_BYTES = 2**20


class _Turn(msgspec.Struct, gc=False):
    """One turn as it stands in a line."""

    speaker: Literal["human", "gpt"] = msgspec.field(name="from")
    value: str


class _Fields(msgspec.Struct, gc=False):
    """What is read of a line."""

    id: str
    source: str
    conversations: list[_Turn]
    image: str | None = None


class LineParser:
    """Parses lines into records of known sources.

    Most lines are decoded into typed fields and looked over once. A line that is unusual in any way is parsed again by
    `cambrian.data.records`, which says what is wrong with it, or that nothing is.
    """

    def __init__(self, known_sources: Collection[str], max_line_bytes: int) -> None:
        self._known_sources = frozenset(known_sources)
        self._max_line_bytes = max_line_bytes
        self._decode = msgspec.json.Decoder(_Fields).decode
        self._patterns = {number: list(_SPEAKERS) * (number // 2) for number in range(2, 64, 2)}

    def parse(self, line: bytes) -> tuple[str, str, str | None, list[str]]:
        """The id, source, image and turns' texts of one line; a person and the model speak in turn.

        Raises:
            RecordError: it is no usable record.
        """
        try:
            fields = self._decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            return self._parse_slowly(line)
        texts = [turn.value for turn in fields.conversations]
        if self._is_plain(fields, texts, line):
            return fields.id, fields.source, fields.image, texts
        return self._parse_slowly(line)

    def _is_plain(self, fields: _Fields, texts: list[str], line: bytes) -> bool:
        """Whether nothing about a line asks for a second look."""
        image = fields.image
        if not texts or [turn.speaker for turn in fields.conversations] != self._patterns.get(len(texts)):
            return False
        first = texts[0]
        if image is None:
            has_words = bool(first.strip())
        else:
            has_words = bool(first.replace(IMAGE_PLACEHOLDER, "").strip())
            if not is_safe_name(image):
                return False
        return (
            has_words
            and fields.source in self._known_sources
            and bool(fields.id.strip())
            and "\0".join(texts).count(IMAGE_PLACEHOLDER) == (image is not None)
            and all(map(str.strip, texts))
            and (line.isascii() or _is_utf8(line))
            and len(line) <= self._max_line_bytes
        )

    def _parse_slowly(self, line: bytes) -> tuple[str, str, str | None, list[str]]:
        if len(line) > self._max_line_bytes:
            raise RecordError(
                "line-too-long",
                f"more than {self._max_line_bytes} bytes (cleaning.max_line_bytes): {line[:_PREVIEW_BYTES]!r}...",
            )
        record = parse_usable(line)
        if record.source not in self._known_sources:
            raise RecordError(
                "unknown-source", f"source {record.source!r} is not one of sources.json's {len(self._known_sources)}"
            )
        return record.id, record.source, record.image, [turn.text for turn in record.turns]


def parse_usable(line: bytes) -> Record:
    """The record of one line.

    Raises:
        RecordError: it is not one, or its conversation is not one of questions and answers in turn.
    """
    try:
        record = parse_record(line.decode("utf-8"))
        "".join([record.id, record.source, record.image or "", *(turn.text for turn in record.turns)]).encode()
    except UnicodeError as error:
        raise RecordError("wrong-encoding", f"not UTF-8: {error}") from error
    except RecordError:
        raise
    except ValueError as error:  # a number too long for Python to read
        raise RecordError("malformed-json", str(error)) from error
    _check_speakers(record.id, record.turns)
    if not record.turns[0].text.replace(IMAGE_PLACEHOLDER, "").strip():
        raise RecordError("empty-field", f"record {record.id!r} starts with a question without words")
    if record.image is not None and not is_safe_name(record.image):
        raise RecordError(
            "unsafe-image-name", f"record {record.id!r} has image {record.image!r}, expected a path within the pool"
        )
    return record


def is_safe_name(name: str) -> bool:
    """Whether an image's name stays within a folder, wherever the folder is."""
    return (
        bool(name.strip()) and name[0] != "/" and "\\" not in name and "\0" not in name and ".." not in name.split("/")
    )


def guess_identity(line: bytes) -> tuple[str, str]:
    """The id and source of a line that is no record, as far as they can be read; the id may be empty."""
    try:
        value = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        value = None
    fields = value if isinstance(value, dict) else {}
    name, source = fields.get("id"), fields.get("source")
    return (
        name if isinstance(name, str) else "",
        source if isinstance(source, str) and source else UNREADABLE_SOURCE,
    )


def iter_lines(path: Path, start: int, end: int, max_bytes: int) -> Iterator[bytes]:
    """The lines that begin at or after byte `start` and before `end`, without their ends.

    A line of more than `max_bytes` is cut after one byte more: its rest is never in memory.
    """
    with path.open("rb", buffering=2**20) as file:
        position = start
        if start:
            file.seek(start - 1)
            position += _skip_line(file) - 1
        while position < end:
            line = file.readline(max_bytes + 3)  # the line's end has up to two bytes
            if not line:
                return
            position += len(line)
            content = line.rstrip(b"\r\n")
            if not line.endswith(b"\n") and len(line) == max_bytes + 3:
                position += _skip_line(file)
            yield content


def _skip_line(file: BinaryIO) -> int:
    """Read to the end of a line, piece by piece; how many bytes that were."""
    num_bytes = 0
    while piece := file.readline(_SKIPPED_BYTES):
        num_bytes += len(piece)
        if piece.endswith(b"\n"):
            break
    return num_bytes


def _check_speakers(name: str, turns: tuple[Turn, ...]) -> None:
    if turns[0].speaker != "human":
        raise RecordError("starts-with-answer", f"record {name!r} starts with {turns[0].speaker}'s turn")
    if any(turn.speaker != _SPEAKERS[number % 2] for number, turn in enumerate(turns)):
        speakers = ", ".join(turn.speaker for turn in turns)
        raise RecordError("speakers-do-not-alternate", f"record {name!r} has turns of {speakers}")
    if len(turns) % 2:
        raise RecordError("no-answer", f"record {name!r} ends with a question ({len(turns)} turns)")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
