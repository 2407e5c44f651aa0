"""Curate a mix: which records of a clean pool a training phase sees, and in which order."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.filters import find_unfit
from cambrian.data.format_prompts import read_format_prompt_table
from cambrian.data.ledger import Ledger, dropped_schema, write_dropped_table
from cambrian.data.mixes import choose_rows, parts_of_sources, plan_caps, plan_quotas, rank_keys
from cambrian.data.ordering import Piece, Reorder, iter_ordered, start_reordering, write_piece
from cambrian.data.partitions import SortedRuns, even_rank_splitters, keep_memory, run_tasks
from cambrian.data.record_tables import RecordsWriter, count_bytes, iter_row_groups
from cambrian.runtime import iter_progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from jaxtyping import Bool, Int16, UInt64

    from cambrian.data.format_prompts import FormatPromptsConfig
    from cambrian.data.ledger import Step
    from cambrian.data.mixes import MixRow, Quota
    from cambrian.data.partitions import PartitionsConfig

_RUNS_DIR = ".runs"
_log = logging.getLogger("cambrian")


@dataclass(frozen=True, slots=True)
class _Index:
    """A few numbers of every record of a pool, in the file's order."""

    ids: pa.ChunkedArray
    sources: list[str]
    """All sources of the pool."""
    source_codes: Int16[np.ndarray, " rows"]
    """Each record's source by its place in `sources`."""
    select_keys: UInt64[np.ndarray, " rows"]
    """By which records are chosen."""
    faults: Int16[np.ndarray, " rows"]
    """The first of the row's rules that a record breaks, by number: its filters, then its cap; -1 where it breaks none.
    """
    group_rows: list[int]
    """Records of each row group."""


def curate_mix(
    row: MixRow,
    partitions: PartitionsConfig,
    *,
    name: str,
    samples_per_record: int,
    seed: int,
    format_prompts: FormatPromptsConfig,
    pool: Path,
    output: Path,
) -> None:
    """Write the records that a row of `mixes` selects from a clean pool, what it left out, and the ledger.

    Whether a record is taken, and its place, follow from its id, the seed and how many of its part are wanted: records
    with the lowest hash are taken, so a smaller mix lies within a larger one and the pool's order does not matter.
    Where a part has fewer records than wanted, all are taken, the shortfall stands in the ledger, and no other part
    fills it.

    Raises:
        ArtifactError: the pool is incomplete.
        ParamsError: the row names a source or category that the pool does not have, or percents that are no whole.
    """
    read_manifest(pool)
    keep_memory()
    sources: dict[str, Any] = read_json(pool / "sources.json")
    quotas = plan_quotas(row.select, sources, samples_per_record=samples_per_record, where=f"mixes.{name}.select")
    part_of = parts_of_sources(row.select, sources)
    path = pool / "records.parquet"
    index = _read_index(path, row, sorted(sources), seed)
    parts = [part_of[source] for source in index.sources]
    caps = plan_caps(row.select, sources, samples_per_record=samples_per_record)
    if caps:
        passes = index.faults < 0
        is_within = choose_rows(caps, index.sources, index.source_codes, index.select_keys, index.ids, passes)
        index.faults[passes & ~is_within] = len(row.filters)
    passes = index.faults < 0
    is_taken = choose_rows(quotas, parts, index.source_codes, index.select_keys, index.ids, passes)
    ledger = Ledger()
    described = _describe_parts(quotas, index, passes, is_taken, parts)
    with write_folder(output, mix=name, num_records=int(is_taken.sum())) as folder:
        dropped = _account(row, index, passes, is_taken, caps, quotas, parts, ledger)
        reorder = Reorder(
            path=path,
            runs=_plan_runs(folder, path, is_taken, partitions),
            seed=seed,
            prompts=format_prompts if row.format_prompts else None,
            table=read_format_prompt_table() if row.format_prompts else None,
        )
        _write_in_order(folder / "records.parquet", reorder, index.group_rows, is_taken, partitions)
        write_dropped_table(folder / "dropped.parquet", dropped)
        write_json(folder / "ledger.json", {"mix": name, "steps": ledger.to_json(), "parts": described})
    for part, facts in described.items():
        if facts["shortfall"]:
            _log.warning("mix %s: %s has %d of %d records", name, part, facts["taken"], facts["limit"])
    _log.info("mix %s: %d of %d records", name, is_taken.sum(), len(is_taken))


def _read_index(path: Path, row: MixRow, sources: list[str], seed: int) -> _Index:
    """Read what the selection needs of every record."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ["id", "source", *(["conversations"] if row.filters else [])]
    ids: list[pa.Array] = []
    codes, keys, unfit, group_rows = [], [], [], []
    known = pa.array(sources, pa.string())
    for table in iter_row_groups(path, columns):
        ids += table.column("id").chunks
        codes.append(pc.index_in(table.column("source"), known).to_numpy().astype(np.int16))
        keys.append(rank_keys(table.column("id").to_pylist(), seed, "select"))
        unfit.append(find_unfit(row.filters, table))
        group_rows.append(table.num_rows)
    return _Index(
        ids=pa.chunked_array(ids, pa.string()),
        sources=sources,
        source_codes=np.concatenate([np.zeros(0, np.int16), *codes]),
        select_keys=np.concatenate([np.zeros(0, np.uint64), *keys]),
        faults=np.concatenate([np.zeros(0, np.int16), *unfit]),
        group_rows=group_rows,
    )


def _account(
    row: MixRow,
    index: _Index,
    passes: Bool[np.ndarray, " rows"],
    is_taken: Bool[np.ndarray, " rows"],
    caps: Sequence[Quota],
    quotas: Sequence[Quota],
    parts: Sequence[str],
    ledger: Ledger,
) -> pa.Table:
    """Count every record in the ledger; what was left out, in the pool's order, with the reason."""
    import pyarrow as pa

    limits = {quota.part: quota.limit for quota in quotas}
    left_out = [
        ("over-limit", f"the mix takes {limits[part]} of {part}") if part in limits else ("not-in-mix", "")
        for part in parts
    ]
    broken = [(f"filter-{rule.kind}", rule.describe()) for rule in row.filters]
    if row.filters:
        step = ledger.start("filters")
        for number, (reason, _) in enumerate(broken):
            _count(step, index, index.faults == number, reason)
        _count(step, index, passes | (index.faults == len(row.filters)), None)
    if caps:
        broken.append(("over-cap", f"{caps[0].limit} of each source take part"))
        step = ledger.start("cap")
        _count(step, index, index.faults == len(row.filters), "over-cap")
        _count(step, index, passes, None)
    step = ledger.start("select")
    _count(step, index, is_taken, None)
    for reason in ("over-limit", "not-in-mix"):
        has_reason = np.array([found == reason for found, _ in left_out], bool)[index.source_codes]
        _count(step, index, passes & ~is_taken & has_reason, reason)
    rows = np.flatnonzero(~is_taken)
    faults = [*left_out, *broken]
    codes = np.where(passes, index.source_codes, len(left_out) + index.faults)[rows]
    columns = [
        index.ids.filter(pa.array(~is_taken)),
        _pick(index.sources, index.source_codes[rows]),
        _pick([reason for reason, _ in faults], codes),
        _pick([detail for _, detail in faults], codes),
    ]
    return pa.Table.from_arrays(columns, schema=dropped_schema())


def _count(step: Step, index: _Index, rows: Bool[np.ndarray, " rows"], reason: str | None) -> None:
    """Count these records as dropped for a reason, or as kept where there is none."""
    counts = np.bincount(index.source_codes[rows], minlength=len(index.sources))
    for source, count in zip(index.sources, counts.tolist(), strict=True):
        if count and reason is None:
            step.keep(source, count)
        elif count and reason is not None:
            step.drop(source, reason, count)


def _pick(texts: Sequence[str], codes: Int16[np.ndarray, " rows"]) -> pa.ChunkedArray:
    import pyarrow as pa

    return pa.chunked_array([pa.array(texts, pa.string()).take(pa.array(codes))])


def _plan_runs(
    folder: Path, path: Path, is_taken: Bool[np.ndarray, " rows"], partitions: PartitionsConfig
) -> SortedRuns:
    num_bytes = int(count_bytes(path) * is_taken.mean()) if len(is_taken) else 0
    runs = SortedRuns(folder / _RUNS_DIR, "rank", even_rank_splitters(partitions.num_buckets(num_bytes)))
    runs.folder.mkdir()
    return runs


def _write_in_order(
    path: Path,
    reorder: Reorder,
    group_rows: Sequence[int],
    is_taken: Bool[np.ndarray, " rows"],
    partitions: PartitionsConfig,
) -> None:
    """Write the taken records in the mix's order.

    Not in that of the selection's hash: a capped source keeps its low hashes, a small one all of its own.
    """
    masks = np.split(is_taken, np.cumsum(group_rows)[:-1]) if group_rows else []
    groups = [(group, np.packbits(mask)) for group, mask in enumerate(masks) if mask.any()]
    pieces = [Piece(number, group, packed) for number, (group, packed) in enumerate(groups)]
    written = run_tasks(partitions, write_piece, pieces, initializer=start_reordering, arguments=[reorder])
    num_runs = sum(1 for _ in iter_progress(written, total=len(pieces), what=f"taking from {reorder.path}, piece"))
    with RecordsWriter(path) as writer:
        for table in iter_ordered(reorder.runs, num_runs):
            writer.write(table)
    shutil.rmtree(reorder.runs.folder)


def _describe_parts(
    quotas: Sequence[Quota],
    index: _Index,
    passes: Bool[np.ndarray, " rows"],
    is_taken: Bool[np.ndarray, " rows"],
    parts: Sequence[str],
) -> dict[str, dict[str, Any]]:
    available, num_taken = _count_parts(index, passes, parts), _count_parts(index, is_taken, parts)
    return {
        quota.part: {
            "available": available[quota.part],
            "limit": quota.limit,
            "taken": num_taken[quota.part],
            "shortfall": (quota.limit or 0) - num_taken[quota.part] if quota.is_target else 0,
        }
        for quota in quotas
    }


def _count_parts(index: _Index, rows: Bool[np.ndarray, " rows"], parts: Sequence[str]) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for part, count in zip(parts, np.bincount(index.source_codes[rows], minlength=len(parts)).tolist(), strict=True):
        counts[part] += count
    return counts
