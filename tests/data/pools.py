"""A pool of a few records by hand, as the collect stage would leave it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cambrian.artifacts import write_folder, write_json
from cambrian.data.shards import ShardWriter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SOURCES = {
    "LLaVA150K": {"category": "General", "published_thousands": 157, "in_7m": True},
    "ChartQA": {"category": "OCR", "published_thousands": 28, "in_7m": True},
    "MathInstruct": {"category": "Math", "published_thousands": 262, "in_7m": False},
}


def picture(number: int, *, side: int = 24) -> bytes:
    """A PNG whose pixels follow from its number; two numbers look different."""
    rows, columns = np.mgrid[0:side, 0:side] // 6
    pixels = ((rows * 4 + columns + 1) * (2 * number + 1) * 37 + number * 11) % 251
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(pixels[:, :, None], 3, axis=2).astype(np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def recompress(data: bytes) -> bytes:
    """The same pixels in other bytes."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.save(buffer, format="BMP")
    return buffer.getvalue()


def line(
    record_id: str,
    *,
    source: str = "LLaVA150K",
    image: str | None = None,
    question: str = "what is it ?",
    answer: str = "a cube",
) -> dict[str, Any]:
    """One record of the release's format; with an image the question starts with its placeholder."""
    marker = "" if image is None else "<image>\n"
    turns = [{"from": "human", "value": marker + question}, {"from": "gpt", "value": answer}]
    fields: dict[str, Any] = {"id": record_id, "conversations": turns, "source": source}
    return fields if image is None else {**fields, "image": image}


def write_pool(
    folder: Path, lines: Sequence[dict[str, Any] | str | bytes], images: Mapping[str, bytes] | None = None
) -> Path:
    """Write a pool of these lines (records, or whatever stands there instead) and images."""
    with write_folder(folder) as partial:
        raw = [
            entry if isinstance(entry, bytes) else (entry if isinstance(entry, str) else json.dumps(entry)).encode()
            for entry in lines
        ]
        (partial / "records.jsonl").write_bytes(b"".join(entry + b"\n" for entry in raw))
        write_json(partial / "sources.json", SOURCES)
        with ShardWriter(partial, max_bytes=2**20) as shards:
            for name, data in (images or {}).items():
                shards.add(name, data)
    return folder
