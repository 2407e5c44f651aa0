"""Records as Arrow tables: what a large pool is worked on in, a row group at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian.data.records import records_schema
from cambrian.interfaces import ArtifactError, Turn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    import pyarrow as pa

ROW_GROUP_ROWS = 50_000
"""Records of one row group; what is written does not depend on how it came in."""

_REPEATED_COLUMNS = ["source", "category", "conversations.list.element.from"]
"""Columns of few different values; the others' are hardly ever there twice, and to look for that takes time."""


class RecordsWriter:
    """Writes a file of records from tables of any size, the same bytes for the same rows in the same order."""

    def __init__(self, path: Path) -> None:
        from pyarrow import parquet

        self._schema = records_schema()
        self._writer = parquet.ParquetWriter(
            path, self._schema, compression="zstd", use_dictionary=_REPEATED_COLUMNS, write_statistics=_REPEATED_COLUMNS
        )
        self._waiting: list[pa.Table] = []
        self._num_waiting = 0
        self.num_written = 0

    def write(self, table: pa.Table) -> None:
        """Append rows; further columns are left out."""
        self._waiting.append(table.select(self._schema.names).cast(self._schema))
        self._num_waiting += table.num_rows
        while self._num_waiting >= ROW_GROUP_ROWS:
            self._write_group(ROW_GROUP_ROWS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and (self._num_waiting or not self.num_written):
            self._write_group(self._num_waiting)
        self._writer.close()

    def _write_group(self, num_rows: int) -> None:
        import pyarrow as pa

        waiting = pa.concat_tables(self._waiting) if self._waiting else self._schema.empty_table()
        # In one chunk: where chunks end shows in the file's pages.
        self._writer.write_table(waiting.slice(0, num_rows).combine_chunks(), row_group_size=ROW_GROUP_ROWS)
        self._waiting = [waiting.slice(num_rows)] if num_rows < waiting.num_rows else []
        self._num_waiting -= num_rows
        self.num_written += num_rows


def read_turns(conversations: pa.ChunkedArray) -> list[tuple[Turn, ...]]:
    """The turns of each row."""
    return [tuple(Turn(turn["from"], turn["value"]) for turn in turns) for turns in conversations.to_pylist()]


def count_row_groups(path: Path) -> int:
    """How many row groups a file of records has.

    Raises:
        ArtifactError: the file is missing or is not such a file.
    """
    return _open(path).num_row_groups  # type: ignore[no-any-return]


def count_bytes(path: Path) -> int:
    """How large all row groups are in memory, about."""
    metadata = _open(path).metadata
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def read_row_group(path: Path, number: int, columns: Sequence[str] | None = None) -> pa.Table:
    """One row group, all of its columns or the named ones."""
    file = _open(path)
    return file.read_row_group(number, columns=None if columns is None else list(columns), use_threads=False)


def iter_row_groups(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The row groups one after the other, all of their columns or the named ones."""
    for number in range(count_row_groups(path)):
        yield read_row_group(path, number, columns)


def read_column_names(path: Path) -> list[str]:
    """The file's columns, whatever they are."""
    return list(_open(path).schema_arrow.names)


def read_empty(path: Path) -> pa.Table:
    """No rows of the file's columns."""
    return _open(path).schema_arrow.empty_table()


def _open(path: Path) -> pa.parquet.ParquetFile:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: run the stage that makes it (`dvc repro` does)") from error
    except pa.ArrowException as error:
        raise ArtifactError(f"{path} is not a file of records ({error}): delete it and run `dvc repro`") from error
    return file
