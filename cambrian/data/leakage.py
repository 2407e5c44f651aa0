"""Test images among training images, found by difference hashing.

Source: paper, table 19 (NeurIPS numbering).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.data.duplicates import HashIndex
from cambrian.data.image_facts import describe_image
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BENCHMARK_FILE = "test.parquet"


@dataclass(frozen=True, slots=True)
class Leakage:
    """How many test images of each benchmark are among the training images, and which training images those are."""

    num_images: dict[str, int]
    """Different test images per benchmark."""
    num_found: dict[str, int]
    """How many of them look like a training image."""
    benchmarks_by_image: dict[str, list[str]]
    """For each training image that looks like a test image, the benchmarks that it is from."""

    @property
    def found_share(self) -> float:
        """Found test images among all test images, as in the paper's last row."""
        total = sum(self.num_images.values())
        return sum(self.num_found.values()) / total if total else 0.0


def find_leakage(
    training_hashes: Mapping[str, bytes], benchmarks: Path, *, hash_side: int, max_distance: int
) -> Leakage:
    """Compare training images (name to difference hash) with the test images of every benchmark of a folder.

    Raises:
        ArtifactError: the folder has no benchmark, or a test image cannot be decoded.
    """
    paths = sorted(benchmarks.glob(f"*/{BENCHMARK_FILE}"))
    if not paths:
        raise ArtifactError(f"{benchmarks} has no */{BENCHMARK_FILE}: run the stage that builds the benchmarks")
    index = HashIndex(max_distance)
    names = sorted(training_hashes)
    for name in names:
        index.add(training_hashes[name])
    num_images: dict[str, int] = {}
    num_found: dict[str, int] = {}
    benchmarks_by_image: dict[str, list[str]] = {}
    for path in paths:
        benchmark = path.parent.name
        found = [index.find(image_hash) for image_hash in _iter_test_hashes(path, hash_side)]
        num_images[benchmark] = len(found)
        num_found[benchmark] = sum(bool(numbers) for numbers in found)
        for number in sorted({number for numbers in found for number in numbers}):
            benchmarks_by_image.setdefault(names[number], []).append(benchmark)
    return Leakage(num_images, num_found, dict(sorted(benchmarks_by_image.items())))


def _iter_test_hashes(path: Path, hash_side: int) -> Iterator[bytes]:
    """The hash of every different picture in a benchmark's file, in whichever columns pictures are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pq.read_schema(path)
    columns = [field.name for field in schema if pa.types.is_struct(field.type) and _has_bytes(field.type)]
    seen: set[str] = set()
    for column in columns:
        for row, image in enumerate(pq.read_table(path, columns=[column]).column(column).to_pylist()):
            if image is None or image["bytes"] is None:
                continue
            try:
                facts = describe_image(image["bytes"], name=f"{path} row {row}", hash_side=hash_side, min_side=1)
            except RecordError as error:
                raise ArtifactError(f"{error}: build the benchmarks again") from error
            if facts.digest not in seen:
                seen.add(facts.digest)
                yield facts.hash


def _has_bytes(kind: object) -> bool:
    return any(field.name == "bytes" for field in kind)  # type: ignore[attr-defined]
