"""Params of small collected pools, and the files that they are made of."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json
from cambrian.data.cleaning import CleaningConfig, clean_pool
from cambrian.data.collecting.config import CollectedPool
from cambrian.data.partitions import PartitionsConfig
from cambrian.data.sources import PoolConfig, collect_pool
from tests.data.pools import line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIMITS: dict[str, Any] = {
    "num_workers": 2,
    "max_waiting_bytes": 1_000_000,
    "connect_timeout_s": 5.0,
    "read_timeout_s": 5.0,
    "num_attempts": 3,
    "retry_wait_s": 0.01,
    "max_line_bytes": 10_000,
    "max_members": 100,
    "max_member_bytes": 100_000,
    "max_unpacked_bytes": 500_000,
}
LENIENT: dict[str, Any] = {
    "record": "skip-and-record",
    "image": "skip-and-record",
    "archive": "skip-and-record",
    "checksum": "skip-and-record",
    "max_bad_share": 1.0,
}
STRICT = {**LENIENT, "record": "fail", "image": "fail", "archive": "fail", "checksum": "fail", "max_bad_share": 0.0}


def origin(place: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "place": dict(place),
        "records": ["*.jsonl"],
        "archives": ["*.tar", "*.tar.gz", "*.zip", "*.tar_part*"],
        "images": [],
        "image_prefix": "",
        "source": None,
        "columns": None,
        "sha256": {},
        "sha256_unknown": "a test's file",
        "licence": "CC0-1.0",
        "when_gone": "fail",
        **changes,
    }


def pool(tmp_path: Path, origins: Mapping[str, Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    own = {
        name: {"category": "General", "thousands": 1, "in_7m": True, "licence": "CC0-1.0", "origin": dict(row)}
        for name, row in origins.items()
    }
    return {
        "kind": "collected",
        "origins": [],
        "hub_endpoint": None,
        "own": own,
        "labels": {},
        "image_suffixes": [".png"],
        "shard_max_bytes": 100_000,
        "work_dir": str(tmp_path / "work"),
        "limits": LIMITS,
        "policies": LENIENT,
        "copy_to": None,
        **changes,
    }


def parse(value: dict[str, Any]) -> CollectedPool:
    config = PoolConfig.model_validate(value).root
    assert isinstance(config, CollectedPool)
    return config


def collect(value: dict[str, Any], output: Path) -> Path:
    collect_pool("instruction", PoolConfig.model_validate(value), samples_per_record=1, seed=0, output=output)
    return output


def clean(folder: Path, output: Path, *, max_lost_share: float) -> Path:
    """What the next stage makes of a pool."""
    config = CleaningConfig(
        max_line_bytes=100_000,
        min_image_side=8,
        hash_side=8,
        max_duplicate_distance=0,
        fatal_reasons=[],
        max_lost_share=max_lost_share,
    )
    partitions = PartitionsConfig(kind="processes", num_processes=1, chunk_bytes=2**20, bucket_bytes=2**20)
    clean_pool(config, partitions, pool=folder, output=output)
    return output


def read_lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "records.jsonl").read_text(encoding="utf-8").splitlines()]


def read_dropped(folder: Path) -> list[tuple[str, str, str]]:
    """Id, source and reason of everything that was left out."""
    from pyarrow import parquet

    rows = parquet.read_table(folder / "dropped.parquet").to_pylist()
    return [(row["id"], row["source"], row["reason"]) for row in rows]


def read_step(folder: Path, name: str) -> dict[str, Any]:
    (step,) = [step for step in read_json(folder / "ledger.json")["steps"] if step["step"] == name]
    found: dict[str, Any] = step
    return found


def jsonl(*lines: dict[str, Any] | bytes) -> bytes:
    return b"".join((entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n" for entry in lines)


def named(count: int, source: str = "charts", image: str = "pictures/{}.png") -> bytes:
    return jsonl(*(line(f"native {number}", source=source, image=image.format(number)) for number in range(count)))


def tar(members: Mapping[str, bytes], *, mode: str = "w", extra: Sequence[tarfile.TarInfo] = ()) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in extra:
            archive.addfile(info)
    return buffer.getvalue()


def packed(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()
