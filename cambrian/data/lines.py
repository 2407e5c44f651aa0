"""Lines of the release's JSONL as usable records, or the reason why a line is none."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cambrian.data.line_checks import check_lines, is_safe_name, number_sources
from cambrian.data.records import parse_record
from cambrian.interfaces import IMAGE_PLACEHOLDER, Record, RecordError, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import Any, BinaryIO

    import pyarrow as pa
    from jaxtyping import Bool, Int64, UInt64

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

_BLOCK_BYTES, _FEW_BYTES = 2**22, 2**16
_SPEAKERS = ("human", "gpt")
_PREVIEW_BYTES = 200
_SKIPPED_BYTES = 2**20
_END_BYTES = 3
"""Of a line that is too long: one byte too many, and the line's end has up to two."""
_NEWLINE, _OPENING, _CLOSING = b"\n{}"
_ROW = re.compile(r" in row (\d+)$")


@dataclass(slots=True)
class ParsedLines:
    """Some lines, of which the usable ones are records."""

    num_lines: int
    rows: pa.Table
    """With numbered sources; some of them may be unusable."""
    numbers: Int64[np.ndarray, " rows"]
    """Each row's line among these, from 0."""
    is_usable: Bool[np.ndarray, " rows"]
    word_keys: UInt64[np.ndarray, " rows"]
    """As `cambrian.data.line_checks` gives them."""
    faults: list[tuple[int, bytes, RecordError]]
    """Number, line and what is wrong with it."""


class LineParser:
    """Parses lines into records of known sources.

    Lines are decoded into columns and looked over many at a time. A line that is unusual in any way is parsed
    again by `cambrian.data.records`, which says what is wrong with it, or that nothing is.
    """

    def __init__(self, known_sources: Sequence[str], max_line_bytes: int) -> None:
        import pyarrow as pa

        self._known_sources = pa.array(known_sources, pa.string())
        self._names = frozenset(known_sources)
        self._max_line_bytes = max_line_bytes

    def parse_many(self, block: bytes) -> ParsedLines:
        """The records of some whole lines, and the faults of the others; a person and the model speak in turn."""
        import pyarrow as pa

        text = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero(text == _NEWLINE)
        starts = np.concatenate([[0], ends + 1])[:-1]
        may_be_plain = (ends - starts > 1) & (ends - starts <= self._max_line_bytes)
        may_be_plain &= (text[starts] == _OPENING) & (text[ends - 1] == _CLOSING)
        if not _is_utf8(block):
            for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
                may_be_plain[number] &= _is_utf8(block[start:end])
        decoded = list(_decode(block, starts, ends, np.flatnonzero(may_be_plain)))
        rows = number_sources(
            pa.concat_tables([lines_schema().empty_table(), *(table for table, _ in decoded)]), self._known_sources
        )
        numbers = np.concatenate([np.zeros(0, np.int64), *(found for _, found in decoded)])
        is_plain, word_keys = check_lines(rows)
        parsed = ParsedLines(len(ends), rows, numbers, is_plain, word_keys, [])
        is_settled = np.zeros(len(ends), bool)
        is_settled[numbers[is_plain]] = True
        longest = self._max_line_bytes + _END_BYTES
        doubtful = np.flatnonzero(~is_settled).tolist()
        self._add_doubtful(parsed, [(number, block[starts[number] : ends[number]][:longest]) for number in doubtful])
        return parsed

    def _add_doubtful(self, parsed: ParsedLines, lines: Sequence[tuple[int, bytes]]) -> None:
        """Look again, one by one, at lines that are not usable beyond doubt."""
        import pyarrow as pa

        found = []
        for number, line in lines:
            try:
                found.append((number, self._parse_slowly(line)))
            except RecordError as error:
                # Without what it was raised in, which would keep these lines' tables in memory as long as itself.
                parsed.faults.append((number, line, RecordError(error.reason, str(error))))
        if found:
            values = [_describe(record) for _, record in found]
            rows = number_sources(pa.Table.from_pylist(values, lines_schema()), self._known_sources)
            _, word_keys = check_lines(rows)
            parsed.rows = pa.concat_tables([parsed.rows, rows])
            parsed.numbers = np.concatenate([parsed.numbers, [number for number, _ in found]])
            parsed.is_usable = np.concatenate([parsed.is_usable, np.ones(len(found), bool)])
            parsed.word_keys = np.concatenate([parsed.word_keys, word_keys])

    def _parse_slowly(self, line: bytes) -> Record:
        if len(line) > self._max_line_bytes:
            raise RecordError(
                "line-too-long",
                f"more than {self._max_line_bytes} bytes (cleaning.max_line_bytes): {line[:_PREVIEW_BYTES]!r}...",
            )
        record = parse_usable(line)
        if record.source not in self._names:
            raise RecordError(
                "unknown-source", f"source {record.source!r} is not one of sources.json's {len(self._names)}"
            )
        return record


def lines_schema() -> pa.Schema:
    """What is read of a line."""
    import pyarrow as pa

    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    texts = [(name, pa.string()) for name in ("id", "source", "image")]
    return pa.schema([*texts, ("conversations", pa.list_(turn))])


def _decode(
    block: bytes,
    starts: Int64[np.ndarray, " lines"],
    ends: Int64[np.ndarray, " lines"],
    numbers: Int64[np.ndarray, " chosen"],
) -> Iterator[tuple[pa.Table, Int64[np.ndarray, " decoded"]]]:
    """The lines of these numbers as tables, with their numbers; without those that are not what a line should be.

    All at once, or where that fails in pieces: what becomes of a line does not depend on the lines beside it.
    """
    if not len(numbers):
        return
    decoded = _decode_all(_join_lines(block, starts, ends, numbers), len(numbers))
    if not isinstance(decoded, int):
        yield decoded, numbers
    elif len(numbers) > 1:
        for piece in np.split(numbers, [decoded, decoded + 1] if decoded < len(numbers) else [len(numbers) // 2]):
            yield from _decode(block, starts, ends, piece)


def _join_lines(
    block: bytes,
    starts: Int64[np.ndarray, " lines"],
    ends: Int64[np.ndarray, " lines"],
    numbers: Int64[np.ndarray, " chosen"],
) -> bytes:
    if len(numbers) == len(starts):
        return block
    view = memoryview(block)
    breaks = np.flatnonzero(np.diff(numbers) > 1)
    first, last = np.concatenate([[0], breaks + 1]), np.concatenate([breaks, [len(numbers) - 1]])
    ranges = zip(starts[numbers[first]].tolist(), ends[numbers[last]].tolist(), strict=True)
    return b"".join([view[start : end + 1] for start, end in ranges])


def _decode_all(lines: bytes, num_lines: int) -> pa.Table | int:
    """The lines as one table; where one of them is no object, has a field twice, or one of another type, its number.

    Every line begins and ends with a curly bracket, so none is a part of an object; one that is two shows in
    the number of rows. The number is Arrow's word, and `num_lines` where it has none.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    try:
        table = arrow_json.read_json(
            pa.BufferReader(lines),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(lines) + 1),
            parse_options=arrow_json.ParseOptions(explicit_schema=lines_schema(), unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid as error:
        row = _ROW.search(str(error))
        return int(row[1]) if row else num_lines
    return table if table.num_rows == num_lines else num_lines


def _describe(record: Record) -> dict[str, Any]:
    turns = [{"from": turn.speaker, "value": turn.text} for turn in record.turns]
    return {"id": record.id, "source": record.source, "image": record.image, "conversations": turns}


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
    for block in iter_blocks(path, start, end, max_bytes, block_bytes=_FEW_BYTES):
        for line in block.split(b"\n")[:-1]:
            yield line[: max_bytes + _END_BYTES]


def iter_blocks(
    path: Path, start: int, end: int, max_bytes: int, *, block_bytes: int = _BLOCK_BYTES
) -> Iterator[bytes]:
    """As `iter_lines`, many lines at a time: those that begin in about so many bytes, each with a newline at its end.

    Only the last line of a block is cut.
    """
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
                block += file.readline(max_bytes + _END_BYTES)
            position += len(block)
            if not block.endswith(b"\n"):
                position += _skip_line(file)
                block += b"\n"
            if b"\r" in block:
                block = b"\n".join([line.rstrip(b"\r") for line in block.split(b"\n")])
            yield block


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


def _is_utf8(text: bytes) -> bool:
    import pyarrow as pa

    offsets = np.array([0, len(text)], np.int32)
    whole = pa.StringArray.from_buffers(1, pa.py_buffer(offsets), pa.py_buffer(text))
    try:
        whole.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
