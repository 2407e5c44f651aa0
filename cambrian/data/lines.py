"""Lines of the release's JSONL as usable records, or the reason why a line is none."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from cambrian.data.line_checks import DecodedLine, DecodedTurn, check_lines, is_safe_name
from cambrian.data.records import parse_record
from cambrian.interfaces import IMAGE_PLACEHOLDER, Record, RecordError, Turn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from jaxtyping import Bool, UInt64

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

_BLOCK_BYTES, _FEW_BYTES = 2**20, 2**16
_SPEAKERS = ("human", "gpt")
_PREVIEW_BYTES = 200
_SKIPPED_BYTES = 2**20


@dataclass(slots=True)
class ParsedLines:
    """Some lines, of which the usable ones are records."""

    num_lines: int
    records: list[DecodedLine]
    numbers: list[int]
    """Each record's line among these, from 0."""
    word_keys: UInt64[np.ndarray, " records"]
    """As `cambrian.data.line_checks` gives them."""
    faults: list[tuple[int, bytes, RecordError]]
    """Number, line and what is wrong with it."""


class LineParser:
    """Parses lines into records of known sources.

    Lines are decoded into typed fields and looked over many at a time. A line that is unusual in any way is parsed
    again by `cambrian.data.records`, which says what is wrong with it, or that nothing is.
    """

    def __init__(self, known_sources: Collection[str], max_line_bytes: int) -> None:
        self._known_sources = frozenset(known_sources)
        self._max_line_bytes = max_line_bytes
        self._decode = msgspec.json.Decoder(DecodedLine).decode

    def parse(self, line: bytes) -> tuple[str, str, str | None, list[str]]:
        """The id, source, image and turns' texts of one line; a person and the model speak in turn.

        Raises:
            RecordError: it is no usable record.
        """
        found = self.parse_many([line])
        if found.faults:
            raise found.faults[0][2]
        record = found.records[0]
        return record.id, record.source, record.image, [turn.value for turn in record.conversations]

    def parse_many(self, lines: Sequence[bytes]) -> ParsedLines:
        """The records of some lines, and the faults of the others; a person and the model speak in turn."""
        records: list[DecodedLine] = []
        numbers: list[int] = []
        faults: list[tuple[int, bytes, RecordError]] = []
        decode = self._decode
        for number, line in enumerate(lines):
            try:
                records.append(decode(line))
            except (msgspec.DecodeError, RecursionError, UnicodeError):
                try:
                    records.append(self._parse_slowly(line))
                except RecordError as error:
                    faults.append((number, line, error))
                    continue
            numbers.append(number)
        is_plain, word_keys = check_lines(records, self._known_sources)
        is_plain &= self._are_whole(lines)[numbers]
        is_usable = np.ones(len(records), bool)
        for row in np.flatnonzero(~is_plain).tolist():
            number = numbers[row]
            try:
                records[row] = self._parse_slowly(lines[number])
            except RecordError as error:
                faults.append((number, lines[number], error))
                is_usable[row] = False
        if not is_usable.all():
            records = list(compress(records, is_usable.tolist()))
            numbers = list(compress(numbers, is_usable.tolist()))
        return ParsedLines(len(lines), records, numbers, word_keys[is_usable], faults)

    def _are_whole(self, lines: Sequence[bytes]) -> Bool[np.ndarray, " lines"]:
        """Which lines are UTF-8 and not too long."""
        are_whole = np.fromiter(map(bytes.isascii, lines), bool, len(lines))
        for number in np.flatnonzero(~are_whole).tolist():
            are_whole[number] = _is_utf8(lines[number])
        return are_whole & (np.fromiter(map(len, lines), np.int64, len(lines)) <= self._max_line_bytes)

    def _parse_slowly(self, line: bytes) -> DecodedLine:
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
        turns = [DecodedTurn(turn.speaker, turn.text) for turn in record.turns]
        return DecodedLine(record.id, record.source, turns, record.image)


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

    A line of more than `max_bytes` is cut after a few bytes more, and at most a block of its rest is in memory.
    """
    for lines in iter_blocks(path, start, end, max_bytes, block_bytes=_FEW_BYTES):
        yield from lines


def iter_blocks(
    path: Path, start: int, end: int, max_bytes: int, *, block_bytes: int = _BLOCK_BYTES
) -> Iterator[list[bytes]]:
    """As `iter_lines`, many lines at a time: those that begin in about so many bytes."""
    longest = max_bytes + 3  # one byte too many, and the line's end has up to two
    with path.open("rb", buffering=0) as raw, io.BufferedReader(raw, _FEW_BYTES) as file:
        position = start
        if start:
            file.seek(start - 1)
            position += _skip_line(file) - 1
        while position < end:
            block = file.read(min(block_bytes, end - position))
            if not block:
                return
            if not block.endswith(b"\n"):
                block += file.readline(longest)
            position += len(block)
            lines = block.split(b"\n")
            if block.endswith(b"\n"):
                lines.pop()
            else:
                position += _skip_line(file)
            if b"\r" in block or max(map(len, lines)) > longest:
                lines = [line[:longest].rstrip(b"\r") for line in lines]
            yield lines


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
