"""Curate a mix: which records of a clean pool a training phase sees, and in which order."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.format_prompts import add_format_prompt, read_format_prompt_table
from cambrian.data.ledger import Dropped, Ledger, write_dropped
from cambrian.data.mixes import parts_of_sources, plan_quotas, rank, select_ids
from cambrian.data.records import read_records, write_records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.data.format_prompts import FormatPromptsConfig
    from cambrian.data.mixes import MixRow, Quota
    from cambrian.interfaces import Record

_log = logging.getLogger("cambrian")


def curate_mix(
    row: MixRow,
    *,
    name: str,
    samples_per_record: int,
    seed: int,
    format_prompts: FormatPromptsConfig,
    pool: Path,
    output: Path,
) -> None:
    """Write the records that a row of `mixes` selects from a clean pool, what it left out, and the ledger.

    Whether a record is taken, and its place, follow from its id, the seed and how many of its part are wanted: records
    with the lowest hash are taken, so a smaller mix lies within a larger one and the pool's order does not matter.
    Where a part has fewer records than wanted, all are taken, the shortfall stands in the ledger, and no other part
    fills it.

    Raises:
        ArtifactError: the pool is incomplete.
        ParamsError: the row names a source or category that the pool does not have, or percents that are no whole.
    """
    read_manifest(pool)
    sources: dict[str, Any] = read_json(pool / "sources.json")
    records = read_records(pool / "records.parquet")
    quotas = plan_quotas(row.select, sources, samples_per_record=samples_per_record, where=f"mixes.{name}.select")
    part_of = parts_of_sources(row.select, sources)
    ledger = Ledger()
    taken = _take_records(records, quotas, part_of, seed, ledger)
    parts = _describe_parts(quotas, records, taken, part_of)
    if row.format_prompts:
        table = read_format_prompt_table()
        taken = [add_format_prompt(record, table, format_prompts) for record in taken]

    with write_folder(output, mix=name, num_records=len(taken)) as folder:
        categories = {source: facts["category"] for source, facts in sources.items()}
        write_records(folder / "records.parquet", taken, categories)
        write_dropped(folder / "dropped.parquet", sorted(ledger.dropped, key=lambda dropped: dropped.id))
        write_json(folder / "ledger.json", {"mix": name, "steps": ledger.to_json(), "parts": parts})
    for part, facts in parts.items():
        if facts["shortfall"]:
            _log.warning("mix %s: %s has %d of %d records", name, part, facts["taken"], facts["limit"])
    _log.info("mix %s: %d of %d records", name, len(taken), len(records))


def _take_records(
    records: Sequence[Record], quotas: Sequence[Quota], part_of: Mapping[str, str], seed: int, ledger: Ledger
) -> list[Record]:
    """The records that the quotas take, in the mix's order."""
    taken_ids = select_ids(quotas, {record.id: part_of[record.source] for record in records}, seed=seed)
    limits = {quota.part: quota.limit for quota in quotas}
    step = ledger.start("select")
    taken = []
    for record in records:
        part = part_of[record.source]
        if record.id in taken_ids:
            step.keep(record.source)
            taken.append(record)
        elif part in limits:
            ledger.drop(Dropped(record.id, record.source, "over-limit", f"the mix takes {limits[part]} of {part}"))
        else:
            ledger.drop(Dropped(record.id, record.source, "not-in-mix", ""))
    # Not by the selection's hash: a capped source keeps its low hashes, a small one all of its own.
    return sorted(taken, key=lambda record: rank(record.id, seed, "order"))


def _describe_parts(
    quotas: Sequence[Quota], records: Sequence[Record], taken: Sequence[Record], part_of: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    available = Counter(part_of[record.source] for record in records)
    num_taken = Counter(part_of[record.source] for record in taken)
    return {
        quota.part: {
            "available": available[quota.part],
            "limit": quota.limit,
            "taken": num_taken[quota.part],
            "shortfall": (quota.limit or 0) - num_taken[quota.part] if quota.is_target else 0,
        }
        for quota in quotas
    }
