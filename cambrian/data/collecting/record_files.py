"""Records of files as others write them: JSON lines, one JSON list or Parquet; each row a record or a reason."""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.data.collecting.names import clean_name
from cambrian.data.records import make_record
from cambrian.interfaces import IMAGE_PLACEHOLDER, ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set
    from pathlib import Path
    from typing import BinaryIO

    from cambrian.data.collecting.config import Columns, Origin
    from cambrian.interfaces import Record

UNREADABLE_SOURCE = "(unreadable)"
"""Under this name lines are counted whose source cannot be read either."""

_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 256
_BEFORE, _BETWEEN = re.compile(r"[ \t\r\n\[]*"), re.compile(r"[ \t\r\n,]*")
"""What stands before the first object of a list, and before each further one."""
_NO_IMAGE = ("", "none", "nan")
"""What stands in `image` where there is none. Source: release, its data set's reader."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file of records."""

    number: int
    """Counted from 1."""
    value: dict[str, Any] | None
    """The object; None where there is a fault."""
    fault: RecordError | None
    image: bytes | None = None
    """The encoded picture where it stands in the row itself."""


def iter_rows(path: Path, name: str, *, columns: Columns | None, max_line_bytes: int) -> Iterator[Row]:
    """Yield every row of a file, whatever it holds; no more than `max_line_bytes` of a row are held.

    A row's fault is `malformed-json`, `wrong-type`, `wrong-encoding`, `line-too-long`, or, for the last one,
    `truncated-file`.

    Raises:
        ArtifactError: the name does not say how the file is written, or a column is missing.
    """
    plain = name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        yield from _iter_parquet(path, name, columns)
        return
    with gzip.open(path) if name.endswith(".gz") else path.open("rb") as file:
        if plain.endswith(".jsonl"):
            yield from _iter_lines(file, max_line_bytes)
        elif plain.endswith(".json"):
            yield from _iter_list(file, max_line_bytes)
        else:
            raise ArtifactError(f"{name}: records are .jsonl, .json or .parquet; correct the origin's `records`")


def read_record(row: Row, *, record_id: str, origin: Origin, labels: Mapping[str, str], known: Set[str]) -> Record:
    """The record of a row, under an id that says where it stood, and under the catalogue's name for its source.

    Raises:
        RecordError: the row's own fault, `unknown-source`, `unsafe-path`, or what `make_record` finds.
    """
    if row.fault is not None or row.value is None:
        raise row.fault or RecordError("wrong-type", "the row is empty")
    source = origin.source or row.value.get("source")
    source = labels.get(source, source) if isinstance(source, str) else source
    image = row.value.get("image")
    is_absent = image is None or (isinstance(image, float) and math.isnan(image))
    if is_absent or (isinstance(image, str) and image.strip().lower() in _NO_IMAGE):
        image = None
    image = clean_name(image) if isinstance(image, str) else image
    record = make_record({**row.value, "id": record_id, "source": source, "image": image})
    if record.source not in known:
        raise RecordError("unknown-source", f"source {record.source!r} is not in the catalogue: add it to `labels`")
    try:
        "".join([record.source, record.image or "", *(turn.text for turn in record.turns)]).encode()
    except UnicodeEncodeError as error:
        raise RecordError("wrong-encoding", f"half a character: {error}") from error
    return record


def guess_source(row: Row, origin: Origin) -> str:
    """The source of a row that is no record, as far as it can be read."""
    found = origin.source or (row.value or {}).get("source")
    if not isinstance(found, str) or not found:
        return UNREADABLE_SOURCE
    return found.encode(errors="backslashreplace").decode()


def _iter_lines(file: BinaryIO | gzip.GzipFile, max_line_bytes: int) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(max_line_bytes + 1)
            num_bytes = len(line)
            is_long = num_bytes > max_line_bytes and not line.endswith(b"\n")
            while is_long and (rest := file.readline(_CHUNK_BYTES)):
                num_bytes += len(rest)
                if rest.endswith(b"\n"):
                    break
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Row(number, None, RecordError("truncated-file", f"cannot be read on: {error}"))
            return
        if not line:
            return
        if is_long:
            message = f"the line has {num_bytes} bytes, limits.max_line_bytes allows {max_line_bytes}"
            yield Row(number, None, RecordError("line-too-long", message))
        elif line.strip():
            yield _parse_line(number, line)


def _parse_line(number: int, line: bytes) -> Row:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Row(number, None, RecordError("wrong-encoding", f"not UTF-8: {error}"))
    except (ValueError, RecursionError) as error:
        return Row(number, None, RecordError("malformed-json", f"{line[:60]!r} is not JSON: {error}"))
    return _check_type(number, value)


def _check_type(number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(number, None, RecordError("wrong-type", f"a {type(value).__name__}, expected an object"))
    return Row(number, value, None)


def _iter_list(file: BinaryIO | gzip.GzipFile, max_bytes: int) -> Iterator[Row]:
    """The objects of one JSON list, a chunk of the file at a time; after a fault there is no way back into it."""
    text = io.TextIOWrapper(file, encoding="utf-8")
    decoder, buffer, place, number = json.JSONDecoder(), "", 0, 0
    while True:
        between = (_BETWEEN if number else _BEFORE).match(buffer, place)
        assert between is not None  # both match nothing, too
        place = between.end()
        try:
            value, place = decoder.raw_decode(buffer, place)
        except RecursionError as error:
            yield Row(number + 1, None, RecordError("malformed-json", f"too deep to be read: {error}"))
            return
        except ValueError as error:
            if buffer.startswith("]", place) and (number or place):
                return
            try:
                chunk = text.read(_CHUNK_BYTES)
            except (UnicodeDecodeError, EOFError, zlib.error, gzip.BadGzipFile) as reading:
                yield Row(number + 1, None, RecordError("truncated-file", f"cannot be read on: {reading}"))
                return
            if not chunk or len(buffer) - place > max_bytes:
                reason = "line-too-long" if chunk else "truncated-file"
                yield Row(number + 1, None, RecordError(reason, f"the list cannot be read on after {number}: {error}"))
                return
            buffer, place = buffer[place:] + chunk, 0
            continue
        number += 1
        yield _check_type(number, value)


def _iter_parquet(path: Path, name: str, columns: Columns | None) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    if columns is None:
        raise ArtifactError(f"{name} is Parquet: the origin's `columns` must say what its columns are")
    wanted = [column for column in (columns.image, columns.conversations, columns.question, columns.answer) if column]
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            missing = [column for column in wanted if column not in file.schema_arrow.names]
            if missing:
                raise ArtifactError(f"{name} has no column {missing[0]!r}, it has {', '.join(file.schema_arrow.names)}")
            extra = ["source"] if "source" in file.schema_arrow.names else []
            for batch in file.iter_batches(_BATCH_ROWS, columns=[*wanted, *extra]):
                for value in batch.to_pylist():
                    number += 1
                    yield _read_columns(number, value, columns)
    except pa.ArrowException as error:
        yield Row(number + 1, None, RecordError("truncated-file", f"cannot be read on: {error}"))


def _read_columns(number: int, value: dict[str, Any], columns: Columns) -> Row:
    image = value[columns.image] if columns.image else None
    data = image.get("bytes") if isinstance(image, dict) else image
    if columns.conversations:
        turns = value[columns.conversations]
    else:
        question, answer = (value[column] if column else None for column in (columns.question, columns.answer))
        marker = f"{IMAGE_PLACEHOLDER}\n" if data else ""
        turns = [{"from": "human", "value": f"{marker}{question or ''}"}, {"from": "gpt", "value": answer or ""}]
    return Row(number, {"conversations": turns, "source": value.get("source")}, None, image=data)
