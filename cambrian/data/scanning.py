"""A pool's lines, chunk by chunk: usable records go to runs on disk, and a few numbers of each stay in memory."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from operator import itemgetter
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from cambrian.artifacts import read_json
from cambrian.data.duplicates import hash_all
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.ledger import Dropped, Step, dropped_table
from cambrian.data.lines import LineParser, guess_identity, iter_blocks, iter_lines
from cambrian.data.partitions import SortedRuns, even_splitters, keep_memory
from cambrian.data.shards import ImageStore
from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from jaxtyping import Int32, Int64, UInt64

    from cambrian.data.lines import ParsedLines

READ_STEP, IMAGES_STEP = "read", "images"

_NO_IMAGE_KEY, _IMAGE_KEY = 1, 2
_NUM_REMEMBERED_IMAGES = 50_000
_NUM_SAMPLED_PLACES, _NUM_SAMPLED_LINES = 256, 8


@dataclass(frozen=True, slots=True)
class ScanConfig:
    """What a process needs to know to scan a part of a pool."""

    pool: Path
    runs: SortedRuns
    max_line_bytes: int
    min_image_side: int
    hash_side: int
    same_hash_only: bool
    """Whether two pictures look alike only where their hashes are equal."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The lines that begin in a range of bytes."""

    number: int
    start: int
    end: int


@dataclass(slots=True)
class Scanned:
    """What is kept in memory of a chunk; the records are in the runs of its number, in the order of these rows."""

    num_lines: int
    num_rows: list[int]
    """Of each run."""
    id_keys: UInt64[np.ndarray, " rows"]
    """Equal for equal ids."""
    likeness_keys: UInt64[np.ndarray, " rows"]
    """Equal for samples that may be duplicates of one another."""
    dropped: pa.Table
    dropped_lines: list[int]
    """Beside each dropped row: the line's number within the chunk, from 0."""
    steps: tuple[Step, Step]
    """Reading and images."""


@dataclass(slots=True)
class _Run:
    """The usable records of some lines, with their keys."""

    table: pa.Table
    id_keys: UInt64[np.ndarray, " rows"]
    likeness_keys: UInt64[np.ndarray, " rows"]


def plan_chunks(path: Path, chunk_bytes: int) -> list[Chunk]:
    """Cut a file into ranges of about this size."""
    size = path.stat().st_size
    starts = [*range(0, size, chunk_bytes), size] if size else [0, 0]
    return [Chunk(number, start, end) for number, (start, end) in enumerate(pairwise(starts))]


def sample_splitters(path: Path, num_buckets: int, max_line_bytes: int) -> tuple[str, ...]:
    """Ids that cut the pool into buckets of about one size, from lines read here and there."""
    if num_buckets == 1:
        return ()
    size = path.stat().st_size
    ids = []
    for place in range(_NUM_SAMPLED_PLACES):
        lines = iter_lines(path, size * place // _NUM_SAMPLED_PLACES, size, max_line_bytes)
        for _, line in zip(range(_NUM_SAMPLED_LINES), lines, strict=False):
            name, _ = guess_identity(line)
            ids.append(name.encode(errors="backslashreplace").decode())
    return even_splitters(sorted(ids), num_buckets)


class Scanner:
    """One process's reader of a pool; its threads may share it."""

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._sources = sorted(read_json(config.pool / "sources.json"))
        self._parser = LineParser(self._sources, config.max_line_bytes)
        self._store, self._lock = ImageStore(config.pool), Lock()
        self._describe = lru_cache(_NUM_REMEMBERED_IMAGES)(self._describe_image)

    def scan(self, chunk: Chunk) -> Scanned:
        """Parse the lines of a chunk, look at their images, and write the usable records as sorted runs."""
        found = Scanned(
            num_lines=0, num_rows=[], id_keys=np.zeros(0, np.uint64), likeness_keys=np.zeros(0, np.uint64),
            dropped=dropped_table([]), dropped_lines=[], steps=(Step(READ_STEP), Step(IMAGES_STEP)),
        )  # fmt: skip
        faults: list[tuple[int, Dropped]] = []
        keys: list[tuple[UInt64[np.ndarray, " rows"], UInt64[np.ndarray, " rows"]]] = []
        self._config.runs.write(chunk.number, self._iter_runs(chunk, found, faults, keys))
        faults.sort(key=itemgetter(0))
        found.dropped_lines = [number for number, _ in faults]
        found.dropped = dropped_table(dropped for _, dropped in faults)
        found.id_keys, found.likeness_keys = map(np.concatenate, zip(*keys, strict=True))
        return found

    def _iter_runs(
        self,
        chunk: Chunk,
        found: Scanned,
        faults: list[tuple[int, Dropped]],
        keys: list[tuple[UInt64[np.ndarray, " rows"], UInt64[np.ndarray, " rows"]]],
    ) -> Iterator[pa.Table]:
        """The runs of a chunk; counts in `found`, and adds to the lists, what is found on the way."""
        path, max_bytes = self._config.pool / "records.jsonl", self._config.max_line_bytes
        # The empty block makes a run where the chunk has no line of its own.
        for block in chain(iter_blocks(path, chunk.start, chunk.end, max_bytes), [b""]):
            parsed = self._parser.parse_many(block)
            for number, line, error in parsed.faults:
                name, source = (_escape(text) for text in guess_identity(line))
                faults.append((found.num_lines + number, Dropped(name, source, error.reason, str(error))))
                found.steps[0].drop(source, error.reason)
            self._keep(found.steps[0], parsed.rows.column("source").filter(parsed.is_usable))
            run, dropped_here = self._look(parsed)
            for number, dropped in dropped_here:
                faults.append((found.num_lines + number, dropped))
                found.steps[1].drop(dropped.source, dropped.reason)
            self._keep(found.steps[1], run.table.column("source"))
            found.num_lines += parsed.num_lines
            found.num_rows.append(run.table.num_rows)
            keys.append((run.id_keys, run.likeness_keys))
            yield run.table

    def _keep(self, step: Step, source_codes: pa.ChunkedArray) -> None:
        counts = np.bincount(source_codes.to_numpy(), minlength=len(self._sources))
        for source, count in zip(self._sources, counts.tolist(), strict=True):
            if count:
                step.keep(source, count)

    def _look(self, parsed: ParsedLines) -> tuple[_Run, list[tuple[int, Dropped]]]:
        """The records whose images can be used, and the others with their lines' numbers."""
        import pyarrow as pa

        usable = np.flatnonzero(parsed.is_usable)
        images = parsed.rows.column("image").take(pa.array(usable)).combine_chunks().dictionary_encode()
        names = images.dictionary.to_pylist()
        facts = [self._describe(name) for name in names]
        places = images.indices.fill_null(len(names)).to_numpy()
        is_faulty = np.array([*(isinstance(found, RecordError) for found in facts), False])[places]
        dropped = []
        for row, place in zip(usable[is_faulty].tolist(), places[is_faulty].tolist(), strict=True):
            name, code = (parsed.rows.column(column)[row].as_py() for column in ("id", "source"))
            fault = facts[place]
            assert isinstance(fault, RecordError)
            dropped.append((int(parsed.numbers[row]), Dropped(name, self._sources[code], fault.reason, str(fault))))
        looks = _Looks([found if isinstance(found, ImageFacts) else None for found in facts])
        return self._sort(parsed, usable[~is_faulty], looks, places[~is_faulty]), dropped

    def _sort(
        self,
        parsed: ParsedLines,
        rows: Int64[np.ndarray, " rows"],
        looks: _Looks,
        places: Int32[np.ndarray, " rows"],
    ) -> _Run:
        """These rows; `places` are those of their pictures in `looks`. In the order of ids, if they are to be cut."""
        import pyarrow as pa
        import pyarrow.compute as pc

        ids = parsed.rows.column("id").take(pa.array(rows))
        id_keys = hash_all(map(str.encode, ids.to_pylist()))
        if self._config.runs.splitters:
            order = pc.sort_indices(ids).to_numpy()
            id_keys, rows, places = id_keys[order], rows[order], places[order]
        table = parsed.rows.take(pa.array(rows))
        for name, values in (("digest", looks.digests), ("hash", looks.hashes)):
            table = table.append_column(name, values.take(pa.array(places)))
        keys = looks.hash_keys if self._config.same_hash_only else looks.keys
        return _Run(table, id_keys, parsed.word_keys[rows] ^ keys[places])

    def _describe_image(self, name: str) -> ImageFacts | RecordError:
        try:
            with self._lock:  # two threads would open a shard twice
                data = self._store.read(name)
            return describe_image(
                data, name=name, hash_side=self._config.hash_side, min_side=self._config.min_image_side
            )
        except RecordError as error:
            return RecordError(error.reason, str(error))  # as for lines: what is remembered keeps nothing else alive


class _Looks:
    """What is kept of the pictures of some records, and of having none, which comes last."""

    def __init__(self, facts: Sequence[ImageFacts | None]) -> None:
        import pyarrow as pa

        hashes = [found.hash if found else b"" for found in facts]
        self.digests = pa.array([*(found.digest if found else None for found in facts), None], pa.string())
        self.hashes = pa.array([*hashes, b""], pa.binary())
        self.hash_keys = np.array([*map(xxhash.xxh3_64_intdigest, hashes), _NO_IMAGE_KEY], np.uint64)
        self.keys = np.array([_IMAGE_KEY] * len(hashes) + [_NO_IMAGE_KEY], np.uint64)


_scanner: Scanner | None = None


def start_scanning(config: ScanConfig) -> None:
    """Prepare this process for `scan_chunk`."""
    global _scanner
    keep_memory()
    _scanner = Scanner(config)


def scan_chunk(chunk: Chunk) -> Scanned:
    """Scan a chunk of the pool that `start_scanning` opened."""
    assert _scanner is not None, "start_scanning was not called in this process"
    # Nothing here makes cycles; the collector would walk a million short-lived objects again and again.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return _scanner.scan(chunk)
    finally:
        if was_enabled:
            gc.enable()


def _escape(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
