"""Validate a mix: a gate between curation and training, with a verdict for the next stage and a report for a person."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.duplicates import HashIndex, content_key, text_key
from cambrian.data.expectations import check_expectations, list_expectations
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.leakage import find_leakage
from cambrian.data.mixes import plan_quotas
from cambrian.data.records import read_records
from cambrian.data.shards import ImageStore
from cambrian.data.validation_report import write_report
from cambrian.interfaces import IMAGE_PLACEHOLDER, ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.data.expectations import Outcome, ValidationConfig
    from cambrian.data.leakage import Leakage
    from cambrian.data.mixes import MixRow, Quota
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
    report: Path,
) -> None:
    """Check a mix against what its row asks for, its images, and the benchmarks; write the verdict and the report.

    The verdict and the report say the same in the same bytes each time. When the gate fails, the report stays in
    logs/validation/, and there is no verdict, so nothing is trained on the mix.

    Raises:
        ArtifactError: an expectation is not met; the message says which, and what was observed.
    """
    read_manifest(data)
    records = read_records(data / "records.parquet")
    categories = {source: facts["category"] for source, facts in read_json(pool / "sources.json").items()}
    images = _read_images(records, ImageStore(pool), config)
    leakage = find_leakage(
        {image: facts.hash for image, facts in images.items() if isinstance(facts, ImageFacts)},
        benchmarks,
        hash_side=config.hash_side,
        max_distance=config.max_hash_distance,
    )
    file = _read_columns(data / "records.parquet")
    parts, whole = _describe_parts(
        records,
        plan_quotas(
            row.select,
            read_json(pool / "sources.json"),
            samples_per_record=samples_per_record,
            where=f"mixes.{name}.select",
        ),
        {source: categories[source] if row.select.kind == "ratio" else source for source in categories},
        read_json(data / "ledger.json"),
    )
    frames = {
        "file": file,
        "records": {
            **_describe_records(records, images, leakage, categories, config.max_hash_distance),
            **{f"stored_{name}": column for name, column in file.items() if name == "category"},
        },
        "turns": _describe_turns(records),
        "parts": parts,
        "whole": {**whole, "leaked_share": [leakage.found_share]},
    }
    outcomes = check_expectations(frames, list_expectations(config))
    summary = _summarise(name, outcomes, leakage, records, categories)
    _close_gate_on_failure(name, outcomes, summary)
    with write_folder(report, mix=name) as folder:
        write_report(folder, summary)
    write_json(verdict, summary)
    _log.info(
        "mix %s: %d expectations met, %.1f%% of test images leaked", name, len(outcomes), 100 * leakage.found_share
    )


def _close_gate_on_failure(name: str, outcomes: Sequence[Outcome], summary: dict[str, Any]) -> None:
    """Keep the report of a failed gate and raise; after a passed one, remove what an earlier failure left."""
    failed = [outcome for outcome in outcomes if not outcome.success]
    kept_report = FAILED_REPORTS_DIR / name
    if not failed:
        shutil.rmtree(kept_report, ignore_errors=True)
        return
    with write_folder(kept_report, mix=name) as folder:
        write_report(folder, summary)
    faults = "; ".join(
        f"{outcome.name} ({outcome.frame}: expected {outcome.expected}, found {outcome.observed})" for outcome in failed
    )
    raise ArtifactError(
        f"mix {name} is not fit for training, {len(failed)} of {len(outcomes)} expectations are not met: {faults}. "
        f"Read {kept_report}/index.html, then mend the pool or mixes.{name}, or the limit in `validation` that is wrong"
    )


def _read_columns(path: Path) -> dict[str, list[Any]]:
    """The file as it is, whatever columns it has."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, use_threads=False)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _describe_parts(
    records: Sequence[Record], quotas: Sequence[Quota], part_of: Mapping[str, str], ledger: dict[str, Any]
) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    """One row per part of the mix with what is asked and what is there; and one row about all of them."""
    counts = Counter(part_of.get(record.source, record.source) for record in records)
    available = {part: facts["available"] for part, facts in ledger["parts"].items()}
    limits = {quota.part: available.get(quota.part, 0) if quota.limit is None else quota.limit for quota in quotas}
    targets = {quota.part: limits[quota.part] for quota in quotas if quota.is_target}
    num_short = sum(max(limit - available.get(part, 0), 0) for part, limit in targets.items())
    parts: dict[str, list[Any]] = {
        "part": list(limits),
        "limit": list(limits.values()),
        "taken": [counts[part] for part in limits],
        "expected": [min(limit, available.get(part, 0)) for part, limit in limits.items()],
    }
    whole: dict[str, list[Any]] = {
        "records_beside_parts": [len(records) - sum(parts["taken"])],
        "records_beside_ledger": [len(records) - ledger["steps"][-1]["out"]],
        "shortfall_share": [num_short / sum(targets.values()) if targets else 0.0],
    }
    return parts, whole


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


def _describe_records(
    records: Sequence[Record],
    images: Mapping[str, ImageFacts | RecordError],
    leakage: Leakage,
    categories: Mapping[str, str],
    max_distance: int,
) -> dict[str, list[Any]]:
    """One row per record, in the mix's order."""
    contradicted = _find_contradicted(records, images)
    alike: dict[str, HashIndex] = {}
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "id",
            "source",
            "category",
            "num_turns",
            "first_speaker",
            "last_speaker",
            "num_markers",
            "num_images",
            "image_fault",
            "content",
            "is_near_duplicate",
            "is_contradicted",
            "num_leaked_benchmarks",
        )
    }
    for record in records:
        facts = images[record.image] if record.image is not None else None
        digest = facts.digest if isinstance(facts, ImageFacts) else record.image
        image_hash = facts.hash if isinstance(facts, ImageFacts) else b""
        index = alike.setdefault(f"{len(image_hash)}/{text_key(record.turns)}", HashIndex(max_distance))
        row = {
            "id": record.id,
            "source": record.source,
            "category": categories.get(record.source, "(unknown)"),
            "num_turns": len(record.turns),
            "first_speaker": record.turns[0].speaker if record.turns else "(none)",
            "last_speaker": record.turns[-1].speaker if record.turns else "(none)",
            "num_markers": sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in record.turns),
            "num_images": int(record.image is not None),
            "image_fault": facts.reason if isinstance(facts, RecordError) else "",
            "content": content_key(record.turns, digest),
            "is_near_duplicate": bool(index.find(image_hash)),
            "is_contradicted": record.id in contradicted,
            "num_leaked_benchmarks": len(leakage.benchmarks_by_image.get(record.image or "", [])),
        }
        index.add(image_hash)
        for name, value in row.items():
            columns[name].append(value)
    return columns


def _describe_turns(records: Sequence[Record]) -> dict[str, list[Any]]:
    """One row per turn: who speaks, who should, and how long."""
    columns: dict[str, list[Any]] = {"id": [], "speaker": [], "expected_speaker": [], "num_characters": []}
    for record in records:
        for number, turn in enumerate(record.turns):
            columns["id"].append(record.id)
            columns["speaker"].append(turn.speaker)
            columns["expected_speaker"].append(("human", "gpt")[number % 2])
            columns["num_characters"].append(len(turn.text.replace(IMAGE_PLACEHOLDER, "").strip()))
    return columns


def _find_contradicted(records: Sequence[Record], images: Mapping[str, ImageFacts | RecordError]) -> set[str]:
    """Ids of records that give to a question about the same picture another answer than some record of the mix."""
    answers: dict[tuple[str, str], dict[str, list[str]]] = {}
    for record in records:
        facts = images[record.image] if record.image is not None else None
        if not isinstance(facts, ImageFacts):
            continue
        for question, answer in zip(record.turns[::2], record.turns[1::2], strict=False):
            asked = " ".join(question.text.replace(IMAGE_PLACEHOLDER, " ").lower().split())
            given = " ".join(answer.text.lower().split())
            answers.setdefault((facts.digest, asked), {}).setdefault(given, []).append(record.id)
    return {
        record_id
        for by_answer in answers.values()
        if len(by_answer) > 1
        for ids in by_answer.values()
        for record_id in ids
    }


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
