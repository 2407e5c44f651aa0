"""One sample of a million, and one picture for four encoders: what the data path of training costs.

    python -m benchmarks.data_path

Access: the release scans its JSONL from the start for every sample; ours looks up an offset and parses one line.
Images: the plain sequence pads the whole picture, resizes it and makes floats of it for every encoder, as the release
does; ours resizes what is picture and stays in 8 bits until a batch is made (`ratio`), or makes floats at once
(`ratio_with_floats`). Both end in the same bytes. Times are the process's own; forms take turns.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from benchmarks.machine import describe_machine
from cambrian.data.images import decode_image, fit_image, preprocess
from cambrian.data.made_once import make_once
from cambrian.data.mapped_records import LINES_NAME, MappedRecords, write_mapped
from cambrian.interfaces import ImageSpec, Record, Turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GOAL_ACCESS_US = 20.0
"""Microseconds of one sample of a million (the issue)."""
GOAL_IMAGES = 2.5
"""How many times the plain sequence's speed (the issue)."""

_HALF = (0.5, 0.5, 0.5)
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPECS = (
    ImageSpec(384, _HALF, _HALF, (127, 127, 127)),
    ImageSpec(336, *_CLIP, (122, 116, 104)),
    ImageSpec(378, *_IMAGENET, (123, 116, 103)),
    ImageSpec(1024, *_CLIP, (122, 116, 104)),
)
"""The encoders of the final models, in the release's order."""


def iter_records(count: int) -> Iterator[Record]:
    """Records of about 650 bytes, as Cambrian-10M has them on average."""
    for index in range(count):
        turns = [
            Turn(
                "human" if turn % 2 == 0 else "gpt",
                f"{'<image>' if turn == 0 else ''}\nturn {turn} of sample {index}" + " and so on" * 7,
            )
            for turn in range(4)
        ]
        yield Record(f"sample-{index}", f"source-{index % 68}", tuple(turns), f"images/{index:08d}.jpg")


def scan(path: Path, index: int) -> dict[str, object]:
    """Read one sample as the release does: line by line from the file's start (release, `LazySupervisedDataset`)."""
    with path.open() as file:
        for number, line in enumerate(file):
            if number == index:
                found: dict[str, object] = json.loads(line)
                return found
    raise IndexError(index)


def measure_access(count: int, *, lookups: int, scans: int) -> dict[str, float]:
    """Microseconds of one sample, ours and the scan, of the same samples in random order."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="data-path-") as name:
        folder = Path(name) / "mapped"
        make_once(folder, lambda partial: write_mapped(partial, iter_records(count)))
        records = MappedRecords(folder)
        order = generator.integers(count, size=lookups).tolist()
        for index in order[:scans]:
            found = scan(folder / LINES_NAME, index)
            if records[index].id != found["id"]:
                raise ValueError(f"sample {index} is {records[index].id} in one form and {found['id']} in the other")
        ours = []
        for start in range(0, lookups, lookups // 10):
            started = time.process_time()
            for index in order[start : start + lookups // 10]:
                records[index]
            ours.append((time.process_time() - started) / (lookups // 10) * 1e6)
        scanned = [_time(lambda index=index: scan(folder / LINES_NAME, index)) for index in order[:scans]]  # type: ignore[misc]
    return {"ours_us": round(statistics.median(ours), 2), "scan_us": round(statistics.mean(scanned) * 1e6, 1)}


def preprocess_plainly(data: bytes) -> list[np.ndarray]:
    """Every encoder by itself, from the whole picture, as the release and transformers' image processors do.

    Pad, resize by way of arrays, scale in double precision, normalise, move the channels.

    Source: release, `mm_utils.py` (`expand2square`, one processor per encoder); transformers, `image_transforms.py`.
    """
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    views = []
    for spec in SPECS:
        side = max(picture.size)
        square = Image.new("RGB", (side, side), spec.pad_colour)
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        array = np.array(square)
        resized = np.array(Image.fromarray(array).resize((spec.side, spec.side), Image.Resampling.BICUBIC))
        scaled = (resized.astype(np.float64) * (1 / 255)).astype(np.float32)
        normalised = (scaled - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
        views.append(np.ascontiguousarray(normalised.transpose(2, 0, 1)))
    return views


def fit_leanly(data: bytes) -> list[np.ndarray]:
    """What workers hand on: every encoder's pixels in 8 bits, an eighth of the floats' memory with its copies."""
    picture = decode_image(data)
    return [fit_image(picture, spec) for spec in SPECS]


def make_picture(width: int, height: int) -> bytes:
    """A photograph-like JPEG: smooth shapes with fine noise, about 140 kB at 640 x 480."""
    generator = np.random.default_rng(1)
    rows, columns = np.mgrid[0:height, 0:width] / 60
    base = np.stack([np.sin(rows + k) * np.cos(columns * (k + 1) / 2) for k in range(3)], axis=-1) * 90 + 128
    pixels = (base + generator.normal(0, 9, base.shape)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=92)
    return file.getvalue()


def measure_images(repeats: int) -> dict[str, object]:
    """Seconds per picture of both forms.

    Raises:
        ValueError: their bytes differ.
    """
    data = make_picture(640, 480)
    forms: dict[str, Callable[[], list[np.ndarray]]] = {
        "plain": lambda: preprocess_plainly(data),
        "ours": lambda: preprocess(data, SPECS),
        "ours in 8 bits": lambda: fit_leanly(data),
    }
    for plain, ours in zip(forms["plain"](), forms["ours"](), strict=True):
        if plain.tobytes() != ours.tobytes():
            raise ValueError(f"the forms differ at {plain.shape}")
    times: dict[str, list[float]] = {name: [] for name in forms}
    for _ in range(repeats):
        for name, form in forms.items():
            times[name].append(_time(form))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "milliseconds": {name: round(value * 1e3, 1) for name, value in medians.items()},
        "ratio": round(medians["plain"] / medians["ours in 8 bits"], 2),
        "ratio_with_floats": round(medians["plain"] / medians["ours"], 2),
        "jpeg_bytes": len(data),
    }


def _time(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def main() -> None:
    """Measure; the last line is the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--lookups", type=int, default=50_000)
    parser.add_argument("--scans", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    access = measure_access(args.records, lookups=args.lookups, scans=args.scans)
    images = measure_images(args.repeats)
    meets = access["ours_us"] <= GOAL_ACCESS_US and float(str(images["ratio"])) >= GOAL_IMAGES
    print(json.dumps({"access": access, "images": images}))
    result = {
        "name": "data_path",
        "ratio": images["ratio"],
        "goal": GOAL_IMAGES,
        "meets": meets,
        "access_us": access["ours_us"],
        "access_goal_us": GOAL_ACCESS_US,
        "access_ratio": round(access["scan_us"] / access["ours_us"]),
        "records": args.records,
        "images": images,
        "command": "python -m benchmarks.data_path",
        "machine": describe_machine("cpu"),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
