"""Validate a mix: a gate between curation and training, with a verdict for the next stage and a report for a person."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.comparisons import Comparison
from cambrian.data.expectations import Gate, list_expectations
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.leakage import LeakageFinder, write_leakage
from cambrian.data.mix_tables import describe_parts, describe_records, describe_turns
from cambrian.data.mixes import parts_of_sources, plan_quotas
from cambrian.data.record_tables import count_row_groups, iter_row_groups, read_column_names, read_empty
from cambrian.data.records import table_records
from cambrian.data.shards import ImageStore
from cambrian.data.validation_report import write_report
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pyarrow as pa

    from cambrian.data.comparisons import Compared
    from cambrian.data.expectations import Outcome, ValidationConfig
    from cambrian.data.leakage import Leakage
    from cambrian.data.mixes import MixRow
    from cambrian.interfaces import Record

FAILED_REPORTS_DIR = Path("logs/validation")
"""Where the report of a failed gate is kept; the stage's own outs do not survive a failure."""

_NUM_REMEMBERED_IMAGES = 50_000
_log = logging.getLogger("cambrian")


def validate_mix(
    config: ValidationConfig,
    row: MixRow,
    *,
    name: str,
    samples_per_record: int,
    data: Path,
    pool: Path,
    benchmarks: Path,
    verdict: Path,
    leaked: Path,
    report: Path,
) -> None:
    """Check a mix against what its row asks for, its images, and the benchmarks; write the verdict and the report.

    `leaked` gets one row per picture of the benchmarks, so that evaluation can score the clean ones apart.
    The verdict and the report say the same in the same bytes each time. When the gate fails, the report stays in
    logs/validation/, and there is no verdict, so nothing is trained on the mix.

    Raises:
        ArtifactError: an expectation is not met; the message says which, and what was observed.
    """
    read_manifest(data)
    path = data / "records.parquet"
    sources = read_json(pool / "sources.json")
    categories = {source: facts["category"] for source, facts in sources.items()}
    finder = LeakageFinder(benchmarks, hash_side=config.hash_side, max_distance=config.max_hash_distance)
    images = _Images(ImageStore(pool), config)
    gate = Gate(list_expectations(config))
    gate.check("file", {name: [] for name in read_column_names(path)})
    found = _Found()
    comparison = Comparison(config.max_hash_distance)
    for shard in _iter_shards(path):
        _check_shard(shard, categories, images, finder, comparison, gate, found)
    _check_comparison(path, comparison.finish(), images, gate)
    leakage = finder.finish()
    parts, whole = describe_parts(
        found.by_source,
        plan_quotas(row.select, sources, samples_per_record=samples_per_record, where=f"mixes.{name}.select"),
        parts_of_sources(row.select, sources),
        read_json(data / "ledger.json"),
    )
    gate.check("parts", parts)
    gate.check("whole", {**whole, "leaked_share": [leakage.found_share]})
    outcomes = gate.list_outcomes()
    summary = _summarise(name, outcomes, leakage, found, categories)
    _keep_report_of_failure(name, outcomes, summary)
    with write_folder(report, mix=name) as folder:
        write_report(folder, summary)
    write_leakage(leaked, leakage)
    write_json(verdict, summary)
    _log.info(
        "mix %s: %d expectations met, %.1f%% of test images leaked", name, len(outcomes), 100 * leakage.found_share
    )


def _keep_report_of_failure(name: str, outcomes: Sequence[Outcome], summary: dict[str, Any]) -> None:
    """Keep the report of a failed gate and raise; after a passed one, remove what an earlier failure left."""
    failed = [outcome for outcome in outcomes if not outcome.success]
    kept_report = FAILED_REPORTS_DIR / name
    if not failed:
        shutil.rmtree(kept_report, ignore_errors=True)
        return
    with write_folder(kept_report, mix=name) as folder:
        write_report(folder, summary)
    faults = "; ".join(
        f"{outcome.name} ({outcome.table}: expected {outcome.expected}, found {outcome.observed})" for outcome in failed
    )
    raise ArtifactError(
        f"mix {name} is not fit for training, {len(failed)} of {len(outcomes)} expectations are not met: {faults}. "
        f"Read {kept_report}/index.html, then mend the pool or mixes.{name}, or the limit in `validation` that is wrong"
    )


@dataclass(slots=True)
class _Found:
    """What is counted on the way through a mix."""

    by_source: Counter[str] = field(default_factory=Counter)
    num_turns: int = 0
    image_keys: set[int] = field(default_factory=set)
    """A 64-bit hash of each different image's name."""
    leaked: list[tuple[str, str, str]] = field(default_factory=list)
    """Id, source and image of records whose image looks like a test image."""


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
    """The mix in row groups; an empty one where it has none."""
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
    found: _Found,
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


def _summarise(
    name: str,
    outcomes: Sequence[Outcome],
    leakage: Leakage,
    found: _Found,
    categories: Mapping[str, str],
) -> dict[str, Any]:
    """The verdict: everything that the gate found, in a form that is the same in every run."""
    leaked = [
        {"id": record_id, "source": source, "benchmarks": leakage.benchmarks_by_image[image]}
        for record_id, source, image in sorted(found.leaked, key=itemgetter(0))
    ]
    return {
        "mix": name,
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
