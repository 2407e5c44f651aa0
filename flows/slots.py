"""What a machine has, and which stages hold how much of it."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

from flows.leases import Lease, take_gpus

if TYPE_CHECKING:
    from flows.settings import Needs

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Capacity:
    """What stages may use at the same time."""

    cpus: int
    memory_gib: float
    gpus: tuple[str, ...]
    """Names as CUDA_VISIBLE_DEVICES has them."""

    place: str = "there"
    """Where, as in: needs 2 gpus, and there are 1."""

    def find_lack(self, needs: Needs) -> str | None:
        """Say what of `needs` there will never be enough of, or None; with too few processors a stage is only slow."""
        for name, wanted, there in (
            ("GiB of memory", needs.memory_gib, self.memory_gib),
            ("gpus", needs.gpus or 0, len(self.gpus)),
        ):
            if wanted > there:
                return f"needs {wanted:g} {name}, and {self.place} are {there:g}"
        return None


@dataclass(frozen=True, slots=True)
class Holding:
    """What one stage holds while it runs."""

    needs: Needs
    gpus: tuple[Lease, ...]
    is_elsewhere: bool = False
    """Whether it runs on another machine, of which it holds nothing here."""

    def build_environment(self) -> dict[str, str]:
        """Name the GPUs that the stage may see: those it asked for, also when it asked for 0."""
        if self.needs.gpus is None:
            return {}
        return {"CUDA_VISIBLE_DEVICES": ",".join(lease.path.name for lease in self.gpus)}


class Slots:
    """The machine's capacity less what is held. Not for several threads."""

    def __init__(self, capacity: Capacity, *, elsewhere: frozenset[str] = frozenset()) -> None:
        """Begin with everything free; stages that run `elsewhere` take nothing."""
        self.capacity = capacity
        self._elsewhere = elsewhere
        self._held: list[Holding] = []

    def take(self, address: str, needs: Needs) -> Holding | None:
        """Take what a stage needs, all or nothing; None when it is not free now.

        A stage that wants more processors than there are takes all of them.
        """
        if address in self._elsewhere:
            return Holding(needs, (), is_elsewhere=True)
        # added up anew each time: adding and subtracting fractions in turn would not come back to where it began
        wanted = min(needs.cpus, self.capacity.cpus)
        cpus = sum(min(holding.needs.cpus, self.capacity.cpus) for holding in self._held) + wanted
        memory_gib = sum(holding.needs.memory_gib for holding in self._held) + needs.memory_gib
        if cpus > self.capacity.cpus or memory_gib > self.capacity.memory_gib:
            return None
        gpus = take_gpus(needs.gpus or 0, self.capacity.gpus, holder=f"{address} of process {os.getpid()}")
        if gpus is None:
            return None
        holding = Holding(needs, tuple(gpus))
        self._held.append(holding)
        return holding

    def give_back(self, holding: Holding) -> None:
        """Free what a stage held."""
        if holding.is_elsewhere:
            return
        self._held.remove(holding)
        for lease in holding.gpus:
            lease.release()


def measure_capacity(
    *, cpus: int | None = None, memory_gib: float | None = None, gpus: tuple[str, ...] | None = None
) -> Capacity:
    """Find out what this process may use of the machine; what is given is taken as given."""
    return Capacity(
        cpus=count_cpus() if cpus is None else cpus,
        memory_gib=psutil.virtual_memory().total / _GIB if memory_gib is None else memory_gib,
        gpus=find_gpus() if gpus is None else gpus,
    )


def count_cpus() -> int:
    """How many processors this process may use; where the system does not say (macOS), all that there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_gpus() -> tuple[str, ...]:
    """Name the GPUs that this process sees, as CUDA_VISIBLE_DEVICES does."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True
        ).stdout
    except (FileNotFoundError, subprocess.CalledProcessError):  # no driver, or one that sees no device
        return ()
    return tuple(listed.split())
