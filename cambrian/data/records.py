"""Records at the border (the release's JSONL) and between stages (Parquet)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cambrian.interfaces import IMAGE_PLACEHOLDER, ArtifactError, Record, RecordError, Turn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

_SPEAKERS = ("human", "gpt")
_PREVIEW_CHARACTERS = 60


def parse_record(line: str) -> Record:
    """The record that one line of the release's JSONL holds.

    Fields beyond id, image, source and conversations are not read. The order of the speakers is not judged: a
    conversation may start with the assistant, as some of the release's do.

    Raises:
        RecordError: `malformed-json`, `missing-field`, `wrong-type`, `empty-field`, `unknown-speaker`,
            `empty-conversation`, or `image-placeholder` where an image has no one place in the text or a place has no
            image.

    Source: release, README of the instruction data (LLaVA's format with a source).
    """
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RecordError("malformed-json", f"{_preview(line)} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RecordError("wrong-type", f"{_preview(line)} is a {type(value).__name__}, expected an object")
    return make_record(value)


def make_record(value: dict[str, Any]) -> Record:
    """The record of one object, as `parse_record` reads it from a line.

    Raises:
        RecordError: as `parse_record`.
    """
    record_id = _read_text(value, "id", where="record")
    where = f"record {record_id!r}"
    image = None if value.get("image") is None else _read_text(value, "image", where=where)
    record = Record(
        id=record_id, source=_read_text(value, "source", where=where), turns=_read_turns(value, where), image=image
    )
    found = sum(turn.text.count(IMAGE_PLACEHOLDER) for turn in record.turns)
    expected = 0 if image is None else 1
    if found != expected:
        raise RecordError(
            "image-placeholder", f"{where} has {IMAGE_PLACEHOLDER} {found} times in its text, expected {expected}"
        )
    return record


def format_record(record: Record) -> str:
    """The record as one line of the release's JSONL, without the line's end."""
    value: dict[str, Any] = {"id": record.id}
    if record.image is not None:
        value["image"] = record.image
    value["conversations"] = [{"from": turn.speaker, "value": turn.text} for turn in record.turns]
    value["source"] = record.source
    return json.dumps(value, ensure_ascii=False)


def records_schema() -> pa.Schema:
    """The columns of a file of records."""
    import pyarrow as pa

    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("category", pa.string(), nullable=False),
            pa.field("image", pa.string()),
            pa.field("conversations", pa.list_(turn), nullable=False),
        ]
    )


def write_records(path: Path, records: Sequence[Record], categories: Mapping[str, str]) -> None:
    """Write records as Parquet, in their order; `categories` gives the category of each source."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "id": [record.id for record in records],
        "source": [record.source for record in records],
        "category": [categories[record.source] for record in records],
        "image": [record.image for record in records],
        "conversations": [[{"from": turn.speaker, "value": turn.text} for turn in record.turns] for record in records],
    }
    parquet.write_table(pa.table(columns, schema=records_schema()), path, compression="zstd")


def read_records(path: Path) -> list[Record]:
    """Read the records of a Parquet file that `write_records` made, in its order.

    Raises:
        ArtifactError: the file is missing or is not such a file.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=["id", "source", "image", "conversations"], use_threads=False)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: run the stage that makes it (`dvc repro` does)") from error
    except pa.ArrowException as error:
        raise ArtifactError(f"{path} is not a file of records ({error}): delete it and run `dvc repro`") from error
    return table_records(table)


def table_records(table: pa.Table) -> list[Record]:
    """The records of a table, in its order."""
    columns = (table.column(name).to_pylist() for name in ("id", "source", "image", "conversations"))
    return [
        Record(
            id=record_id, source=source, image=image, turns=tuple(Turn(turn["from"], turn["value"]) for turn in turns)
        )
        for record_id, source, image, turns in zip(*columns, strict=True)
    ]


def _read_turns(value: dict[str, Any], where: str) -> tuple[Turn, ...]:
    conversations = _read_field(value, "conversations", list, where=where)
    if not conversations:
        raise RecordError("empty-conversation", f"{where} has no turns, expected at least one")
    turns = []
    for number, entry in enumerate(conversations):
        place = f"{where}, turn {number}"
        if not isinstance(entry, dict):
            raise RecordError("wrong-type", f"{place} is a {type(entry).__name__}, expected an object")
        speaker = _read_text(entry, "from", where=place)
        if speaker not in _SPEAKERS:
            raise RecordError("unknown-speaker", f"{place} is from {speaker!r}, expected one of {', '.join(_SPEAKERS)}")
        turns.append(Turn("human" if speaker == "human" else "gpt", _read_text(entry, "value", where=place)))
    return tuple(turns)


def _read_text(value: dict[str, Any], name: str, *, where: str) -> str:
    text: str = _read_field(value, name, str, where=where)
    if not text.strip():
        raise RecordError("empty-field", f"{where}: field {name!r} is empty")
    return text


def _read_field(value: dict[str, Any], name: str, kind: type, *, where: str) -> Any:
    if name not in value:
        raise RecordError(
            "missing-field", f"{where} has no field {name!r}, it has {', '.join(sorted(value)) or 'none'}"
        )
    if not isinstance(value[name], kind):
        raise RecordError(
            "wrong-type", f"{where}: field {name!r} is a {type(value[name]).__name__}, expected {kind.__name__}"
        )
    return value[name]


def _preview(line: str) -> str:
    text = line.strip()
    return repr(text if len(text) <= _PREVIEW_CHARACTERS else f"{text[:_PREVIEW_CHARACTERS]}...")
