"""Data larger than memory: pieces of work on one or more processes, and tables sorted on disk, bucket by bucket."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import PositiveInt

from cambrian.interfaces import ParamsError
from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

Task = TypeVar("Task")
Result = TypeVar("Result")


class PartitionsConfig(Params):
    """How much of a pool is worked on at a time, and by whom; no result depends on it."""

    kind: Literal["processes", "threads", "ray"]
    """On this machine, or on a Ray cluster: the one that RAY_ADDRESS names in the environment, or else one made for the
    stage on this machine. All machines of a cluster see the same folders at the same paths. Threads need no start and
    decode each picture once; they wait for one another where Python itself works, so that few of them are of use."""
    num_processes: PositiveInt
    """Or threads. With 1 of this machine the stage's own process does everything."""
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

    `initializer(*arguments)` runs once in every process that computes. Results are handed over one by one.
    """
    if config.kind == "ray":
        yield from _run_on_ray(config.num_processes, function, tasks, initializer, arguments)
        return
    if config.num_processes == 1 or len(tasks) < 2:
        initializer(*arguments)
        yield from map(function, tasks)
        return
    if config.kind == "threads":
        initializer(*arguments)
        with ThreadPoolExecutor(config.num_processes) as threads:
            yield from threads.map(function, tasks)
        return
    # A forked process would share locks of Arrow's threads, in whatever state they are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        config.num_processes, mp_context=context, initializer=initializer, initargs=tuple(arguments)
    ) as executor:
        yield from executor.map(function, tasks)


def _run_on_ray(
    num_workers: int,
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    initializer: Callable[..., None],
    arguments: Sequence[Any],
) -> Iterator[Result]:
    # Before the import, which reads it: Ray would report to its makers.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ParamsError(
            "partitions.kind is ray, but Ray is not installed here: run `make setup-ray`, or take kind: processes"
        ) from error

    class Worker:
        """One process of the cluster."""

        def __init__(self) -> None:
            initializer(*arguments)

        def run(self, task: Task) -> Result:
            """The result of one task."""
            return function(task)

    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    num_cpus = ray.cluster_resources().get("CPU", 0)
    if num_cpus < num_workers:
        raise ParamsError(
            f"partitions.num_processes is {num_workers}, expected at most the {num_cpus:g} CPUs of the Ray cluster "
            f"{ray.get_runtime_context().gcs_address}: add machines to it or ask for fewer"
        )
    make = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(Worker)
    actors = [make.remote() for _ in range(num_workers)]
    try:
        pool = ray.util.ActorPool(actors)
        yield from pool.map(lambda actor, task: actor.run.remote(task), tasks)
    finally:
        for actor in actors:
            ray.kill(actor)


def keep_memory() -> None:
    """Let Arrow use an allocator that keeps for itself what was given back, where there is one.

    The usual one returns large pieces to the system at once, and the system clears every page before it lends it again:
    a third of the time where tables are made and left all the time.
    """
    import pyarrow as pa

    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())


@dataclass(frozen=True, slots=True)
class SortedRuns:
    """Tables on disk, each sorted by one column and cut at the same places, so that they merge bucket by bucket."""

    folder: Path
    key: str
    """The column's name."""
    splitters: tuple[Any, ...]
    """Rising values of the key, at which one bucket ends and the next begins."""

    def write(self, number: int, tables: Iterable[pa.Table]) -> None:
        """Write some tables, at least one, as runs of the file of this number.

        Each is sorted by the key, but where there are no splitters, which makes one bucket of everything.
        """
        import pyarrow as pa

        writer = None
        with pa.OSFile(str(self._path(number)), "wb") as file:
            for table in tables:
                writer = writer or pa.ipc.new_file(file, table.schema)
                cuts = [
                    0,
                    *(_first_at_least(table.column(self.key), value) for value in self.splitters),
                    table.num_rows,
                ]
                for start, end in pairwise(cuts):
                    batches = table.slice(start, end - start).combine_chunks().to_batches()
                    writer.write_batch(batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema))
            assert writer is not None, "a file of no runs was written"
            writer.close()

    def iter_batches(self, number: int) -> Iterator[pa.RecordBatch]:
        """A file's runs one after the other, in pieces."""
        file = self._open(number)
        for batch in range(file.num_record_batches):
            yield file.get_batch(batch)

    def iter_buckets(self, num_files: int) -> Iterator[list[pa.RecordBatch]]:
        """For each bucket the piece that every run has of it, in the order of files and of runs within them."""
        num_buckets = len(self.splitters) + 1
        for bucket in range(num_buckets):
            pieces = []
            for number in range(num_files):
                file = self._open(number)
                pieces += [file.get_batch(batch) for batch in range(bucket, file.num_record_batches, num_buckets)]
            yield pieces

    def _open(self, number: int) -> pa.ipc.RecordBatchFileReader:
        """The file of this number; only what is looked at of it comes into memory."""
        import pyarrow as pa

        return pa.ipc.open_file(pa.memory_map(str(self._path(number))))

    def _path(self, number: int) -> Path:
        return self.folder / f"runs-{number:06d}.arrow"


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
