"""Validate a mix: a gate between curation and training, with a verdict for the next stage and a report for a person."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.expectations import Gate, list_mix_expectations
from cambrian.data.gate_tables import describe_parts
from cambrian.data.leakage import LeakageFinder, write_leakage
from cambrian.data.mixes import parts_of_sources, plan_quotas
from cambrian.data.record_checks import FAILED_REPORTS_DIR, check_records, stop_at_failure, summarise
from cambrian.data.shards import ImageStore
from cambrian.data.validation_report import write_report

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.data.expectations import ValidationConfig
    from cambrian.data.mixes import MixRow

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
    sources = read_json(pool / "sources.json")
    categories = {source: facts["category"] for source, facts in sources.items()}
    finder = LeakageFinder(benchmarks, hash_side=config.hash_side, max_distance=config.max_hash_distance)
    gate = Gate(list_mix_expectations(config))
    found = check_records(
        data / "records.parquet", config=config, categories=categories, store=ImageStore(pool), finder=finder, gate=gate
    )
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
    summary = {"mix": name, **summarise(outcomes, leakage, found, categories)}
    title = f"mix {name} is {{}} for training"
    stop_at_failure(
        outcomes, summary, title=title, kept_report=FAILED_REPORTS_DIR / name, remedy=f"the pool or mixes.{name}"
    )
    with write_folder(report, mix=name) as folder:
        write_report(folder, summary, title)
    write_leakage(leaked, leakage)
    write_json(verdict, summary)
    _log.info(
        "mix %s: %d expectations met, %.1f%% of test images leaked", name, len(outcomes), 100 * leakage.found_share
    )
