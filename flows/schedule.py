"""Which stage may start when: the graph's order, and what an end means for the stages that wait. Knows no Prefect."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flows.graph import StageNode


class Outcome(Enum):
    """How a stage ended; the value is the name that the UI shows."""

    COMPLETED = "Completed"
    CACHED = "Cached"
    RESTORED = "Restored"
    FAILED = "Failed"
    SKIPPED = "Skipped"
    CANCELLED = "Cancelled"

    @property
    def is_good(self) -> bool:
        """Whether the stage is up to date."""
        return self in (Outcome.COMPLETED, Outcome.CACHED, Outcome.RESTORED)


class Schedule:
    """The stages of a run: which wait, run, ended, and how."""

    def __init__(self, stages: Sequence[StageNode], *, keep_going: bool, durations: Mapping[str, float]) -> None:
        """Begin with every stage waiting.

        Args:
            stages: each after everything that it depends on.
            keep_going: whether stages that do not depend on a failed one still start.
            durations: seconds by address, as far as known; stages with much behind them are started first.
        """
        self.outcomes: dict[str, Outcome] = {}
        self._nodes = {stage.address: stage for stage in stages}
        self._keep_going = keep_going
        self._is_cancelled = False
        self._running: set[str] = set()
        self._remaining_s = _add_up_paths(stages, durations)

    @property
    def is_over(self) -> bool:
        """Whether every stage has ended."""
        return len(self.outcomes) == len(self._nodes)

    @property
    def running(self) -> frozenset[str]:
        """Addresses of the stages that run."""
        return frozenset(self._running)

    def list_nodes(self) -> list[StageNode]:
        """List all stages, in the order of the plan."""
        return list(self._nodes.values())

    def list_ready(self) -> list[StageNode]:
        """List the stages that could start now: everything before them is up to date.

        The one from which the longest way leads to the end comes first.
        """
        ready = [
            node
            for node in self._list_waiting()
            if all(upstream in self.outcomes and self.outcomes[upstream].is_good for upstream in node.upstream)
        ]
        return sorted(ready, key=lambda node: -self._remaining_s[node.address])

    def list_hopeless(self) -> dict[str, str]:
        """Say of the stages that will not start why not; empty while nothing has failed."""
        if not self._is_cancelled and all(outcome.is_good for outcome in self.outcomes.values()):
            return {}  # asked twice a second, and there may be hundreds of stages with hundreds of others before them
        reasons: dict[str, str] = {}
        failed = [address for address, outcome in self.outcomes.items() if outcome is Outcome.FAILED]
        for node in self._list_waiting():
            bad = [up for up in node.upstream if up in reasons or not self.outcomes.get(up, Outcome.CACHED).is_good]
            if bad:
                how = self.outcomes.get(bad[0], Outcome.SKIPPED).value
                reasons[node.address] = f"not started: it depends on {bad[0]}, which is {how}"
            elif self._is_cancelled:
                reasons[node.address] = "not started: the flow run was cancelled"
            elif failed and not self._keep_going:
                reasons[node.address] = (
                    f"not started: {failed[0]} failed (--keep-going goes on with stages that do not depend on it)"
                )
        return reasons

    def cancel(self) -> None:
        """Let no more stages start."""
        self._is_cancelled = True

    def start(self, address: str) -> None:
        """Note that a stage runs."""
        self._running.add(address)

    def end(self, address: str, outcome: Outcome) -> None:
        """Note how a stage ended, whether it ran or not."""
        self._running.discard(address)
        self.outcomes[address] = outcome

    def _list_waiting(self) -> Iterable[StageNode]:
        gone = self.outcomes.keys() | self._running
        return (node for node in self._nodes.values() if node.address not in gone)


def _add_up_paths(stages: Sequence[StageNode], durations: Mapping[str, float]) -> dict[str, float]:
    """Sum for every stage the seconds of the longest way from its start to the end of everything behind it."""
    unknown_s = sum(durations.values()) / len(durations) if durations else 1.0
    behind: dict[str, float] = dict.fromkeys((stage.address for stage in stages), 0.0)
    for stage in reversed(stages):
        own = behind[stage.address] + durations.get(stage.address, unknown_s)
        behind[stage.address] = own
        for upstream in stage.upstream:
            behind[upstream] = max(behind[upstream], own)
    return behind
