"""Data larger than memory: pieces of work on one or more processes, and tables sorted on disk, bucket by bucket."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import PositiveInt

from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

Task = TypeVar("Task")
Result = TypeVar("Result")


class PartitionsConfig(Params):
    """How much of a pool is worked on at a time, and by whom; no result depends on it."""

    kind: Literal["processes"]
    num_processes: PositiveInt
    """With 1 the stage's own process does everything."""
    chunk_bytes: PositiveInt
    """Of the input: one piece of work."""
    bucket_bytes: PositiveInt
    """Of the output: what is sorted in memory at a time."""

    def num_buckets(self, num_bytes: int) -> int:
        """Into how many buckets so many bytes are sorted."""
        return max(-(-num_bytes // self.bucket_bytes), 1)


def run_tasks(
    config: PartitionsConfig,
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    initializer: Callable[..., None],
    arguments: Sequence[Any],
) -> Iterator[Result]:
    """Yield the function's results in the order of the tasks, computed by the configured number of processes.

    `initializer(*arguments)` runs once in every process that computes. Results are handed over one by one, so that no
    more than a few wait.
    """
    if config.num_processes == 1 or len(tasks) < 2:
        initializer(*arguments)
        yield from map(function, tasks)
        return
    # A forked process would share locks of Arrow's threads, in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        config.num_processes, mp_context=context, initializer=initializer, initargs=tuple(arguments)
    ) as executor:
        yield from executor.map(function, tasks)


@dataclass(frozen=True, slots=True)
class SortedRuns:
    """Tables on disk, each sorted by one column and cut at the same places, so that they merge bucket by bucket."""

    folder: Path
    key: str
    """The column's name."""
    splitters: tuple[Any, ...]
    """Rising values of the key, at which one bucket ends and the next begins."""

    def write(self, number: int, table: pa.Table) -> None:
        """Write one table, which is sorted by the key, as the run of this number."""
        import pyarrow as pa

        cuts = [0, *(_first_at_least(table.column(self.key), value) for value in self.splitters), table.num_rows]
        with pa.OSFile(str(self._path(number)), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            for start, end in pairwise(cuts):
                batches = table.slice(start, end - start).combine_chunks().to_batches()
                writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema))

    def read(self, number: int) -> pa.Table:
        """The whole run of this number."""
        import pyarrow as pa

        with pa.OSFile(str(self._path(number)), "rb") as file:
            return pa.ipc.open_file(file).read_all()

    def iter_buckets(self, num_runs: int) -> Iterator[list[pa.RecordBatch]]:
        """For each bucket the piece that every run has of it, in the order of the runs."""
        import pyarrow as pa

        for bucket in range(len(self.splitters) + 1):
            pieces = []
            for number in range(num_runs):
                with pa.OSFile(str(self._path(number)), "rb") as file:
                    pieces.append(pa.ipc.open_file(file).get_batch(bucket))
            yield pieces

    def _path(self, number: int) -> Path:
        return self.folder / f"run-{number:06d}.arrow"


def even_splitters(values: Sequence[Any], num_buckets: int) -> tuple[Any, ...]:
    """Values that cut a sorted sample into so many parts of about one size; fewer where the sample repeats itself."""
    cuts = (values[len(values) * number // num_buckets] for number in range(1, num_buckets)) if values else ()
    return tuple(dict.fromkeys(cuts))


def even_rank_splitters(num_buckets: int) -> tuple[int, ...]:
    """Values that cut 64-bit hashes into so many parts of about one size."""
    return tuple(2**64 * number // num_buckets for number in range(1, num_buckets))


def _first_at_least(column: pa.ChunkedArray, value: Any) -> int:
    low, high = 0, len(column)
    while low < high:
        middle = (low + high) // 2
        if column[middle].as_py() < value:
            low = middle + 1
        else:
            high = middle
    return low
