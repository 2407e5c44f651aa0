"""Clean a pool: records that cannot be used and records that are there twice leave it, each with its reason."""

from __future__ import annotations

import logging
import shutil
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import NonNegativeInt, PositiveInt, field_validator

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.deduplication import drop_duplicates, find_candidates
from cambrian.data.duplicates import HashSide, Share, find_repeated
from cambrian.data.image_facts import IMAGE_REASONS
from cambrian.data.ledger import Ledger, dropped_table, write_dropped_table
from cambrian.data.lines import LINE_REASONS
from cambrian.data.partitions import PartitionsConfig, SortedRuns, keep_memory, run_tasks
from cambrian.data.record_tables import ROW_GROUP_ROWS, RecordsWriter
from cambrian.data.scanning import (
    IMAGES_STEP,
    READ_STEP,
    ScanConfig,
    plan_chunks,
    sample_splitters,
    scan_chunk,
    start_scanning,
)
from cambrian.interfaces import ArtifactError
from cambrian.params import Params
from cambrian.runtime import iter_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa
    from jaxtyping import Bool

    from cambrian.data.scanning import Scanned

DUPLICATE_REASONS = frozenset({"duplicate-id", "exact-duplicate", "near-duplicate"})

_RUNS_DIR = ".runs"
_NUM_NAMED_SOURCES = 3
_log = logging.getLogger("cambrian")


class CleaningConfig(Params):
    """What a record must be to stay in a pool."""

    max_line_bytes: PositiveInt
    """A longer line is no record."""
    min_image_side: NonNegativeInt
    """Pixels of a picture's shorter side."""
    hash_side: HashSide
    """Difference hashes have hash_side**2 bits."""
    max_duplicate_distance: NonNegativeInt
    """Two records with the same words are one when their images' hashes differ in at most so many bits."""
    fatal_reasons: list[str]
    """Reasons for which one record stops the stage; for all others it is dropped and counted."""
    max_lost_share: Share
    """The stage fails when a larger share of the pool's records is dropped."""

    @field_validator("fatal_reasons")
    @classmethod
    def _are_known(cls, reasons: list[str]) -> list[str]:
        known = LINE_REASONS | IMAGE_REASONS | DUPLICATE_REASONS
        if unknown := sorted(set(reasons) - known):
            raise ValueError(f"Unknown {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return reasons


def clean_pool(config: CleaningConfig, partitions: PartitionsConfig, *, pool: Path, output: Path) -> None:
    """Write the usable records of a pool in id order, what was dropped and why, and the ledger.

    A bad record is dropped and counted, or stops the stage where its reason is one of `fatal_reasons`. The first of
    equal records in id order stays. Memory holds a bucket of records and some 40 bytes for each other one.

    Raises:
        ArtifactError: the pool is incomplete, a record has a fatal fault, or more than `max_lost_share` were dropped.
    """
    read_manifest(pool)
    keep_memory()
    lines = pool / "records.jsonl"
    ledger = Ledger()
    with write_folder(output) as folder:
        num_buckets = partitions.num_buckets(lines.stat().st_size)
        splitters = sample_splitters(lines, num_buckets, config.max_line_bytes)
        runs = SortedRuns(folder / _RUNS_DIR, "id", splitters)
        runs.folder.mkdir()
        scan = ScanConfig(
            pool=pool,
            runs=runs,
            max_line_bytes=config.max_line_bytes,
            min_image_side=config.min_image_side,
            hash_side=config.hash_side,
            same_hash_only=config.max_duplicate_distance == 0,
        )
        sources: dict[str, Any] = read_json(pool / "sources.json")
        num_rows, is_kept, dropped = _read_and_judge(scan, partitions, config, ledger, sorted(sources))
        steps = ledger.to_json()
        _check_fatal(dropped, config.fatal_reasons, pool)
        lost_share = _check_lost_share(ledger, config.max_lost_share, pool, dropped)
        with RecordsWriter(folder / "records.parquet") as writer:
            for table in _iter_kept(runs, num_rows, is_kept, sources):
                writer.write(table)
        shutil.rmtree(runs.folder)
        write_dropped_table(folder / "dropped.parquet", dropped)
        write_json(folder / "ledger.json", {"steps": steps, "lost_share": lost_share})
        shutil.copyfile(pool / "sources.json", folder / "sources.json")
    _log.info("cleaned %s: %d records kept, %d dropped", pool, int(is_kept.sum()), dropped.num_rows)


def _read_and_judge(
    scan: ScanConfig, partitions: PartitionsConfig, config: CleaningConfig, ledger: Ledger, sources: Sequence[str]
) -> tuple[list[list[int]], Bool[np.ndarray, " rows"], pa.Table]:
    """Scan every line and find the duplicates; rows of the runs, which rows stay, and what was dropped."""
    import pyarrow as pa

    chunks = plan_chunks(scan.pool / "records.jsonl", partitions.chunk_bytes)
    scanned = run_tasks(partitions, scan_chunk, chunks, initializer=start_scanning, arguments=[scan])
    read, images = ledger.start(READ_STEP), ledger.start(IMAGES_STEP)
    num_rows: list[list[int]] = []
    id_keys, likeness_keys, dropped = [], [], []
    num_lines = 0
    for part in iter_progress(scanned, total=len(chunks), what=f"reading {scan.pool}, chunk"):
        read.add(part.steps[0])
        images.add(part.steps[1])
        num_rows.append(part.num_rows)
        id_keys.append(part.id_keys)
        likeness_keys.append(part.likeness_keys)
        dropped.append(_name_lines(part, num_lines))
        num_lines += part.num_lines
    likenesses = np.concatenate(likeness_keys)
    may_be_repeated = find_repeated(np.concatenate(id_keys)) | find_repeated(likenesses)
    del id_keys, likeness_keys
    candidates = find_candidates(scan.runs, len(chunks), may_be_repeated, likenesses, sources)
    exact, near = ledger.start("exact duplicates"), ledger.start("near duplicates")
    rows, repeated = drop_duplicates(candidates, config.max_duplicate_distance, exact, near)
    for step, before in ((exact, images), (near, exact)):
        for source, count in before.records_out.items():
            step.keep(source, count - sum(step.dropped[source, reason] for reason in DUPLICATE_REASONS))
    is_kept = np.ones(len(may_be_repeated), bool)
    is_kept[rows] = False
    return num_rows, is_kept, pa.concat_tables([*dropped, dropped_table(repeated)])


def _name_lines(part: Scanned, first_line: int) -> pa.Table:
    """The chunk's dropped rows, of which those without an id get the number of their line, from 1."""
    import pyarrow as pa

    names = part.dropped.column("id").to_pylist()
    named = [name or f"line {first_line + line + 1}" for name, line in zip(names, part.dropped_lines, strict=True)]
    return part.dropped.set_column(0, "id", pa.array(named, pa.string()))


def _iter_kept(
    runs: SortedRuns, num_rows: Sequence[Sequence[int]], is_kept: Bool[np.ndarray, " rows"], sources: Mapping[str, Any]
) -> Iterator[pa.Table]:
    """The kept records in id order, bucket by bucket."""
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pa.array(sorted(sources), pa.string())
    categories = pa.array([sources[name]["category"] for name in sorted(sources)], pa.string())
    ends = np.cumsum([0, *chain.from_iterable(num_rows)])
    done = [0] * (len(ends) - 1)
    for pieces in runs.iter_buckets(len(num_rows)):
        masks = []
        for number, piece in enumerate(pieces):
            first = int(ends[number]) + done[number]
            done[number] += piece.num_rows
            masks.append(is_kept[first : first + piece.num_rows])
        table = pa.Table.from_batches(pieces).select(["id", "source", "image", "conversations"]).combine_chunks()
        del pieces
        rows = np.flatnonzero(np.concatenate(masks))
        order = pc.sort_indices(table.column("id").take(pa.array(rows))).to_numpy()
        for start in range(0, len(rows), ROW_GROUP_ROWS):
            kept = table.take(pa.array(rows[order[start : start + ROW_GROUP_ROWS]]))
            codes = kept.column("source")
            kept = kept.set_column(1, "source", names.take(codes.combine_chunks()))
            yield kept.append_column("category", categories.take(codes.combine_chunks()))


def _check_fatal(dropped: pa.Table, fatal_reasons: Sequence[str], pool: Path) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = dropped.filter(pc.is_in(dropped.column("reason"), pa.array(fatal_reasons, pa.string())))
    if found.num_rows:
        first = found.slice(0, 1).to_pylist()[0]
        raise ArtifactError(
            f"{pool}: {found.num_rows} records have a fault that cleaning.fatal_reasons does not let pass, as "
            f"{first['id']} of {first['source']}: {first['reason']}, {first['detail']}. Mend the pool, or take the "
            "reason out of the list so that such records are dropped"
        )


def _check_lost_share(ledger: Ledger, max_lost_share: Share, pool: Path, dropped: pa.Table) -> float:
    lost_by_source = ledger.lost_by_source()
    num_lost, num_in = dropped.num_rows, sum(total for _, total in lost_by_source.values())
    lost_share = num_lost / num_in if num_in else 0.0
    if lost_share > max_lost_share:
        worst = sorted(lost_by_source.items(), key=lambda entry: (-entry[1][0], entry[0]))[:_NUM_NAMED_SOURCES]
        raise ArtifactError(
            f"{pool}: {num_lost} of {num_in} records cannot be used ({lost_share:.1%}), cleaning.max_lost_share allows "
            f"{max_lost_share:.1%}. Worst sources: {'; '.join(_iter_worst(worst, dropped))}. Mend the pool, or "
            "raise the limit if this loss is right"
        )
    return lost_share


def _iter_worst(worst: Sequence[tuple[str, tuple[int, int]]], dropped: pa.Table) -> Iterator[str]:
    import pyarrow.compute as pc

    for source, (lost, total) in worst:
        examples = dropped.filter(pc.field("source") == source).slice(0, 1).to_pylist()
        reason = "".join(f" (as {row['id']}: {row['reason']}, {row['detail']})" for row in examples)
        yield f"{source} lost {lost} of {total}{reason}"
