"""Validate a pool: a gate between cleaning and curation, as validation.py is between curation and training."""

from __future__ import annotations

import logging
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.expectations import Gate, list_pool_expectations
from cambrian.data.leakage import LeakageFinder
from cambrian.data.mixes import num_records
from cambrian.data.record_checks import FAILED_REPORTS_DIR, check_records, stop_at_failure, summarise
from cambrian.data.shards import ImageStore
from cambrian.data.validation_report import write_report
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.data.expectations import ValidationConfig
    from cambrian.data.gate_tables import Table

_log = logging.getLogger("cambrian")


def validate_pool(
    config: ValidationConfig,
    *,
    name: str,
    samples_per_record: int,
    pool: Path,
    clean: Path,
    benchmarks: Path,
    verdict: Path,
    report: Path,
) -> None:
    """Check a clean pool against its ledger, its sources as published, its images and the benchmarks.

    Writes the verdict and the report, the same bytes each time. When the gate fails, the report stays in
    logs/validation/pools/, and there is no verdict, so nothing is curated from the pool.

    Raises:
        ArtifactError: an expectation is not met; the message says which, and what was observed.
    """
    read_manifest(clean)
    sources: dict[str, Any] = read_json(clean / "sources.json")
    categories = {source: facts["category"] for source, facts in sources.items()}
    finder = LeakageFinder(benchmarks, hash_side=config.hash_side, max_distance=config.max_hash_distance)
    gate = Gate(list_pool_expectations(config))
    path = clean / "records.parquet"
    found = check_records(path, config=config, categories=categories, store=ImageStore(pool), finder=finder, gate=gate)
    leakage = finder.finish()
    dropped = count_by_source(clean / "dropped.parquet")
    gate.check("sources", describe_sources(found.by_source, dropped, read_json(clean / "ledger.json")["steps"]))
    gate.check("categories", describe_categories(found.by_source, sources))
    missing_share = find_missing_share(found.by_source, sources, samples_per_record)
    gate.check("whole", {"missing_share": [missing_share], "leaked_share": [leakage.found_share]})
    outcomes = gate.list_outcomes()
    summary = {"pool": name, **summarise(outcomes, leakage, found, categories)}
    title = f"pool {name} is {{}} for curation"
    kept_report = FAILED_REPORTS_DIR / "pools" / name
    stop_at_failure(outcomes, summary, title=title, kept_report=kept_report, remedy=f"the source or pools.{name}")
    with write_folder(report, pool=name) as folder:
        write_report(folder, summary, title)
    write_json(verdict, summary)
    _log.info(
        "pool %s: %d expectations met, %.1f%% of test images leaked", name, len(outcomes), 100 * leakage.found_share
    )


def count_by_source(path: Path) -> Counter[str]:
    """How many rows a file of dropped records has of each source, read a row group at a time.

    Raises:
        ArtifactError: the file is missing, or has no sources.
    """
    import pyarrow as pa
    from pyarrow import parquet

    counts: Counter[str] = Counter()
    try:
        file = parquet.ParquetFile(path)
        for group in range(file.num_row_groups):
            column = file.read_row_group(group, columns=["source"]).column("source")
            for entry in column.value_counts().to_pylist():
                counts[entry["values"]] += entry["counts"]
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ArtifactError(f"{path} has no list of dropped records ({error}): run the stage clean again") from error
    return counts


def describe_sources(kept: Mapping[str, int], dropped: Mapping[str, int], steps: Sequence[Mapping[str, Any]]) -> Table:
    """One row per source: what the ledger's `steps` say of it, and what the files hold."""
    counted_in = {source: counts["in"] for source, counts in steps[0]["sources"].items()}
    counted_out = {source: counts["out"] for source, counts in steps[-1]["sources"].items()}
    counted_dropped: Counter[str] = Counter()
    for step in steps:
        for source, counts in step["sources"].items():
            counted_dropped[source] += sum(counts["dropped"].values())
    names = sorted({*counted_in, *counted_out, *kept, *dropped})
    return {
        "source": names,
        "counted_in": [counted_in.get(name, 0) for name in names],
        "accounted": [counted_out.get(name, 0) + counted_dropped[name] for name in names],
        "kept": [kept.get(name, 0) for name in names],
        "counted_out": [counted_out.get(name, 0) for name in names],
        "dropped": [dropped.get(name, 0) for name in names],
        "counted_dropped": [counted_dropped[name] for name in names],
    }


def describe_categories(kept: Mapping[str, int], sources: Mapping[str, Mapping[str, Any]]) -> Table:
    """One row per category: by how much its share of the records differs from that of its sources as published."""
    found: Counter[str] = Counter()
    published: Counter[str] = Counter()
    for source, facts in sources.items():
        found[facts["category"]] += kept.get(source, 0)
        published[facts["category"]] += facts["published_thousands"]
    names = sorted(published)
    num_found, num_published = max(found.total(), 1), sum(published.values()) or 1
    deviations = [abs(found[name] / num_found - published[name] / num_published) for name in names]
    return {"category": names, "deviation": deviations if found.total() else [0.0] * len(names)}


def find_missing_share(
    kept: Mapping[str, int], sources: Mapping[str, Mapping[str, Any]], samples_per_record: int
) -> float:
    """How much of what was published is not there: records that stand for the published samples of each source."""
    expected = {
        source: num_records(round(Decimal(str(facts["published_thousands"])) * 1000), samples_per_record)
        for source, facts in sources.items()
    }
    num_missing = sum(max(count - kept.get(source, 0), 0) for source, count in expected.items())
    return num_missing / sum(expected.values()) if num_missing else 0.0
