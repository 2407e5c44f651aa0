"""Curation as a plain script does it: every line through json, everything in lists and dicts, one process.

The same rules as `cambrian.data.cleaning` and `cambrian.data.curation`, and so the same records in the same order.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from cambrian.data.image_facts import describe_image
from cambrian.data.mixes import divide_total
from cambrian.data.records import records_schema
from cambrian.data.shards import ImageStore
from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.data.mixes import SelectRatio


def curate(pool: Path, output: Path, select: SelectRatio, *, seed: int, hash_side: int, min_side: int) -> Counter[str]:
    """Write the mix of a pool as Parquet; returns how many lines were dropped for which reason."""
    sources = json.loads((pool / "sources.json").read_text(encoding="utf-8"))
    dropped: Counter[str] = Counter()
    records = sorted(
        read_usable(pool, sources, dropped, hash_side, min_side), key=lambda record: (record["id"], record["source"])
    )
    unique = drop_copies(records, dropped)
    by_source: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in sorted(unique, key=lambda record: rank(record["id"], seed, "select")):
        if len(by_source[record["source"]]) < (select.max_per_source or 0):
            by_source[record["source"]].append(record)
        else:
            dropped["over-cap"] += 1
    by_category: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for source, members in by_source.items():
        by_category[sources[source]["category"]] += members
    taken = []
    for category, amount in divide_total(select.total, select.percent).items():
        members = sorted(by_category[category], key=lambda record: rank(record["id"], seed, "select"))
        taken += members[:amount]
    taken.sort(key=lambda record: rank(record["id"], seed, "order"))
    rows = [record | {"category": sources[record["source"]]["category"]} for record in taken]
    pq.write_table(pa.Table.from_pylist(rows, schema=records_schema()), output, compression="zstd")
    return dropped


def read_usable(
    pool: Path, sources: dict[str, Any], dropped: Counter[str], hash_side: int, min_side: int
) -> list[dict[str, Any]]:
    """The records that can be used, with the digest and hash of their image."""
    store = ImageStore(pool)
    facts: dict[str, tuple[str, bytes] | None] = {}
    usable = []
    with (pool / "records.jsonl").open("rb") as file:
        for line in file:
            try:
                record = json.loads(line)
                turns = record["conversations"]
                texts = [turn["value"] for turn in turns]
                speakers = [turn["from"] for turn in turns]
            except (ValueError, KeyError, TypeError):
                dropped["unreadable"] += 1
                continue
            image = record.get("image")
            if (
                not turns
                or speakers != ["human", "gpt"] * (len(turns) // 2)
                or record["source"] not in sources
                or not all(text.strip() for text in texts)
                or sum(text.count("<image>") for text in texts) != (image is not None)
            ):
                dropped["unfit"] += 1
                continue
            if image is not None and image not in facts:
                try:
                    found = describe_image(store.read(image), name=image, hash_side=hash_side, min_side=min_side)
                    facts[image] = found.digest, found.hash
                except RecordError:
                    facts[image] = None
            if image is not None and facts[image] is None:
                dropped["image"] += 1
                continue
            record["facts"] = facts[image] if image is not None else ("", b"")
            usable.append(record)
    return usable


def drop_copies(records: list[dict[str, Any]], dropped: Counter[str]) -> list[dict[str, Any]]:
    """The first of equal records and of records that look and read alike."""
    ids, contents, unique = set(), set(), []
    for record in records:
        digest, _ = record["facts"]
        content = (digest, *(turn["value"] for turn in record["conversations"]))
        if record["id"] in ids or content in contents:
            dropped["exact"] += 1
            continue
        ids.add(record["id"])
        contents.add(content)
        unique.append(record)
    likenesses, kept = set(), []
    for record in unique:
        _, image_hash = record["facts"]
        likeness = (image_hash, *(" ".join(turn["value"].lower().split()) for turn in record["conversations"]))
        if likeness in likenesses:
            dropped["near"] += 1
            continue
        likenesses.add(likeness)
        kept.append(record)
    return kept


def rank(name: str, seed: int, purpose: str) -> tuple[int, str]:
    """A record's place among others."""
    return xxhash.xxh3_64_intdigest(f"{seed}/{purpose}/{name}".encode()), name
