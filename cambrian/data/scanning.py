"""A pool's lines, chunk by chunk: usable records go to runs on disk, and a few numbers of each stay in memory."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from cambrian.artifacts import read_json
from cambrian.data.duplicates import squeeze_text
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.ledger import Dropped, Step, dropped_table
from cambrian.data.lines import LineParser, guess_identity, iter_lines
from cambrian.data.partitions import SortedRuns, even_splitters
from cambrian.data.record_tables import conversations_array
from cambrian.data.records import records_schema
from cambrian.data.shards import ImageStore
from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from jaxtyping import UInt64

READ_STEP, IMAGES_STEP = "read", "images"

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
    """What is kept in memory of a chunk; the records are in the run of its number, in the order of these rows."""

    num_lines: int
    id_keys: UInt64[np.ndarray, " rows"]
    """Equal for equal ids."""
    likeness_keys: UInt64[np.ndarray, " rows"]
    """Equal for samples that may be duplicates of one another."""
    dropped: pa.Table
    dropped_lines: list[int]
    """Beside each dropped row: the line's number within the chunk, from 0."""
    steps: tuple[Step, Step]
    """Reading and images."""


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
    """One process's reader of a pool."""

    def __init__(self, config: ScanConfig) -> None:
        self._config = config
        self._categories = {
            name: source["category"] for name, source in read_json(config.pool / "sources.json").items()
        }
        self._parser = LineParser(self._categories, config.max_line_bytes)
        self._store = ImageStore(config.pool)
        self._describe = lru_cache(_NUM_REMEMBERED_IMAGES)(self._describe_image)

    def scan(self, chunk: Chunk) -> Scanned:
        """Parse the lines of a chunk, look at their images, and write the usable records as a sorted run."""
        rows = _Rows()
        steps = (Step(READ_STEP), Step(IMAGES_STEP))
        dropped: list[Dropped] = []
        dropped_lines: list[int] = []
        path = self._config.pool / "records.jsonl"
        parse, read_step, images_step = self._parser.parse, steps[0], steps[1]
        num_lines = 0
        for line in iter_lines(path, chunk.start, chunk.end, self._config.max_line_bytes):
            step, name, source = read_step, "", ""
            try:
                name, source, image, texts = parse(line)
                step = images_step
                facts = self._describe(image) if image is not None else None
                if isinstance(facts, RecordError):
                    raise facts
                rows.add(name, source, image, texts, facts, self._config.same_hash_only)
            except RecordError as error:
                if step is read_step:
                    name, source = (_escape(text) for text in guess_identity(line))
                else:
                    read_step.keep(source)
                step.drop(source, error.reason)
                dropped.append(Dropped(name, source, error.reason, str(error)))
                dropped_lines.append(num_lines)
            num_lines += 1
        for source, count in Counter(rows.sources).items():
            read_step.keep(source, count)
            images_step.keep(source, count)
        table, order = rows.to_table(self._categories)
        self._config.runs.write(chunk.number, table)
        id_keys, likeness_keys = (np.array(keys, np.uint64)[order] for keys in (rows.id_keys, rows.likeness_keys))
        return Scanned(num_lines, id_keys, likeness_keys, dropped_table(dropped), dropped_lines, steps)

    def _describe_image(self, name: str) -> ImageFacts | RecordError:
        try:
            return describe_image(
                self._store.read(name),
                name=name,
                hash_side=self._config.hash_side,
                min_side=self._config.min_image_side,
            )
        except RecordError as error:
            return error


class _Rows:
    """The usable records of a chunk, column by column."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.images: list[str | None] = []
        self.digests: list[str | None] = []
        self.hashes: list[bytes] = []
        self.num_turns: list[int] = []
        self.texts: list[str] = []
        self.id_keys: list[int] = []
        self.likeness_keys: list[int] = []

    def add(
        self,
        name: str,
        source: str,
        image: str | None,
        texts: Sequence[str],
        facts: ImageFacts | None,
        same_hash_only: bool,
    ) -> None:
        self.ids.append(name)
        self.sources.append(source)
        self.images.append(image)
        self.num_turns.append(len(texts))
        self.texts += texts
        self.id_keys.append(xxhash.xxh3_64_intdigest(name.encode()))
        words = squeeze_text("\0".join(texts))
        if facts is None:
            self.digests.append(None)
            self.hashes.append(b"")
        else:
            self.digests.append(facts.digest)
            self.hashes.append(facts.hash)
            words += facts.hash if same_hash_only else b"\0picture"
        self.likeness_keys.append(xxhash.xxh3_64_intdigest(words))

    def to_table(self, categories: dict[str, str]) -> tuple[pa.Table, Any]:
        """The rows sorted by id, and in which order they were."""
        import pyarrow as pa
        import pyarrow.compute as pc

        columns = {
            "id": pa.array(self.ids, pa.string()),
            "source": pa.array(self.sources, pa.string()),
            "category": pa.array([categories[source] for source in self.sources], pa.string()),
            "image": pa.array(self.images, pa.string()),
            "conversations": conversations_array(self.texts, self.num_turns),
            "digest": pa.array(self.digests, pa.string()),
            "hash": pa.array(self.hashes, pa.binary()),
        }
        schema = pa.schema([*records_schema(), ("digest", pa.string()), ("hash", pa.binary())])
        order = pc.sort_indices(columns["id"])
        return pa.table(columns, schema=schema).take(order), order.to_numpy()


_scanner: Scanner | None = None


def start_scanning(config: ScanConfig) -> None:
    """Prepare this process for `scan_chunk`."""
    global _scanner
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
