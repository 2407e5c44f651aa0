"""The loop of a run: starts what is ready as long as there are slots, and takes note of what ends. Knows no Prefect."""

from __future__ import annotations

import time
from dataclasses import dataclass
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Protocol

from flows.durations import record_duration
from flows.nursery import Nursery
from flows.process import Stop
from flows.schedule import Outcome
from flows.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from flows.graph import StageNode
    from flows.leases import Lease
    from flows.schedule import Schedule
    from flows.settings import Needs
    from flows.slots import Holding, Slots

_POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Ended:
    """How a stage that was launched ended."""

    address: str
    outcome: Outcome
    message: str


class Launch(Protocol):
    """Starts a stage in another thread; `done` is to be called once, with how it ended."""

    def __call__(  # noqa: D102
        self,
        stage: StageNode,
        done: Callable[[Ended], None],
        *,
        holding: Holding,
        watchdog: Watchdog,
        stop: Stop,
        nursery: Nursery,
    ) -> None: ...


class Coordinator:
    """One run over its stages."""

    def __init__(
        self,
        schedule: Schedule,
        slots: Slots,
        needs: Mapping[str, Needs],
        lease: Lease,
        *,
        launch: Launch,
        record: Callable[[StageNode, Outcome, str], None],
        is_up_to_date: Callable[[str], bool],
        is_cancelled: Callable[[], bool],
        dvc_tmp: Path,
    ) -> None:
        """Get ready; nothing is started.

        Args:
            schedule: the stages, all of them waiting.
            slots: the machine's, all of them free.
            needs: what the stages that may start take of it.
            lease: on the workspace, which the watchdog shares.
            launch: starts a stage.
            record: shows a stage that ends without having been launched.
            is_up_to_date: asks DVC, once everything before the stage is up to date.
            is_cancelled: says whether somebody wants the run to end; called often.
            dvc_tmp: where durations are noted.
        """
        self.schedule = schedule
        self.seconds: dict[str, float] = {}
        """Wall time of the stages that were launched."""
        self._slots = slots
        self._needs = needs
        self._lease = lease
        self._launch = launch
        self._record = record
        self._is_up_to_date = is_up_to_date
        self._is_cancelled = is_cancelled
        self._dvc_tmp = dvc_tmp
        self._stop = Stop()
        self._ended: Queue[Ended] = Queue()
        self._held: dict[str, tuple[Holding, float]] = {}
        self._checked: set[str] = set()
        self._watchdog: Watchdog | None = None
        self._nursery: Nursery | None = None

    def run(self, up_to_date: set[str]) -> None:
        """Run until every stage has ended; `up_to_date` is what is known to have nothing to do.

        An exception (Ctrl-C is one) ends the stages that run, and is raised again when none of them is left; another
        one meanwhile kills them.
        """
        try:
            for node in self.schedule.list_nodes():
                if node.address in up_to_date:
                    self._end(node, Outcome.CACHED, "up to date")
            while not self.schedule.is_over:
                before = len(self.schedule.outcomes)
                self._start_ready()
                self._skip_hopeless()
                if self.schedule.running:
                    self._take_ended()
                elif len(self.schedule.outcomes) == before:
                    time.sleep(_POLL_S)  # another run of this machine has the GPUs
                if self._is_cancelled() and not self._stop.is_asked:
                    self._stop.ask()
                    self.schedule.cancel()
        finally:
            self._end_running()
            if self._watchdog is not None:
                self._watchdog.close()
            if self._nursery is not None:
                self._nursery.close()

    def _start_ready(self) -> None:
        if self._stop.is_asked:
            return
        hopeless = self.schedule.list_hopeless()
        for node in self.schedule.list_ready():
            if node.address in hopeless:
                continue
            if node.address not in self._checked:
                if self._is_up_to_date(node.address):
                    self._end(node, Outcome.CACHED, "up to date")
                    continue
                self._checked.add(node.address)
            holding = self._slots.take(node.address, self._needs[node.address])
            if holding is not None:
                self._start(node, holding)

    def _start(self, node: StageNode, holding: Holding) -> None:
        if self._watchdog is None or self._nursery is None:
            self._watchdog, self._nursery = Watchdog(self._lease.descriptor), Nursery()
        self.schedule.start(node.address)
        self._held[node.address] = (holding, time.monotonic())
        self._launch(
            node, self._ended.put, holding=holding, watchdog=self._watchdog, stop=self._stop, nursery=self._nursery
        )

    def _take_ended(self) -> None:
        """Wait a moment for stages to end."""
        try:
            ended: Any = self._ended.get(timeout=_POLL_S)
        except Empty:
            return
        holding, started = self._held.pop(ended.address)
        self._slots.give_back(holding)
        self.seconds[ended.address] = time.monotonic() - started
        if ended.outcome is Outcome.COMPLETED:
            record_duration(self._dvc_tmp, ended.address, self.seconds[ended.address])
        self.schedule.end(ended.address, ended.outcome)

    def _skip_hopeless(self) -> None:
        hopeless = self.schedule.list_hopeless()
        for node in self.schedule.list_nodes():
            if node.address in hopeless:
                self._end(node, Outcome.SKIPPED, hopeless[node.address])

    def _end(self, node: StageNode, outcome: Outcome, message: str) -> None:
        self._record(node, outcome, message)
        self.schedule.end(node.address, outcome)

    def _end_running(self) -> None:
        """After an exception: have running stages ended, and wait for that; interrupts meanwhile make it faster."""
        if not self.schedule.running:
            return
        self._stop.ask()
        while self.schedule.running:
            try:
                self._take_ended()
            except (KeyboardInterrupt, SystemExit):
                self._stop.ask()
