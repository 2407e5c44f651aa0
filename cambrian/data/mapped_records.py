"""Records on disk, each found in constant time: lines of JSON beside their offsets, both mapped into memory.

A mix of millions of records is neither read nor held by the processes that train on it: a record costs one look at the
offsets, one slice of the lines and the parsing of that line.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import orjson

from cambrian.artifacts import read_manifest
from cambrian.data.made_once import make_once
from cambrian.data.records import format_record
from cambrian.interfaces import ArtifactError, Record, Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LINES_NAME = "records.jsonl"
OFFSETS_NAME = "offsets.npy"
_ROWS_AT_ONCE = 4096


class MappedRecords(Sequence[Record]):
    """The records of a finished folder that `write_mapped` filled.

    Threads, forked workers and unpickled copies may share one of these.
    """

    def __init__(self, folder: Path) -> None:
        """Open the folder.

        Raises:
            ArtifactError: it is missing or unfinished, or its offsets are not those of its lines.
        """
        read_manifest(folder)
        self._folder = folder
        self._offsets = np.asarray(np.load(folder / OFFSETS_NAME, mmap_mode="r"))  # a plain array: quicker to index
        with (folder / LINES_NAME).open("rb") as file:
            size = file.seek(0, 2)
            self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        if int(self._offsets[-1]) != size:
            raise ArtifactError(
                f"{folder / OFFSETS_NAME} ends at {int(self._offsets[-1])}, {LINES_NAME} has {size} bytes: delete "
                f"{folder}; it is made again from the mix"
            )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        place = index % len(self)
        assert self._lines is not None
        return _parse(self._lines[self._offsets.item(place) : self._offsets.item(place + 1)])

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedRecords, (self._folder,)


def map_records(source: Path, folder: Path) -> MappedRecords:
    """Map the records of a finished mix; they are written into a folder of their own below `folder` the first time.

    The folder is named by the digest of what it was made from, so another mix never meets it.

    Raises:
        ArtifactError: the mix is missing or unfinished, or the folder cannot be written.
    """
    digest = read_manifest(source)["files"]["records.parquet"]["sha256"][:16]
    mapped = folder / f"records-{digest}"
    make_once(mapped, lambda partial: write_mapped(partial, _iter_records(source / "records.parquet")))
    return MappedRecords(mapped)


def write_mapped(folder: Path, records: Iterable[Record]) -> None:
    """Write records as lines with their offsets, in constant memory but for eight bytes each."""
    offsets = [0]
    with (folder / LINES_NAME).open("wb") as file:
        for record in records:
            offsets.append(offsets[-1] + file.write(format_record(record).encode() + b"\n"))
    np.save(folder / OFFSETS_NAME, np.asarray(offsets, np.int64))


def _iter_records(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=["id", "source", "image", "conversations"]):
                for row in batch.to_pylist():
                    turns = tuple(Turn(turn["from"], turn["value"]) for turn in row["conversations"])
                    yield Record(id=row["id"], source=row["source"], turns=turns, image=row["image"])
    except pa.ArrowException as error:
        raise ArtifactError(f"{path} is not a file of records ({error}): delete it and run `dvc repro`") from error


def _parse(line: bytes) -> Record:
    """The record of a line that `format_record` made: it was checked when it was written."""
    value = orjson.loads(line)
    turns = tuple(Turn(turn["from"], turn["value"]) for turn in value["conversations"])
    return Record(id=value["id"], source=value["source"], turns=turns, image=value.get("image"))
