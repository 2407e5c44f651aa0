"""What the gates of pools and mixes share: records judged shard by shard and against one another, and the verdict."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from cambrian.artifacts import write_folder
from cambrian.data.comparisons import Comparison
from cambrian.data.gate_tables import describe_records, describe_turns
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.record_tables import count_row_groups, iter_row_groups, read_column_names, read_empty
from cambrian.data.records import table_records
from cambrian.data.validation_report import write_report
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from cambrian.data.comparisons import Compared
    from cambrian.data.expectations import Gate, Outcome, ValidationConfig
    from cambrian.data.leakage import Leakage, LeakageFinder
    from cambrian.data.shards import ImageStore
    from cambrian.interfaces import Record

FAILED_REPORTS_DIR = Path("logs/validation")
"""Where the report of a failed gate is kept; the stage's own outs do not survive a failure."""

_NUM_REMEMBERED_IMAGES = 50_000


@dataclass(slots=True)
class Found:
    """What is counted on the way through a file of records."""

    by_source: Counter[str] = field(default_factory=Counter)
    num_turns: int = 0
    image_keys: set[int] = field(default_factory=set)
    """A 64-bit hash of each different image's name."""
    leaked: list[tuple[str, str, str]] = field(default_factory=list)
    """Id, source and image of records whose image looks like a test image."""


def check_records(
    path: Path,
    *,
    config: ValidationConfig,
    categories: Mapping[str, str],
    store: ImageStore,
    finder: LeakageFinder,
    gate: Gate,
) -> Found:
    """Let the gate judge a file's columns, its records and turns, and what they are to one another.

    `categories` has the category of each source, `store` the images; `finder` compares these with the benchmarks'.
    Memory holds a shard, the last images' facts and some sixty bytes of each record.
    """
    images = _Images(store, config)
    found = Found()
    comparison = Comparison(config.max_hash_distance)
    gate.check("file", {name: [] for name in read_column_names(path)})
    for shard in _iter_shards(path):
        _check_shard(shard, categories, images, finder, comparison, gate, found)
    _check_comparison(path, comparison.finish(), images, gate)
    return found


def summarise(
    outcomes: Sequence[Outcome], leakage: Leakage, found: Found, categories: Mapping[str, str]
) -> dict[str, Any]:
    """The verdict: everything that a gate found, in a form that is the same in every run."""
    leaked = [
        {"id": record_id, "source": source, "benchmarks": leakage.benchmarks_by_image[image]}
        for record_id, source, image in sorted(found.leaked, key=itemgetter(0))
    ]
    return {
        "success": all(outcome.success for outcome in outcomes),
        "records": found.by_source.total(),
        "turns": found.num_turns,
        "images": len(found.image_keys),
        "sources": {
            source: {"category": categories.get(source, "(unknown)"), "records": count}
            for source, count in sorted(found.by_source.items())
        },
        "expectations": [outcome.to_json() for outcome in outcomes],
        "leakage": {
            "found_share": leakage.found_share,
            "benchmarks": {
                benchmark: {"images": count, "found": leakage.num_found[benchmark]}
                for benchmark, count in sorted(leakage.num_images.items())
            },
            "records": leaked,
        },
    }


def stop_at_failure(
    outcomes: Sequence[Outcome], summary: dict[str, Any], *, title: str, kept_report: Path, remedy: str
) -> None:
    """Keep the report of a failed gate and raise; after a passed one, remove what an earlier failure left.

    `title` names what was judged and says what it should be fit for, `kept_report` is where a failure's report stays,
    and `remedy` says what may be changed.

    Raises:
        ArtifactError: an expectation is not met; the message says which, and what was observed.
    """
    failed = [outcome for outcome in outcomes if not outcome.success]
    if not failed:
        shutil.rmtree(kept_report, ignore_errors=True)
        return
    with write_folder(kept_report) as folder:
        write_report(folder, summary, title)
    faults = "; ".join(
        f"{outcome.name} ({outcome.table}: expected {outcome.expected}, found {outcome.observed})" for outcome in failed
    )
    raise ArtifactError(
        f"{title.format('not fit')}, {len(failed)} of {len(outcomes)} expectations are not met: {faults}. "
        f"Read {kept_report}/index.html, then mend {remedy}, or the limit in `validation` that is wrong"
    )


class _Images:
    """The facts of a pool's images; the last ones are remembered."""

    def __init__(self, store: ImageStore, config: ValidationConfig) -> None:
        self._store = store
        self._config = config
        self._describe = lru_cache(_NUM_REMEMBERED_IMAGES)(self._describe_image)

    def describe(self, records: Iterable[Record]) -> dict[str, ImageFacts | RecordError]:
        """The facts of the images of some records by name, or why one cannot be used."""
        names = sorted({record.image for record in records if record.image is not None})
        return {name: self._describe(name) for name in names}

    def _describe_image(self, name: str) -> ImageFacts | RecordError:
        config = self._config
        try:
            return describe_image(
                self._store.read(name), name=name, hash_side=config.hash_side, min_side=config.min_image_side
            )
        except RecordError as error:
            return RecordError(error.reason, str(error))  # what is remembered keeps no table alive


def _iter_shards(path: Path) -> Iterator[pa.Table]:
    """The file in row groups; an empty one where it has none."""
    yield from iter_row_groups(path)
    if not count_row_groups(path):
        yield read_empty(path)


def _check_shard(
    shard: pa.Table,
    categories: Mapping[str, str],
    images: _Images,
    finder: LeakageFinder,
    comparison: Comparison,
    gate: Gate,
    found: Found,
) -> None:
    """Judge what can be judged of a shard alone, and remember of it what is needed to compare it with the others."""
    records = table_records(shard)
    facts = images.describe(records)
    leaked = finder.add({image: known.hash for image, known in facts.items() if isinstance(known, ImageFacts)})
    found.leaked += [(record.id, record.source, record.image) for record in records if record.image in leaked]
    found.by_source.update(record.source for record in records)
    found.num_turns += sum(len(record.turns) for record in records)
    found.image_keys.update(xxhash.xxh3_64_intdigest(name.encode()) for name in facts)
    stored = {f"stored_{name}": shard.column(name).to_pylist() for name in shard.column_names if name == "category"}
    gate.check("records", {**describe_records(records, facts, categories), **stored})
    gate.check("turns", describe_turns(records))
    comparison.add(records, facts)


def _check_comparison(path: Path, compared: Compared, images: _Images, gate: Gate) -> None:
    """Judge what follows from comparing each record with all others; those that share something are read again."""
    import pyarrow as pa

    start = 0
    sizes = []
    for shard in _iter_shards(path):
        rows = compared.rows(start, start + shard.num_rows)
        records = table_records(shard.take(pa.array(rows, pa.int64())))
        facts = images.describe(records)
        for row, record in zip(rows, records, strict=True):
            compared.look(start + row, record, facts)
        start += shard.num_rows
        sizes.append(shard.num_rows)
    gate.check("records", {"id": compared.ids}, "same id", num_others=start - len(compared.ids))
    gate.check("records", {"content": compared.contents}, "same content", num_others=start - len(compared.contents))
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        columns = {name: getattr(compared, name)[end - size : end] for name in ("is_near_duplicate", "is_contradicted")}
        gate.check("records", columns, "compared")
