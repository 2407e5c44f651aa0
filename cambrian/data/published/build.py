"""Published benchmarks, brought into the folder that `build_benchmarks` writes for the generated ones."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import write_folder, write_json
from cambrian.data.published.rows import iter_rows
from cambrian.interfaces import ArtifactError
from cambrian.runtime import iter_progress, logged_step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cambrian.data.published.config import PublishedBenchmarks, PublishedSet

_ROWS_AT_ONCE = 256
_IMAGE = {"_type": "Image"}


def fetch_benchmarks(config: PublishedBenchmarks, *, output: Path) -> None:
    """Write `NAME/test.parquet` for every score and `items.json` with the number of rows of each.

    The manifest names each data set and its revision.

    Raises:
        ParamsError: a revision is not known.
        ArtifactError: a data set cannot be fetched, has other columns than its row names, or no rows.
    """
    sources = {name: chosen.source.model_dump(mode="json") for name, chosen in config.sets.items()}
    counts = {}
    with write_folder(output, split="published", sources=sources) as folder:
        for name, chosen in config.sets.items():
            with logged_step(f"{name} fetched") as facts:
                counts[name] = _write_set(folder / name / "test.parquet", chosen, name)
                facts["rows"] = counts[name]
        write_json(folder / "items.json", counts)


def _write_set(path: Path, chosen: PublishedSet, name: str) -> int:
    """Write one data set in pieces, so that no more than a piece of its pictures is in memory; return its rows."""
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True)
    writer = None
    num_rows = 0
    rows = iter_progress(iter_rows(chosen, where=f"benchmarks.sets.{name}"), total=None, what=name)
    try:
        for piece in _pieces(rows):
            if writer is None:
                schema = _schema(piece)
                writer = pyarrow.parquet.ParquetWriter(path, schema)
            writer.write_table(pyarrow.Table.from_pylist(piece, schema=schema))
            num_rows += len(piece)
    except pyarrow.ArrowInvalid as error:
        raise ArtifactError(f"{name}: after row {num_rows} a column changes its type ({error})") from error
    finally:
        if writer is not None:
            writer.close()
    if not num_rows:
        raise ArtifactError(f"{name}: its data set has no rows: check the split and the configurations")
    return num_rows


def _pieces(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while piece := list(itertools.islice(rows, _ROWS_AT_ONCE)):
        yield piece


def _schema(piece: list[dict[str, Any]]) -> Any:
    """The columns' types, by the first piece; a column without a value in it is taken for text."""
    import pyarrow

    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    fields = []
    for field in pyarrow.Table.from_pylist(piece).schema:
        kind = field.type
        if pyarrow.types.is_null(kind):
            kind = pyarrow.string()
        elif pyarrow.types.is_struct(kind) and {entry.name for entry in kind} == {"bytes", "path"}:
            kind = picture
        elif pyarrow.types.is_list(kind) and pyarrow.types.is_struct(kind.value_type):
            kind = pyarrow.list_(picture)
        fields.append(pyarrow.field(field.name, kind))
    return pyarrow.schema(fields)
