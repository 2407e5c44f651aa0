"""Clean a pool: records that cannot be used and records that are there twice leave it, each with its reason."""

from __future__ import annotations

import json
import logging
import shutil
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.duplicates import HashIndex, HashSide, Share, content_key, text_key
from cambrian.data.image_facts import ImageFacts, describe_image
from cambrian.data.ledger import Dropped, Ledger, write_dropped
from cambrian.data.records import parse_record, write_records
from cambrian.data.shards import ImageStore
from cambrian.interfaces import IMAGE_PLACEHOLDER, ArtifactError, Record, RecordError
from cambrian.params import Params
from cambrian.runtime import iter_progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

UNREADABLE_SOURCE = "(unreadable)"
"""Under this name the ledger counts lines whose source cannot be read either."""

_NUM_NAMED_SOURCES = 3
_log = logging.getLogger("cambrian")


class CleaningConfig(Params):
    """What a record must be to stay in a pool."""

    min_image_side: NonNegativeInt
    """Pixels of a picture's shorter side."""
    hash_side: HashSide
    """Difference hashes have hash_side**2 bits."""
    max_duplicate_distance: NonNegativeInt
    """Two records with the same words are one when their images' hashes differ in at most so many bits."""
    max_lost_share: Share
    """The stage fails when a larger share of the pool's records is dropped."""


def clean_pool(config: CleaningConfig, *, pool: Path, output: Path) -> None:
    """Write the usable records of a pool in id order, what was dropped and why, and the ledger.

    A bad record is dropped and counted, never fatal by itself. The first of equal records in id order stays.

    Raises:
        ArtifactError: the pool is incomplete, or more than `max_lost_share` of its records were dropped.
    """
    read_manifest(pool)
    sources = read_json(pool / "sources.json")
    ledger = Ledger()
    store = ImageStore(pool)
    with write_folder(output) as folder:
        records = _read_records(pool / "records.jsonl", set(sources), ledger)
        facts, records = _check_images(records, store, config, ledger)
        records = _drop_exact_duplicates(records, facts, ledger)
        records = _drop_near_duplicates(records, facts, config.max_duplicate_distance, ledger)
        steps = ledger.to_json()
        lost_share = _check_lost_share(ledger, config.max_lost_share, pool)
        write_records(
            folder / "records.parquet",
            records,
            {name: source["category"] for name, source in sources.items()},
        )
        write_dropped(folder / "dropped.parquet", sorted(ledger.dropped, key=lambda row: (row.id, row.reason)))
        write_json(folder / "ledger.json", {"steps": steps, "lost_share": lost_share})
        shutil.copyfile(pool / "sources.json", folder / "sources.json")
    _log.info("cleaned %s: %d records kept, %d dropped", pool, len(records), len(ledger.dropped))


def _read_records(path: Path, known_sources: set[str], ledger: Ledger) -> list[Record]:
    """Parse every line; the usable records in id order."""
    step = ledger.start("read")
    records = []
    with path.open("rb") as file:
        for number, line in enumerate(iter_progress(file, total=None, what=f"reading {path}"), start=1):
            try:
                record = _parse_line(line.rstrip(b"\r\n"))
                if record.source not in known_sources:
                    raise RecordError(
                        "unknown-source", f"source {record.source!r} is not one of sources.json's {len(known_sources)}"
                    )
            except RecordError as error:
                name, source = _guess_identity(line, number)
                ledger.drop(Dropped(name, source, error.reason, str(error)))
            else:
                step.keep(record.source)
                records.append(record)
    # The text key settles the order of records that share an id, whatever the order of the lines.
    return sorted(records, key=lambda record: (record.id, record.source, text_key(record.turns), record.image or ""))


def _parse_line(line: bytes) -> Record:
    """The record of one line.

    Raises:
        RecordError: it is not one, or its conversation is not one of questions and answers in turn.
    """
    try:
        record = parse_record(line.decode("utf-8"))
        "".join([record.id, record.source, record.image or "", *(turn.text for turn in record.turns)]).encode()
    except UnicodeError as error:
        raise RecordError("wrong-encoding", f"not UTF-8: {error}") from error
    except RecordError:
        raise
    except ValueError as error:  # a number too long for Python to read
        raise RecordError("malformed-json", str(error)) from error
    if record.turns[0].speaker != "human":
        raise RecordError("starts-with-answer", f"record {record.id!r} starts with {record.turns[0].speaker}'s turn")
    if any(turn.speaker != ("human", "gpt")[number % 2] for number, turn in enumerate(record.turns)):
        speakers = ", ".join(turn.speaker for turn in record.turns)
        raise RecordError("speakers-do-not-alternate", f"record {record.id!r} has turns of {speakers}")
    if len(record.turns) % 2:
        raise RecordError("no-answer", f"record {record.id!r} ends with a question ({len(record.turns)} turns)")
    if not record.turns[0].text.replace(IMAGE_PLACEHOLDER, "").strip():
        raise RecordError("empty-field", f"record {record.id!r} starts with a question without words")
    return record


def _guess_identity(line: bytes, number: int) -> tuple[str, str]:
    """The id and source of a line that is no record, as far as they can be read."""
    try:
        value = json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        value = None
    fields = value if isinstance(value, dict) else {}
    name, source = fields.get("id"), fields.get("source")
    return (
        name if isinstance(name, str) and name else f"line {number}",
        source if isinstance(source, str) and source else UNREADABLE_SOURCE,
    )


def _check_images(
    records: Sequence[Record], store: ImageStore, config: CleaningConfig, ledger: Ledger
) -> tuple[dict[str, ImageFacts], list[Record]]:
    """Decode each image once; the facts by image name, and the records whose image can be used or that have none."""
    step = ledger.start("images")
    found: dict[str, ImageFacts | RecordError] = {}
    kept = []
    for record in iter_progress(records, total=len(records), what="checking images"):
        if record.image is not None:
            if record.image not in found:
                try:
                    found[record.image] = describe_image(
                        store.read(record.image),
                        name=record.image,
                        hash_side=config.hash_side,
                        min_side=config.min_image_side,
                    )
                except RecordError as error:
                    found[record.image] = error
            fault = found[record.image]
            if isinstance(fault, RecordError):
                ledger.drop(Dropped(record.id, record.source, fault.reason, str(fault)))
                continue
        step.keep(record.source)
        kept.append(record)
    return {name: facts for name, facts in found.items() if isinstance(facts, ImageFacts)}, kept


def _drop_exact_duplicates(records: Sequence[Record], facts: dict[str, ImageFacts], ledger: Ledger) -> list[Record]:
    step = ledger.start("exact duplicates")
    ids: set[str] = set()
    first_with: dict[str, str] = {}
    kept = []
    for record in records:
        key = content_key(record.turns, facts[record.image].digest if record.image is not None else None)
        if record.id in ids:
            ledger.drop(Dropped(record.id, record.source, "duplicate-id", "another record of this pool has this id"))
        elif key in first_with:
            detail = f"same words and image as {first_with[key]}"
            ledger.drop(Dropped(record.id, record.source, "exact-duplicate", detail))
        else:
            ids.add(record.id)
            first_with[key] = record.id
            step.keep(record.source)
            kept.append(record)
    return kept


def _drop_near_duplicates(
    records: Sequence[Record], facts: dict[str, ImageFacts], max_distance: int, ledger: Ledger
) -> list[Record]:
    """Drop records with the words of an earlier one and an image that looks like its image (or none, like it)."""
    step = ledger.start("near duplicates")
    groups: dict[str, tuple[HashIndex, list[str]]] = {}
    kept = []
    for record in records:
        image_hash = facts[record.image].hash if record.image is not None else b""
        kind = "picture" if record.image is not None else "text"
        index, names = groups.setdefault(f"{kind}/{text_key(record.turns)}", (HashIndex(max_distance), []))
        if alike := index.find(image_hash):
            detail = f"same words as {names[alike[0]]} and an image within {max_distance} bits of its image"
            ledger.drop(Dropped(record.id, record.source, "near-duplicate", detail))
        else:
            index.add(image_hash)
            names.append(record.id)
            step.keep(record.source)
            kept.append(record)
    return kept


def _check_lost_share(ledger: Ledger, max_lost_share: Share, pool: Path) -> float:
    lost_by_source = ledger.lost_by_source()
    num_lost, num_in = len(ledger.dropped), sum(total for _, total in lost_by_source.values())
    lost_share = num_lost / num_in if num_in else 0.0
    if lost_share > max_lost_share:
        worst = sorted(lost_by_source.items(), key=lambda entry: (-entry[1][0], entry[0]))[:_NUM_NAMED_SOURCES]
        raise ArtifactError(
            f"{pool}: {num_lost} of {num_in} records cannot be used ({lost_share:.1%}), cleaning.max_lost_share allows "
            f"{max_lost_share:.1%}. Worst sources: {'; '.join(_iter_worst(worst, ledger))}. Mend the pool, or "
            "raise the limit if this loss is right"
        )
    return lost_share


def _iter_worst(worst: Sequence[tuple[str, tuple[int, int]]], ledger: Ledger) -> Iterator[str]:
    for source, (lost, total) in worst:
        example = next((row for row in ledger.dropped if row.source == source), None)
        reason = f" (as {example.id}: {example.reason}, {example.detail})" if example else ""
        yield f"{source} lost {lost} of {total}{reason}"
