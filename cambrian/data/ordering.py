"""A mix's records in the mix's order, which is that of a hash: through sorted runs on disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cambrian.data.format_prompts import add_format_prompt
from cambrian.data.mixes import rank_keys
from cambrian.data.partitions import keep_memory
from cambrian.data.record_tables import read_row_group, read_turns
from cambrian.data.records import records_schema
from cambrian.interfaces import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from jaxtyping import UInt8

    from cambrian.data.format_prompts import FormatPromptsConfig, FormatPromptTable
    from cambrian.data.partitions import SortedRuns


@dataclass(frozen=True, slots=True)
class Reorder:
    """What a process needs to know to bring a part of a mix into order."""

    path: Path
    """The clean pool's records."""
    runs: SortedRuns
    seed: int
    prompts: FormatPromptsConfig | None
    table: FormatPromptTable | None
    """Both None for a mix without format prompts."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The records that a mix takes of one row group."""

    number: int
    group: int
    is_taken: UInt8[np.ndarray, " bytes"]
    """One bit for each row of the group."""


_reorder: Reorder | None = None


def start_reordering(reorder: Reorder) -> None:
    """Prepare this process for `write_piece`."""
    global _reorder
    keep_memory()
    _reorder = reorder


def write_piece(piece: Piece) -> None:
    """Write the records that a mix takes of one row group as a run, for `iter_ordered`."""
    import pyarrow as pa

    assert _reorder is not None, "start_reordering was not called in this process"
    table = read_row_group(_reorder.path, piece.group)
    is_taken = np.unpackbits(piece.is_taken, count=table.num_rows).astype(bool)
    table = _add_prompts(table.filter(pa.array(is_taken)), _reorder)
    ranks = rank_keys(table.column("id").to_pylist(), _reorder.seed, "order")
    table = table.append_column("rank", pa.array(ranks))
    # A single bucket is sorted when it is read.
    _reorder.runs.write(piece.number, [_sort(table) if _reorder.runs.splitters else table])


def iter_ordered(runs: SortedRuns, num_runs: int) -> Iterator[pa.Table]:
    """The records of all runs in the mix's order, bucket by bucket."""
    import pyarrow as pa

    if num_runs:
        for pieces in runs.iter_buckets(num_runs):
            yield _sort(pa.Table.from_batches(pieces))


def _sort(table: pa.Table) -> pa.Table:
    import pyarrow.compute as pc

    table = table.combine_chunks()
    keys = table.select(["rank", "id"])
    return table.take(pc.sort_indices(keys, sort_keys=[("rank", "ascending"), ("id", "ascending")]))


def _add_prompts(table: pa.Table, reorder: Reorder) -> pa.Table:
    """Add format prompts to the records of the sources that have one; these come last."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if reorder.prompts is None or reorder.table is None:
        return table
    has_prompt = pc.is_in(table.column("source"), pa.array(list(reorder.table.sources), pa.string()))
    changed = table.filter(has_prompt)
    turns = read_turns(changed.column("conversations"))
    sources = changed.column("source").to_pylist()
    records = [
        add_format_prompt(Record(id="", source=source, turns=spoken, image=None), reorder.table, reorder.prompts)
        for source, spoken in zip(sources, turns, strict=True)
    ]
    spoken = [[{"from": turn.speaker, "value": turn.text} for turn in record.turns] for record in records]
    kind = records_schema().field("conversations")
    place = changed.column_names.index("conversations")
    changed = changed.set_column(place, kind, pa.array(spoken, kind.type))
    return pa.concat_tables([table.filter(pc.invert(has_prompt)), changed])
