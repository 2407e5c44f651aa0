"""A mix as the tables that its expectations look at: one row per record, turn, part, and one about the whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from cambrian.data.duplicates import HashIndex, content_key, text_key
from cambrian.data.image_facts import ImageFacts
from cambrian.interfaces import IMAGE_PLACEHOLDER, RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.data.leakage import Leakage
    from cambrian.data.mixes import Quota
    from cambrian.interfaces import Record

Table = dict[str, list[Any]]
"""Columns of one length by name."""


def read_columns(path: Path) -> Table:
    """The file as it is, whatever columns it has."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, use_threads=False)
    return {name: table.column(name).to_pylist() for name in table.column_names}


def describe_parts(
    records: Sequence[Record], quotas: Sequence[Quota], part_of: Mapping[str, str], ledger: Mapping[str, Any]
) -> tuple[Table, Table]:
    """One row per part of the mix, with what is asked and what is there; and one row about all of them."""
    counts = Counter(part_of.get(record.source, record.source) for record in records)
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
        "records_beside_parts": [len(records) - sum(parts["taken"])],
        "records_beside_ledger": [len(records) - ledger["steps"][-1]["out"]],
        "shortfall_share": [num_short / sum(targets.values()) if targets else 0.0],
    }
    return parts, whole


def describe_records(
    records: Sequence[Record],
    images: Mapping[str, ImageFacts | RecordError],
    leakage: Leakage,
    categories: Mapping[str, str],
    max_distance: int,
) -> Table:
    """One row per record, in the mix's order."""
    contradicted = _find_contradicted(records, images)
    alike: dict[str, HashIndex] = {}
    columns: Table = {
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


def _find_contradicted(records: Sequence[Record], images: Mapping[str, ImageFacts | RecordError]) -> set[str]:
    """Ids of records with an answer that other records of the mix speak against.

    Where more than half of the records agree on the answer to a question (about one picture, or about none), those
    that answer otherwise are spoken against. Without such a majority, all are where the question is about one picture,
    which has one truth, and none where it is about none, as many texts have several good answers.
    """
    answers: dict[tuple[str, str], dict[str, set[str]]] = {}
    for record in records:
        facts = images[record.image] if record.image is not None else None
        if isinstance(facts, RecordError):
            continue
        picture = facts.digest if facts is not None else ""
        for question, answer in zip(record.turns[::2], record.turns[1::2], strict=False):
            asked = " ".join(question.text.replace(IMAGE_PLACEHOLDER, " ").lower().split())
            given = " ".join(answer.text.lower().split())
            answers.setdefault((picture, asked), {}).setdefault(given, set()).add(record.id)
    contradicted: set[str] = set()
    for (picture, _), ids_by_answer in answers.items():
        all_ids = set().union(*ids_by_answer.values())
        majority = [ids for ids in ids_by_answer.values() if 2 * len(ids) > len(all_ids)]
        if len(ids_by_answer) > 1 and (majority or picture):
            contradicted |= all_ids.difference(*majority)
    return contradicted
