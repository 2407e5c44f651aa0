"""A pool from where it is published: fetched in parallel, converted unit by unit, put together in a fixed order."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json, write_json
from cambrian.data.collecting.converting import RECORDS_NAME, Outcome, convert_unit, read_outcome, refuse
from cambrian.data.collecting.fetching import ChecksumError, TooLargeError, Wanted, ask_patiently, fetch_ahead
from cambrian.data.collecting.readers import GoneError, UnansweredError, list_files
from cambrian.data.collecting.units import Unit, plan_units
from cambrian.data.ledger import Dropped, Ledger, write_dropped
from cambrian.data.shards import INDEX_NAME, shard_name
from cambrian.interfaces import ArtifactError
from cambrian.runtime import iter_progress

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set
    from concurrent.futures import Future

    from cambrian.data.collecting.config import CollectedPool, Origin, Policy
    from cambrian.data.collecting.fetching import FetchedFile
    from cambrian.data.collecting.readers import RemoteFile

FILES_NAME = "files.json"
LEDGER_NAME = "ledger.json"
DROPPED_NAME = "dropped.parquet"

_REASONS = {
    GoneError: "gone",
    UnansweredError: "unanswered",
    ChecksumError: "checksum-changed",
    TooLargeError: "too-large",
}
_CHANGES_NO_UNIT: dict[str, Any] = {
    "copy_to": True,
    "hub_endpoint": True,
    "limits": {
        "num_workers", "max_waiting_bytes", "connect_timeout_s", "read_timeout_s", "num_attempts", "retry_wait_s",
    },
    "policies": {"checksum", "max_bad_share"},
    "work_dir": True,
}  # fmt: skip
_log = logging.getLogger("cambrian")


@dataclass(slots=True)
class _Collection:
    """What is known while a pool is collected."""

    config: CollectedPool
    known: Set[str]
    work_dir: Path
    done: list[tuple[Unit, Outcome]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    lost: list[Dropped] = field(default_factory=list)
    """Units and patterns that could not be fetched."""

    def folder(self, unit: Unit) -> Path:
        """Where a unit's converted form lies until the pool is put together."""
        return self.work_dir / "converted" / unit.key


def collect_origins(folder: Path, config: CollectedPool, *, origins: Mapping[str, Origin], known: Set[str]) -> Path:
    """Write records, shards with their index, `files.json`, `ledger.json` and `dropped.parquet` into an empty folder.

    `known` are the sources that a record may have. What was fetched and converted lies in the folder below
    `config.work_dir` that is returned, for the caller to remove when the pool is whole: a killed stage goes on after
    its last finished unit, and inside a file after its last byte.

    Raises:
        ArtifactError: something is gone, broken or changed for which the policy is to fail; the message names it.
    """
    collection = _Collection(config, known, Path(config.work_dir) / _digest(config, origins, known))
    units = _plan(collection, origins)
    waiting = []
    for unit in units:
        outcome = read_outcome(collection.folder(unit))
        if outcome is None:
            waiting.append(unit)
    if len(waiting) < len(units):
        _log.info("%d of %d units were collected before", len(units) - len(waiting), len(units))
    _convert_all(collection, waiting)
    _assemble(folder, collection, units)
    return collection.work_dir


def _digest(config: CollectedPool, origins: Mapping[str, Origin], known: Set[str]) -> str:
    """The same as long as finished units would come out as they are: whoever only raises a bound goes on from them."""
    settings = config.model_dump_json(exclude=_CHANGES_NO_UNIT)
    return hashlib.sha256(f"{settings}/{sorted(origins)}/{sorted(known)}".encode()).hexdigest()[:16]


def _plan(collection: _Collection, origins: Mapping[str, Origin]) -> list[Unit]:
    units: list[Unit] = []
    for name, origin in origins.items():
        try:
            files = _list_patiently(origin, collection.config)
        except (GoneError, UnansweredError) as error:
            _lose(collection, name, "(all files)", error, origin.when_gone, f"{name}: when_gone")
            continue
        found, gone = plan_units(name, origin, files)
        for fault in gone:
            _lose(collection, name, "(a pattern)", fault, origin.when_gone, f"{name}: when_gone")
        units += found
    return units


def _list_patiently(origin: Origin, config: CollectedPool) -> list[RemoteFile]:
    endpoint = config.hub_endpoint or os.environ.get("HF_ENDPOINT")
    return ask_patiently(lambda: list_files(origin.place, config.limits, hub_endpoint=endpoint), config.limits)


def _lose(collection: _Collection, origin: str, what: str, error: Exception, policy: Policy, name: str) -> None:
    reason = _REASONS[type(error)]
    refuse(policy, name, where=f"{origin}: {what}", reason=reason, message=str(error))
    _log.warning("%s: %s left out: %s", origin, what, error)
    collection.lost.append(Dropped(what, origin, reason, str(error)))


def _convert_all(collection: _Collection, units: Sequence[Unit]) -> None:
    """Convert every unit that is not converted yet, in order, while the next ones are being fetched."""
    wanted = [Wanted(unit.files, unit.checksums, collection.work_dir / "fetched" / unit.key) for unit in units]
    with fetch_ahead(wanted, collection.config.limits) as fetched:
        pairs = zip(units, fetched, strict=True)
        for unit, future in iter_progress(pairs, total=len(units), what="collecting"):
            files = _take(collection, unit, future)
            if files is not None:
                folder = collection.folder(unit)
                # Before the unit is converted: who is killed between the two would find a finished unit without it.
                write_json(
                    folder.with_suffix(".json"), [_describe(unit, number, files) for number in range(len(files))]
                )
                convert_unit(unit, files, collection.config, known=collection.known, output=folder)


def _take(collection: _Collection, unit: Unit, future: Future[list[FetchedFile]]) -> list[FetchedFile] | None:
    try:
        return future.result()
    except ChecksumError as error:
        _lose(collection, unit.origin_name, unit.name, error, collection.config.policies.checksum, "policies.checksum")
    except TooLargeError as error:
        raise ArtifactError(f"{unit.where}: {error}. Raise it, if the disk has room") from error
    except (GoneError, UnansweredError) as error:
        _lose(collection, unit.origin_name, unit.name, error, unit.origin.when_gone, f"{unit.origin_name}: when_gone")
    return None


def _describe(unit: Unit, number: int, files: Sequence[FetchedFile]) -> dict[str, Any]:
    remote, file = unit.files[number], files[number]
    if remote.name in unit.origin.sha256:
        checked = "against the catalogue"
    elif remote.sha256 is not None:
        checked = "against the place's own checksum"
    else:
        checked = f"no: {unit.origin.sha256_unknown}"
    return {
        "origin": unit.origin_name,
        "name": remote.name,
        "where": remote.where,
        "bytes": file.num_bytes,
        "sha256": file.sha256,
        "checked": checked,
        "licence": unit.origin.licence,
    }


def _assemble(folder: Path, collection: _Collection, units: Sequence[Unit]) -> None:
    """Put the converted units together; shards are linked, not copied, where the file system can."""
    index: dict[str, list[int]] = {}
    num_shards = 0
    with (folder / RECORDS_NAME).open("wb") as lines:
        for unit in units:
            source = collection.folder(unit)
            outcome = read_outcome(source)
            if outcome is None:
                continue  # lost, and in the ledger as such
            with (source / RECORDS_NAME).open("rb") as part:
                shutil.copyfileobj(part, lines)
            num_shards = _append_shards(folder, source, index, num_shards, unit, outcome, collection.config)
            collection.done.append((unit, outcome))
            collection.files += read_json(source.with_suffix(".json"))
    write_json(folder / INDEX_NAME, index)
    write_json(folder / FILES_NAME, collection.files)
    _write_ledger(folder, collection)


def _append_shards(
    folder: Path,
    source: Path,
    index: dict[str, list[int]],
    num_shards: int,
    unit: Unit,
    outcome: Outcome,
    config: CollectedPool,
) -> int:
    """Take over a unit's shards; a picture whose name an earlier unit has stays unnamed in its shard."""
    own: dict[str, list[int]] = json.loads((source / INDEX_NAME).read_text(encoding="utf-8"))
    for name, (shard, offset, size) in own.items():
        if name in index:
            message = f"{name!r} is in an earlier archive too; that one stays"
            refuse(config.policies.image, "policies.image", where=unit.where, reason="duplicate-image", message=message)
            outcome.images -= 1
            outcome.dropped_images.append(Dropped(name, unit.origin_name, "duplicate-image", message))
        else:
            index[name] = [num_shards + shard, offset, size]
    count = 1 + max((shard for shard, _, _ in own.values()), default=-1)
    for shard in range(count):
        target = folder / shard_name(num_shards + shard)
        try:
            os.link(source / shard_name(shard), target)
        except OSError:
            shutil.copyfile(source / shard_name(shard), target)
    return num_shards + count


def _write_ledger(folder: Path, collection: _Collection) -> None:
    """Write what came in, went out and was left out: files by origin, pictures by origin, records by source.

    Raises:
        ArtifactError: more than `policies.max_bad_share` of the rows are no records.
    """
    files, images, records = Ledger(), Ledger(), Ledger()
    files_step, images_step, records_step = files.start("files"), images.start("pictures"), records.start("records")
    for lost in collection.lost:
        files.drop(lost)
    for unit, outcome in collection.done:
        if outcome.fault is None:
            files_step.keep(unit.origin_name)
        else:
            files.drop(Dropped(unit.name, unit.origin_name, *outcome.fault))
        for _ in range(outcome.images):
            images_step.keep(unit.origin_name)
        for source, count in outcome.records.items():
            records_step.records_in[source] += count
            records_step.records_out[source] += count
        for row in outcome.dropped_images:
            images.drop(row)
        for row in outcome.dropped_records:
            records.drop(row)
    _check_bad_share(records, collection.config.policies.max_bad_share)
    steps = [step for ledger in (files, images, records) for step in ledger.to_json()]
    write_json(folder / LEDGER_NAME, {"steps": steps})
    write_dropped(folder / DROPPED_NAME, [*files.dropped, *images.dropped, *records.dropped])


def _check_bad_share(records: Ledger, max_share: float) -> None:
    num_bad, num_rows = len(records.dropped), records.steps[0].records_in.total()
    if num_bad > max_share * num_rows:
        example = records.dropped[0]
        raise ArtifactError(
            f"{num_bad} of {num_rows} rows are no records, policies.max_bad_share allows {max_share:.1%}; as "
            f"{example.id} of {example.source}: {example.reason}, {example.detail}"
        )
