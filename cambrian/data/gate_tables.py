"""A pool or a mix, or a shard of one, as the tables that its expectations look at."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cambrian.interfaces import IMAGE_PLACEHOLDER, RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.data.image_facts import ImageFacts
    from cambrian.data.mixes import Quota
    from cambrian.interfaces import Record

Table = dict[str, list[Any]]
"""Columns of one length by name."""


def describe_parts(
    by_source: Mapping[str, int], quotas: Sequence[Quota], part_of: Mapping[str, str], ledger: Mapping[str, Any]
) -> tuple[Table, Table]:
    """One row per part of the mix, with what is asked and what is there; and one row about all of them.

    `by_source` counts the records of each source.
    """
    counts: Counter[str] = Counter()
    for source, count in by_source.items():
        counts[part_of.get(source, source)] += count
    num_records = counts.total()
    available = {part: facts["available"] for part, facts in ledger["parts"].items()}
    limits = {quota.part: available.get(quota.part, 0) if quota.limit is None else quota.limit for quota in quotas}
    targets = {quota.part: limits[quota.part] for quota in quotas if quota.is_target}
    num_short = sum(max(limit - available.get(part, 0), 0) for part, limit in targets.items())
    parts: Table = {
        "part": list(limits),
        "limit": list(limits.values()),
        "taken": [counts[part] for part in limits],
        "expected": [min(limit, available.get(part, 0)) for part, limit in limits.items()],
    }
    whole: Table = {
        "records_beside_parts": [num_records - sum(parts["taken"])],
        "records_beside_ledger": [num_records - ledger["steps"][-1]["out"]],
        "shortfall_share": [num_short / sum(targets.values()) if targets else 0.0],
    }
    return parts, whole


def describe_records(
    records: Sequence[Record], images: Mapping[str, ImageFacts | RecordError], categories: Mapping[str, str]
) -> Table:
    """One row per record, in the file's order."""
    faults = {name: facts.reason for name, facts in images.items() if isinstance(facts, RecordError)}
    return {
        "id": [record.id for record in records],
        "source": [record.source for record in records],
        "category": [categories.get(record.source, "(unknown)") for record in records],
        "num_turns": [len(record.turns) for record in records],
        "first_speaker": [record.turns[0].speaker if record.turns else "(none)" for record in records],
        "last_speaker": [record.turns[-1].speaker if record.turns else "(none)" for record in records],
        "num_markers": [sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in record.turns) for record in records],
        "num_images": [int(record.image is not None) for record in records],
        "image_fault": [faults.get(record.image or "", "") for record in records],
    }


def describe_turns(records: Sequence[Record]) -> Table:
    """One row per turn: who speaks, who should, and how long."""
    columns: Table = {"id": [], "speaker": [], "expected_speaker": [], "num_characters": []}
    for record in records:
        for number, turn in enumerate(record.turns):
            columns["id"].append(record.id)
            columns["speaker"].append(turn.speaker)
            columns["expected_speaker"].append(("human", "gpt")[number % 2])
            columns["num_characters"].append(len(turn.text.replace(IMAGE_PLACEHOLDER, "").strip()))
    return columns
