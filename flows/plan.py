"""What a run would do, before it does anything: which stages, why, for how long, and on what."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.durations import estimate, read_durations
from flows.schedule import Outcome, Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flows.changes import Change
    from flows.graph import Project, StageNode
    from flows.settings import Needs, Settings
    from flows.slots import Capacity


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage that would run, or would be looked at again once what it depends on has run."""

    address: str
    reason: str
    """What changed, or which stage before it would run."""
    seconds: float | None
    """As it took last time, or as the other instances of its foreach took; None when nobody knows."""
    needs: Needs


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that has not started."""

    stages: tuple[PlannedStage, ...]
    """In DVC's order."""
    num_up_to_date: int
    wall_s: float
    """If the stages take what they took before, and all of them run; stages of unknown length count nothing."""

    @property
    def total_s(self) -> float:
        """Seconds of the stages one after the other, as far as known."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def num_unknown(self) -> int:
        """Stages of unknown length."""
        return sum(stage.seconds is None for stage in self.stages)


def plan_run(
    project: Project, nodes: Sequence[StageNode], settings: Settings, capacity: Capacity, *, force: bool
) -> Plan:
    """Plan what a run over planned stages would do.

    Raises:
        GraphError: DVC cannot tell whether a stage is up to date.
        SettingsError: what a stage needs cannot be read.
    """
    up_to_date = set() if force else project.find_up_to_date(nodes)
    to_run = [node for node in nodes if node.address not in up_to_date]
    durations = estimate((node.address for node in to_run), read_durations(project.temporary))
    waiting = {node.address for node in to_run}
    stages = []
    for node in to_run:
        before = [address for address in node.upstream if address in waiting]
        stages.append(
            PlannedStage(
                address=node.address,
                reason=_find_reason(project.explain(node.address), before, force=force),
                seconds=durations.get(node.address),
                needs=settings.find_needs(node.address, meta=node.meta, params=project.read_params(node.address)),
            )
        )
    needs = {stage.address: stage.needs for stage in stages}
    return Plan(tuple(stages), len(up_to_date), estimate_wall(nodes, up_to_date, durations, needs, capacity))


def estimate_wall(
    nodes: Sequence[StageNode],
    up_to_date: set[str],
    durations: Mapping[str, float],
    needs: Mapping[str, Needs],
    capacity: Capacity,
) -> float:
    """Play a run through, with stages that take what they took before; what starts when is what a run would decide.

    A stage that needs more than there is counts as if it had all.
    """
    schedule = Schedule(nodes, keep_going=False, durations=durations)
    for address in up_to_date:
        schedule.end(address, Outcome.CACHED)
    whole = (float(capacity.cpus), capacity.memory_gib, float(len(capacity.gpus)))
    now_s = 0.0
    running: list[tuple[float, str, tuple[float, ...]]] = []
    while not schedule.is_over:
        for node in schedule.list_ready():
            need = needs[node.address]
            wanted = (need.cpus, need.memory_gib, need.gpus or 0)
            takes = tuple(min(part, there) for part, there in zip(wanted, whole, strict=True))
            held = [sum(parts) for parts in zip(takes, *(other for _, _, other in running), strict=True)]
            if all(part <= there for part, there in zip(held, whole, strict=True)):
                schedule.start(node.address)
                heapq.heappush(running, (now_s + durations.get(node.address, 0.0), node.address, takes))
        now_s, address, _ = heapq.heappop(running)
        schedule.end(address, Outcome.COMPLETED)
    return now_s


def _find_reason(changes: Sequence[Change], before: Sequence[str], *, force: bool) -> str:
    if changes:
        named = [f"{change.kind} {change.subject}".rstrip() for change in changes]
        return ", ".join(named[:2]) + (f" and {len(named) - 2} more" if len(named) > 2 else "")
    if before:
        return f"after {before[0]}" + (f" and {len(before) - 1} more" if len(before) > 1 else "")
    return "--force" if force else "unknown to us"
