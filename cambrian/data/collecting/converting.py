"""One unit's files as a folder in the pool's own format, with everything that was left out of it and why."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.collecting.archives import ArchiveError, iter_members
from cambrian.data.collecting.names import clean_name
from cambrian.data.collecting.record_files import guess_source, iter_rows, read_record
from cambrian.data.ledger import Dropped
from cambrian.data.records import format_record
from cambrian.data.shards import ShardWriter
from cambrian.interfaces import ArtifactError, Record, RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence, Set
    from pathlib import Path

    from cambrian.data.collecting.config import CollectedPool, Policy
    from cambrian.data.collecting.fetching import FetchedFile
    from cambrian.data.collecting.record_files import Row
    from cambrian.data.collecting.units import Unit

RECORDS_NAME = "records.jsonl"
OUTCOME_NAME = "outcome.json"


@dataclass(slots=True)
class Outcome:
    """What became of one unit."""

    records: Counter[str] = field(default_factory=Counter)
    """Kept, by source."""
    images: int = 0
    """Kept."""
    dropped_records: list[Dropped] = field(default_factory=list)
    dropped_images: list[Dropped] = field(default_factory=list)
    fault: tuple[str, str] | None = None
    """Reason and message where the unit could not be read to its end."""

    def to_json(self) -> dict[str, Any]:
        """All of it, as `from_json` reads it."""
        return {
            "records": dict(self.records),
            "images": self.images,
            "dropped_records": [[row.id, row.source, row.reason, row.detail] for row in self.dropped_records],
            "dropped_images": [[row.id, row.source, row.reason, row.detail] for row in self.dropped_images],
            "fault": self.fault,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(
            records=Counter(value["records"]),
            images=value["images"],
            dropped_records=[Dropped(*row) for row in value["dropped_records"]],
            dropped_images=[Dropped(*row) for row in value["dropped_images"]],
            fault=tuple(value["fault"]) if value["fault"] else None,
        )


def convert_unit(
    unit: Unit, files: Sequence[FetchedFile], config: CollectedPool, *, known: Set[str], output: Path
) -> None:
    """Write what one unit gives: records, shards of pictures, and its outcome.

    Raises:
        ArtifactError: something is broken for which the policy is to fail; the message names it.
    """
    outcome = Outcome()
    with (
        write_folder(output) as folder,
        (folder / RECORDS_NAME).open("w", encoding="utf-8") as lines,
        ShardWriter(folder, config.shard_max_bytes) as shards,
    ):
        pictures = _Pictures(unit, config, shards, outcome)
        match unit.kind:
            case "records":
                for row in iter_rows(
                    files[0].path,
                    unit.files[0].name,
                    columns=unit.origin.columns,
                    max_line_bytes=config.limits.max_line_bytes,
                ):
                    record = _convert_row(row, unit, config, known, pictures, outcome)
                    if record is not None:
                        lines.write(format_record(record) + "\n")
                        outcome.records[record.source] += 1
            case "archive":
                _convert_archive(unit, files, config, pictures, outcome)
            case "images":
                for remote, file in zip(unit.files, files, strict=True):
                    pictures.add(remote.name, file.path.read_bytes(), None)
        write_json(folder / OUTCOME_NAME, outcome.to_json())


def read_outcome(folder: Path) -> Outcome | None:
    """The outcome of a unit that was finished before; None where it was not."""
    try:
        read_manifest(folder)
        return Outcome.from_json(read_json(folder / OUTCOME_NAME))
    except ArtifactError:
        return None


def refuse(policy: Policy, name: str, *, where: str, reason: str, message: str) -> None:
    """Stop where the policy says so.

    Raises:
        ArtifactError: it does.
    """
    if policy == "fail":
        raise ArtifactError(
            f"{where}: {reason}: {message}. Mend it, or set {name} to skip-and-record to go on without it"
        )


class _Pictures:
    """Takes pictures under clean names, each name once."""

    def __init__(self, unit: Unit, config: CollectedPool, shards: ShardWriter, outcome: Outcome) -> None:
        self._unit = unit
        self._config = config
        self._shards = shards
        self._outcome = outcome
        self._names: set[str] = set()

    def add(self, name: str, data: bytes | None, fault: RecordError | None) -> None:
        """Keep a member, or write down why not."""
        try:
            if fault is not None or data is None:
                raise fault or RecordError("empty-member", f"{name!r} has no data")
            cleaned = clean_name(name, prefix=self._unit.origin.image_prefix)
            if not cleaned.lower().endswith(self._config.image_suffixes):
                self._outcome.dropped_images.append(self._describe(name, "not-an-image", "by its suffix"))
                return
            if cleaned in self._names:
                raise RecordError("duplicate-image", f"{cleaned!r} is there twice; the first stays")
        except RecordError as error:
            where = self._unit.where
            refuse(self._config.policies.image, "policies.image", where=where, reason=error.reason, message=str(error))
            self._outcome.dropped_images.append(self._describe(name, error.reason, str(error)))
            return
        self.store(cleaned, data)

    def store(self, name: str, data: bytes) -> None:
        """Keep a picture under a name that is clean and new."""
        self._names.add(name)
        self._shards.add(name, data)
        self._outcome.images += 1

    def _describe(self, name: str, reason: str, detail: str) -> Dropped:
        texts = (name, self._unit.origin_name, reason, detail)
        return Dropped(*(text.encode(errors="backslashreplace").decode() for text in texts))


def _convert_archive(
    unit: Unit, files: Sequence[FetchedFile], config: CollectedPool, pictures: _Pictures, outcome: Outcome
) -> None:
    try:
        for member in iter_members([file.path for file in files], config.limits):
            pictures.add(member.name, member.data, member.fault)
    except ArchiveError as error:
        refuse(config.policies.archive, "policies.archive", where=unit.where, reason=error.reason, message=str(error))
        outcome.fault = (error.reason, str(error))


def _convert_row(
    row: Row, unit: Unit, config: CollectedPool, known: Set[str], pictures: _Pictures, outcome: Outcome
) -> Record | None:
    """The record of a row, with its picture stored where the row has it; None where it was left out."""
    stem = unit.name.partition(".")[0].replace("/", "-")
    record_id = f"{unit.origin_name}/{stem}/{row.number:08d}"
    try:
        if row.image is not None:
            name = f"{record_id}.{_guess_suffix(row.image)}"
            row = replace(row, value={**(row.value or {}), "image": name})
        record = read_record(row, record_id=record_id, origin=unit.origin, labels=config.labels, known=known)
    except RecordError as error:
        refuse(
            config.policies.record,
            "policies.record",
            where=f"{unit.where}, row {row.number}",
            reason=error.reason,
            message=str(error),
        )
        texts = (record_id, guess_source(row, unit.origin), error.reason, str(error))
        outcome.dropped_records.append(Dropped(*(text.encode(errors="backslashreplace").decode() for text in texts)))
        return None
    if row.image is not None and record.image is not None:
        pictures.store(record.image, row.image)
    return record


def _guess_suffix(data: bytes) -> str:
    """The suffix of a picture by its content.

    Raises:
        RecordError: `undecodable-image`.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return (image.format or "img").lower()
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise RecordError("undecodable-image", f"the row's picture: {error}") from error
