"""The records of a pool, a clean pool or a mix, kept and dropped, to be filtered and looked at one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json, read_manifest
from cambrian.data.records import make_record
from cambrian.data.shards import INDEX_NAME, ImageStore
from cambrian.interfaces import ArtifactError, Record, RecordError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

RECORDS_PARQUET, RECORDS_JSONL, DROPPED_NAME = "records.parquet", "records.jsonl", "dropped.parquet"
KEPT = "kept"
"""Stands for no reason at all."""
UNKNOWN_CATEGORY = "(unknown)"

_COLUMNS = ("id", "source", "category", "reason", "detail", "place")
_PREVIEW_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Shown:
    """One row of a folder, with its record where there is one."""

    row: dict[str, Any]
    """id, source, category, reason (`kept` or why it was dropped), detail."""
    record: Record | None
    raw: str
    """The beginning of a line that is no record; empty otherwise."""


class RecordBrowser:
    """Reads a folder of records; ids, sources and reasons are held, conversations and pictures are read when shown.

    `pool` is where the pictures lie, and the lines of records that were dropped; None where there is no such folder.
    """

    def __init__(self, folder: Path, pool: Path | None) -> None:
        """Read the index of a finished folder.

        Raises:
            ArtifactError: the folder has no records, or was not finished.
        """
        read_manifest(folder)
        self._folder = folder
        self._lines = pool / RECORDS_JSONL if pool is not None else None
        self._images = ImageStore(pool) if pool is not None and (pool / INDEX_NAME).is_file() else None
        self._table = _read_index(folder, pool)
        self._record_batches: tuple[int, pa.Table] | None = None

    @property
    def num_rows(self) -> int:
        """Kept and dropped."""
        return int(self._table.num_rows)

    def count(self, column: str) -> dict[str, int]:
        """How many rows each source, category or reason has, the largest first."""
        counts = {entry["values"]: entry["counts"] for entry in self._table[column].value_counts().to_pylist()}
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    def select(self, *, source: str | None, category: str | None, reason: str | None, text: str) -> list[int]:
        """The numbers of the rows that have all of these; None stands for any, `text` for a part of the id."""
        import pyarrow.compute as pc

        mask = None
        for name, value in {"source": source, "category": category, "reason": reason}.items():
            if value is not None:
                part = pc.equal(self._table[name], value)
                mask = part if mask is None else pc.and_(mask, part)
        if text:
            part = pc.match_substring(self._table["id"], text)
            mask = part if mask is None else pc.and_(mask, part)
        if mask is None:
            return list(range(self.num_rows))
        numbers: list[int] = pc.indices_nonzero(mask).to_pylist()
        return numbers

    def row(self, number: int) -> dict[str, Any]:
        """What is known of a row without its record.

        Raises:
            RecordError: `no-such-row`.
        """
        if not 0 <= number < self.num_rows:
            raise RecordError("no-such-row", f"row {number} is not one of {self.num_rows}")
        row: dict[str, Any] = self._table.slice(number, 1).to_pylist()[0]
        return row

    def show(self, number: int) -> Shown:
        """A row with its record.

        Raises:
            RecordError: `no-such-row`.
            ArtifactError: a file is broken.
        """
        row = self.row(number)
        place = row.pop("place")
        if place is None:
            line = self._find_line(row["id"])
            return Shown(row, *_parse(line))
        if (self._folder / RECORDS_PARQUET).is_file():
            return Shown(row, self._read_parquet(place), "")
        with (self._folder / RECORDS_JSONL).open("rb") as file:
            file.seek(place)
            return Shown(row, *_parse(file.readline()))

    def read_image(self, name: str) -> bytes:
        """The encoded picture of a record.

        Raises:
            RecordError: `missing-image`.
        """
        if self._images is None:
            raise RecordError("missing-image", "no pool with pictures was found: name it with --pool")
        return self._images.read(name)

    def _read_parquet(self, place: int) -> Record:
        from pyarrow import parquet

        with parquet.ParquetFile(self._folder / RECORDS_PARQUET) as file:
            first = 0
            for group in range(file.num_row_groups):
                count = file.metadata.row_group(group).num_rows
                if place < first + count:
                    held = self._record_batches  # requests come in several threads
                    if held is None or held[0] != group:
                        held = self._record_batches = group, file.read_row_group(group)
                    return make_record(held[1].slice(place - first, 1).to_pylist()[0])
                first += count
        raise ArtifactError(f"{self._folder / RECORDS_PARQUET} has fewer rows than a minute ago: start again")

    def _find_line(self, record_id: str) -> bytes:
        """The pool's line of a dropped record: the N-th for `line N`, otherwise the first with this id; else empty."""
        if self._lines is None or not self._lines.is_file():
            return b""
        number = int(record_id.removeprefix("line ")) if record_id.removeprefix("line ").isdecimal() else None
        wanted = [json.dumps(record_id, ensure_ascii=is_ascii).encode() for is_ascii in (False, True)]
        with self._lines.open("rb") as file:
            for count, line in enumerate(file, start=1):
                if count == number or (
                    number is None and any(part in line for part in wanted) and _has_id(line, record_id)
                ):
                    return line
        return b""


def _read_index(folder: Path, pool: Path | None) -> pa.Table:
    """Rows of what was kept, then of what was dropped, by the columns of `_COLUMNS`."""
    import pyarrow as pa
    from pyarrow import parquet

    sources_of_all = {**_read_sources(pool or folder), **_read_sources(folder)}
    categories = {name: source["category"] for name, source in sources_of_all.items()}
    parts = []
    if (folder / RECORDS_PARQUET).is_file():
        kept = parquet.read_table(folder / RECORDS_PARQUET, columns=["id", "source", "category"])
        columns = [kept[name].cast(pa.string()) for name in ("id", "source", "category")]
        parts.append(
            [*columns, _repeat(KEPT, kept.num_rows), _repeat("", kept.num_rows), pa.array(range(kept.num_rows))]
        )
    elif (folder / RECORDS_JSONL).is_file():
        parts.append(_index_lines(folder / RECORDS_JSONL, categories))
    else:
        raise ArtifactError(f"{folder} has neither {RECORDS_PARQUET} nor {RECORDS_JSONL}: it is no pool and no mix")
    if (folder / DROPPED_NAME).is_file():
        dropped = parquet.read_table(folder / DROPPED_NAME, columns=["id", "source", "reason", "detail"])
        sources = dropped["source"].to_pylist()
        found = pa.array([categories.get(source, UNKNOWN_CATEGORY) for source in sources], pa.string())
        places = pa.nulls(dropped.num_rows, pa.int64())
        texts = {name: dropped[name].cast(pa.string()) for name in ("id", "source", "reason", "detail")}
        parts.append([texts["id"], texts["source"], found, texts["reason"], texts["detail"], places])
    return pa.concat_tables([pa.table(dict(zip(_COLUMNS, part, strict=True))) for part in parts]).combine_chunks()


def _read_sources(folder: Path) -> dict[str, Any]:
    path = folder / "sources.json"
    sources: dict[str, Any] = read_json(path) if path.is_file() else {}
    return sources


def _index_lines(path: Path, categories: dict[str, str]) -> list[Any]:
    import pyarrow as pa

    ids, sources, places = [], [], []
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            value = _load(line)
            record_id, source = value.get("id"), value.get("source")
            ids.append(record_id if isinstance(record_id, str) and record_id else f"line {number}")
            sources.append(source if isinstance(source, str) and source else "(unreadable)")
            places.append(place)
            place += len(line)
    named = [categories.get(source, UNKNOWN_CATEGORY) for source in sources]
    kept = [_repeat(KEPT, len(ids)), _repeat("", len(ids))]
    return [
        pa.array(ids, pa.string()),
        pa.array(sources, pa.string()),
        pa.array(named, pa.string()),
        *kept,
        pa.array(places, pa.int64()),
    ]


def _repeat(value: str, count: int) -> Any:
    import pyarrow as pa

    return pa.repeat(pa.scalar(value, pa.string()), count)


def _load(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _has_id(line: bytes, record_id: str) -> bool:
    return _load(line).get("id") == record_id


def _parse(line: bytes) -> tuple[Record | None, str]:
    try:
        return make_record(_load(line)), ""
    except RecordError:
        return None, line[:_PREVIEW_CHARACTERS].decode("utf-8", errors="backslashreplace").strip()
