"""Validate a mix: a gate between curation and training, with a verdict for the next stage and a report for a person."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.expectations import check_expectations, list_expectations
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.leakage import find_leakage, write_leakage
from cambrian.data.mix_tables import describe_parts, describe_records, describe_turns, read_columns
from cambrian.data.mixes import parts_of_sources, plan_quotas
from cambrian.data.records import read_records
from cambrian.data.shards import ImageStore
from cambrian.data.validation_report import write_report
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.data.expectations import Outcome, ValidationConfig
    from cambrian.data.leakage import Leakage
    from cambrian.data.mixes import MixRow
    from cambrian.interfaces import Record

FAILED_REPORTS_DIR = Path("logs/validation")
"""Where the report of a failed gate is kept; the stage's own outs do not survive a failure."""

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
    records = read_records(data / "records.parquet")
    sources = read_json(pool / "sources.json")
    images = _read_images(records, ImageStore(pool), config)
    leakage = find_leakage(
        {image: facts.hash for image, facts in images.items() if isinstance(facts, ImageFacts)},
        benchmarks,
        hash_side=config.hash_side,
        max_distance=config.max_hash_distance,
    )
    columns = read_columns(data / "records.parquet")
    categories = {source: facts["category"] for source, facts in sources.items()}
    parts, whole = describe_parts(
        records,
        plan_quotas(row.select, sources, samples_per_record=samples_per_record, where=f"mixes.{name}.select"),
        parts_of_sources(row.select, sources),
        read_json(data / "ledger.json"),
    )
    tables = {
        "file": columns,
        "records": {
            **describe_records(records, images, leakage, categories, config.max_hash_distance),
            **{f"stored_{column}": values for column, values in columns.items() if column == "category"},
        },
        "turns": describe_turns(records),
        "parts": parts,
        "whole": {**whole, "leaked_share": [leakage.found_share]},
    }
    outcomes = check_expectations(tables, list_expectations(config))
    summary = _summarise(name, outcomes, leakage, records, categories)
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


def _read_images(
    records: Sequence[Record], store: ImageStore, config: ValidationConfig
) -> dict[str, ImageFacts | RecordError]:
    facts: dict[str, ImageFacts | RecordError] = {}
    for name in sorted({record.image for record in records if record.image is not None}):
        try:
            facts[name] = describe_image(
                store.read(name), name=name, hash_side=config.hash_side, min_side=config.min_image_side
            )
        except RecordError as error:
            facts[name] = error
    return facts


def _summarise(
    name: str,
    outcomes: Sequence[Outcome],
    leakage: Leakage,
    records: Sequence[Record],
    categories: Mapping[str, str],
) -> dict[str, Any]:
    """The verdict: everything that the gate found, in a form that is the same in every run."""
    leaked = [
        {"id": record.id, "source": record.source, "benchmarks": leakage.benchmarks_by_image[record.image]}
        for record in sorted(records, key=lambda record: record.id)
        if record.image in leakage.benchmarks_by_image
    ]
    per_source = Counter(record.source for record in records)
    return {
        "mix": name,
        "success": all(outcome.success for outcome in outcomes),
        "records": len(records),
        "turns": sum(len(record.turns) for record in records),
        "images": len({record.image for record in records if record.image is not None}),
        "sources": {
            source: {"category": categories.get(source, "(unknown)"), "records": count}
            for source, count in sorted(per_source.items())
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
