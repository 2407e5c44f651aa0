"""Test images among training images, found by difference hashing.

Source: paper, table 19 (NeurIPS numbering).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.data.duplicates import HashIndex
from cambrian.data.image_facts import describe_image
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa

    from cambrian.data.image_facts import ImageFacts

BENCHMARK_FILE = "test.parquet"

_ROWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class TestImage:
    """One picture of a benchmark's file, and the training images that it looks like."""

    benchmark: str
    column: str
    row: int
    digest: str
    """XXH3, 128 bits, of the encoded picture: by it an item knows its own picture again."""
    training_images: list[str]
    """Names in the pool, sorted; none where the picture is clean."""


@dataclass(frozen=True, slots=True)
class Leakage:
    """How many test images of each benchmark are among the training images, and which training images those are."""

    num_images: dict[str, int]
    """Different test images per benchmark."""
    num_found: dict[str, int]
    """How many of them look like a training image."""
    benchmarks_by_image: dict[str, list[str]]
    """For each training image that looks like a test image, the benchmarks that it is from."""
    test_images: list[TestImage]
    """Every picture of every row, by benchmark, column and row."""

    @property
    def found_share(self) -> float:
        """Found test images among all test images, as in the paper's last row."""
        total = sum(self.num_images.values())
        return sum(self.num_found.values()) / total if total else 0.0


class LeakageFinder:
    """Compares training images, which come piece by piece, with the test images of every benchmark of a folder."""

    def __init__(self, benchmarks: Path, *, hash_side: int, max_distance: int) -> None:
        """Read the test images.

        Raises:
            ArtifactError: the folder has no benchmark, or a test image cannot be decoded.
        """
        paths = sorted(benchmarks.glob(f"*/{BENCHMARK_FILE}"))
        if not paths:
            raise ArtifactError(f"{benchmarks} has no */{BENCHMARK_FILE}: run the stage that builds the benchmarks")
        self._index = HashIndex(max_distance)
        self._digests: list[str] = []
        self._places: list[tuple[str, str, int, str]] = []
        self._benchmarks = [path.parent.name for path in paths]
        self._found: dict[str, set[str]] = {}
        for path in paths:
            for column, row, facts in _iter_test_images(path, hash_side):
                if facts.digest not in self._found:
                    self._found[facts.digest] = set()
                    self._digests.append(facts.digest)
                    self._index.add(facts.hash)
                self._places.append((path.parent.name, column, row, facts.digest))

    def add(self, training_hashes: Mapping[str, bytes]) -> set[str]:
        """Look at training images, name to difference hash; the names of those that look like a test image."""
        leaked = set()
        for name, value in training_hashes.items():
            for number in self._index.find(value):
                self._found[self._digests[number]].add(name)
                leaked.add(name)
        return leaked

    def finish(self) -> Leakage:
        """What was found among all training images so far."""
        digests: dict[str, set[str]] = {benchmark: set() for benchmark in self._benchmarks}
        for benchmark, _, _, digest in self._places:
            digests[benchmark].add(digest)
        benchmarks_by_image: dict[str, list[str]] = {}
        for benchmark, members in digests.items():
            for name in sorted({name for digest in members for name in self._found[digest]}):
                benchmarks_by_image.setdefault(name, []).append(benchmark)
        return Leakage(
            num_images={benchmark: len(members) for benchmark, members in digests.items()},
            num_found={
                benchmark: sum(bool(self._found[digest]) for digest in members)
                for benchmark, members in digests.items()
            },
            benchmarks_by_image=dict(sorted(benchmarks_by_image.items())),
            test_images=[
                TestImage(benchmark, column, row, digest, sorted(self._found[digest]))
                for benchmark, column, row, digest in self._places
            ],
        )


def write_leakage(path: Path, leakage: Leakage) -> None:
    """Write one row per picture of a benchmark as Parquet: benchmark, column, row, digest, training_images."""
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {
        "benchmark": pa.string(),
        "column": pa.string(),
        "row": pa.int64(),
        "digest": pa.string(),
        "training_images": pa.list_(pa.string()),
    }
    columns = {name: [getattr(image, name) for image in leakage.test_images] for name in kinds}
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table(columns, schema=pa.schema(kinds)), partial)
        os.replace(partial, path)
    except OSError as error:
        raise ArtifactError(f"{path} could not be written: {error}. Free space and run `dvc repro` again") from error
    finally:
        partial.unlink(missing_ok=True)


def _iter_test_images(path: Path, hash_side: int) -> Iterator[tuple[str, int, ImageFacts]]:
    """Column, row and facts of every picture in a benchmark's file, in the columns of pictures or of lists of them."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    for column in [field.name for field in file.schema_arrow if _holds_pictures(field.type)]:
        row = -1
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column]):
            for value in batch.column(0).to_pylist():
                row += 1
                for image in value if isinstance(value, list) else [value]:  # SEED-Bench's column holds lists
                    if image is None or image["bytes"] is None:
                        continue
                    try:
                        facts = describe_image(
                            image["bytes"], name=f"{path} row {row}", hash_side=hash_side, min_side=1
                        )
                    except RecordError as error:
                        raise ArtifactError(f"{error}: build the benchmarks again") from error
                    yield column, row, facts


def _holds_pictures(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return _holds_pictures(kind.value_type)
    return pa.types.is_struct(kind) and any(field.name == "bytes" for field in kind)
