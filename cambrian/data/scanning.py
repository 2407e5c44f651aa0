"""A pool's lines, chunk by chunk: usable records go to runs on disk, and a few numbers of each stay in memory."""

from __future__ import annotations

import gc
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, pairwise
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from cambrian.artifacts import read_json
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.ledger import Dropped, Step, dropped_table
from cambrian.data.lines import LineParser, guess_identity, iter_blocks, iter_lines
from cambrian.data.partitions import SortedRuns, even_splitters
from cambrian.data.record_tables import texts_array
from cambrian.data.shards import ImageStore
from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    from jaxtyping import UInt64

    from cambrian.data.line_checks import DecodedLine
    from cambrian.data.lines import ParsedLines

READ_STEP, IMAGES_STEP = "read", "images"

_get_source, _get_image = attrgetter("source"), attrgetter("image")
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
        rows = _Rows(self._categories)
        steps = (Step(READ_STEP), Step(IMAGES_STEP))
        faults: list[tuple[int, Dropped]] = []
        path, max_bytes = self._config.pool / "records.jsonl", self._config.max_line_bytes
        num_lines = 0
        for lines in iter_blocks(path, chunk.start, chunk.end, max_bytes):
            parsed = self._parser.parse_many(lines)
            for number, line, error in parsed.faults:
                name, source = (_escape(text) for text in guess_identity(line))
                faults.append((num_lines + number, Dropped(name, source, error.reason, str(error))))
                steps[0].drop(source, error.reason)
            for source, count in Counter(map(_get_source, parsed.records)).items():
                steps[0].keep(source, count)
            for number, dropped in self._add(parsed, rows):
                faults.append((num_lines + number, dropped))
                steps[1].drop(dropped.source, dropped.reason)
            num_lines += parsed.num_lines
        table, id_keys, likeness_keys = rows.sort()
        for counted in table.column("source").value_counts().to_pylist():
            steps[1].keep(counted["values"], counted["counts"])
        self._config.runs.write(chunk.number, table)
        faults.sort(key=itemgetter(0))
        dropped_lines = [number for number, _ in faults]
        return Scanned(
            num_lines, id_keys, likeness_keys, dropped_table(dropped for _, dropped in faults), dropped_lines, steps
        )

    def _add(self, parsed: ParsedLines, rows: _Rows) -> Iterator[tuple[int, Dropped]]:
        """Add the records whose images can be used, and yield the others with their lines' numbers."""
        images = set(map(_get_image, parsed.records)) - {None}
        facts = {image: self._describe(image) for image in images if image is not None}
        records, keys = parsed.records, parsed.word_keys
        faults = {image: found for image, found in facts.items() if isinstance(found, RecordError)}
        if faults:
            is_usable = [record.image not in faults for record in records]
            for number, record in zip(parsed.numbers, records, strict=True):
                if record.image in faults:
                    fault = faults[record.image]
                    yield number, Dropped(record.id, record.source, fault.reason, str(fault))
            records, keys = list(compress(records, is_usable)), keys[is_usable]
        usable = {image: found for image, found in facts.items() if not isinstance(found, RecordError)}
        rows.add(records, usable, keys, same_hash_only=self._config.same_hash_only)

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
    """The usable records of a chunk."""

    def __init__(self, categories: dict[str, str]) -> None:
        self._categories = categories
        self._tables: list[pa.Table] = []
        self._id_keys: list[UInt64[np.ndarray, " rows"]] = []
        self._likeness_keys: list[UInt64[np.ndarray, " rows"]] = []

    def add(
        self,
        records: Sequence[DecodedLine],
        facts: dict[str, ImageFacts],
        word_keys: UInt64[np.ndarray, " rows"],
        *,
        same_hash_only: bool,
    ) -> None:
        """Add some records; `facts` describes their images."""
        import pyarrow as pa

        ids, sources = [record.id for record in records], list(map(_get_source, records))
        images = list(map(_get_image, records))
        conversations = [record.conversations for record in records]
        digests = {image: found.digest for image, found in facts.items()}
        hashes = {image: found.hash for image, found in facts.items()} | {None: b""}
        texts = [turn.value for turns in conversations for turn in turns]
        columns = {
            "id": pa.array(ids, pa.string()),
            "source": pa.array(sources, pa.string()),
            "category": pa.array(map(self._categories.__getitem__, sources), pa.string()),
            "image": pa.array(images, pa.string()),
            "texts": texts_array(texts, list(map(len, conversations))),
            "digest": pa.array(map(digests.get, images), pa.string()),
            "hash": pa.array(map(hashes.__getitem__, images), pa.binary()),
        }
        self._tables.append(pa.table(columns))
        self._id_keys.append(_hash_all(map(str.encode, ids)))
        looks = {image: xxhash.xxh3_64_intdigest(found if same_hash_only else b"") for image, found in hashes.items()}
        looks[None] = 1
        self._likeness_keys.append(word_keys ^ np.fromiter(map(looks.__getitem__, images), np.uint64, len(images)))

    def sort(self) -> tuple[pa.Table, UInt64[np.ndarray, " rows"], UInt64[np.ndarray, " rows"]]:
        """The rows in the order of ids, and their keys."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self._tables:
            self.add([], {}, np.zeros(0, np.uint64), same_hash_only=True)
        table = pa.concat_tables(self._tables).combine_chunks()
        order = pc.sort_indices(table.column("id"))
        rows = order.to_numpy()
        return table.take(order), np.concatenate(self._id_keys)[rows], np.concatenate(self._likeness_keys)[rows]


def _hash_all(values: Iterable[bytes]) -> UInt64[np.ndarray, " values"]:
    return np.frombuffer(b"".join(map(xxhash.xxh3_64_digest, values)), ">u8").astype(np.uint64)


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
