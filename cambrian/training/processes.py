"""The processes that train one model together, as a launcher started them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from cambrian.artifacts import write_folder
from cambrian.interfaces import ArtifactError, ParamsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")

RANK, COUNT, LOCAL_RANK = "RANK", "WORLD_SIZE", "LOCAL_RANK"
"""Environment variables that torchrun and DeepSpeed's launcher set in every process."""


class Processes:
    """What the processes tell each other; one alone tells itself, without torch's distributed package.

    Every method that takes values is called by all of them, in the same order.
    """

    def __init__(self, rank: int, count: int) -> None:
        self.rank = rank
        self.count = count

    @property
    def is_main(self) -> bool:
        """Whether this process writes what only one may write."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add the processes' values up, place by place, in float64."""
        if self.count == 1:
            return list(values)
        import torch

        total = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        summed: list[float] = total.tolist()
        return summed

    def any(self, fact: bool) -> bool:
        """Whether it holds in one of them."""
        return self.sum([float(fact)])[0] > 0

    def gather(self, value: T) -> list[T]:
        """Everybody's value, in the order of ranks."""
        if self.count == 1:
            return [value]
        import torch

        values: list[T | None] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]  # all places are filled now

    @contextmanager
    def write_folder(self, output: Path) -> Iterator[Path]:
        """As `cambrian.artifacts.write_folder`, for a folder into which every process writes files of its own.

        The block must not wait for other processes after it began to write: one whose disk is full leaves it early.

        Raises:
            ArtifactError: in all processes, where one of them could not write.
        """
        if self.count == 1:
            with write_folder(output) as partial:
                yield partial
            return
        if self.is_main:
            with write_folder(output) as partial:
                self.gather(None)  # the folder is there
                yield from self._write_part(output, partial)
        else:
            self.gather(None)
            yield from self._write_part(output, output.with_name(f".{output.name}.partial"))
        self.gather(None)  # the folder has its name

    def _write_part(self, output: Path, partial: Path) -> Iterator[Path]:
        fault = None
        try:
            yield partial
        except OSError as error:
            fault = f"process {self.rank}: {error}"
        if faults := [found for found in self.gather(fault) if found]:
            raise ArtifactError(
                f"{output} could not be written: {'; '.join(faults)}. Nothing was left behind; free space or mend the "
                "folder's permissions and run `dvc repro` again"
            )


def is_launched() -> bool:
    """Whether a launcher started this process."""
    return RANK in os.environ


def join_processes() -> Processes:
    """Find the other processes; without a launcher there are none.

    Raises:
        ParamsError: the launcher set only a part of its variables.
    """
    if not is_launched():
        return Processes(0, 1)
    if missing := [name for name in (COUNT, LOCAL_RANK) if name not in os.environ]:
        raise ParamsError(
            f"{RANK} is set in the environment and {', '.join(missing)} is not: start by torchrun or DeepSpeed's "
            f"launcher, which set all of them, or unset {RANK}"
        )
    processes = Processes(int(os.environ[RANK]), int(os.environ[COUNT]))
    if processes.count > 1:
        import torch

        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return processes
