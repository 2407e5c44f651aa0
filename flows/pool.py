"""A Prefect work pool as a place where stages run: what it has, and one stage given to it and followed to its end.

    python -m flows.pool create gpu --type process --cpus 16 --memory-gib 120 --gpus 2     once per pool

What one of its workers has at most stands in the pool itself, as the `maximum` of the job variables `cpus`,
`memory_gib` and `gpus`: Prefect's workers do not say, and a stage that wants more would wait for ever.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before prefect, which reads the environment when imported)

import argparse
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed
from prefect.utilities.callables import parameter_schema

from flows.cancellation import SERVER_FAULTS
from flows.checks import RunRefusedError
from flows.process import CancelledError
from flows.slots import Capacity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from uuid import UUID

    from prefect.client.schemas.objects import FlowRun, State

    from flows.process import Stop
    from flows.settings import Needs

HEARTBEAT_KEY = "heartbeat"
"""Of the artifact by which a worker says again and again that a stage lives."""
UNREACHABLE = "Unreachable"
"""Name of the state of a stage whose files did not pass between worker and remotes: worth another try."""
ENTRYPOINT = "flows.worker.work"
_POLL_S = float(os.environ.get("FLOWS_POOL_POLL_S", "2"))
_LOST_S = float(os.environ.get("FLOWS_LOST_S", "300"))
_PENDING_S = 1800.0
_CANCEL_S = 60.0
_MANY_CPUS = 10**6
_KUBERNETES_PATH = Path(__file__).parents[1] / "deploy/kubernetes.json"


class PoolError(RunRefusedError):
    """There is no such pool, or Prefect's server does not answer."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A work pool, with the deployment that runs stages there."""

    name: str
    capacity: Capacity
    """What one worker has at most."""
    deployment_id: UUID

    def submit(self, parameters: Mapping[str, Any], needs: Needs, *, name: str, key: str) -> FlowRun:
        """Give a stage to the pool; the same `key` finds the run that was made for it before.

        A coordinator that was killed leaves its stages running. The next one asks with the same keys, and goes on
        waiting for them. A run that has ended is of no more use (its results were not found): the next key is tried.
        """
        variables = {"cpus": needs.cpus, "memory_gib": needs.memory_gib, "gpus": needs.gpus or 0}
        with get_client(sync_client=True) as client:
            number = 0
            while True:
                run = client.create_flow_run_from_deployment(
                    self.deployment_id,
                    parameters=dict(parameters),
                    idempotency_key=f"{key}-{number}",
                    job_variables=variables,
                    name=name,
                )
                if run.state is None or not run.state.is_final():
                    return run
                number += 1

    def follow(self, run_id: UUID, *, stop: Stop, write_line: Callable[[str], None]) -> State[Any]:
        """Wait until a run has ended, and pass on its log; returns its final state.

        A run whose worker says nothing for minutes is given up: its state becomes Crashed, and the worker, should it
        live, ends the stage when it hears of it. A server that does not answer is no fault of the worker's.

        Raises:
            CancelledError: `stop` was asked; the run was cancelled.
        """
        watch = _Watch(run_id, write_line)
        with get_client(sync_client=True) as client:
            while not stop.is_asked:
                try:
                    state = watch.look(client)
                    if state is not None:
                        return state
                except SERVER_FAULTS as error:
                    watch.excuse(error)
                time.sleep(_POLL_S)
        _cancel(run_id)
        raise CancelledError("cancelled")


class _Watch:
    """What is known of a run on a worker."""

    def __init__(self, run_id: UUID, write_line: Callable[[str], None]) -> None:
        self._run_id = run_id
        self._write_line = write_line
        self._num_lines = 0
        self._sign: Any = None
        self._since = time.monotonic()
        self._is_reachable = True

    def look(self, client: Any) -> State[Any] | None:
        """Ask the server; the final state when there is one."""
        self._is_reachable = True
        state: State[Any] | None = client.read_flow_run(self._run_id).state
        self._pass_log_on(client)
        if state is None or state.is_final():
            return state
        beats = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=[self._run_id]), key=ArtifactFilterKey(any_=[HEARTBEAT_KEY])
            )
        )
        # the server's time stamps are compared with each other only: clocks differ
        sign = (state.id, *sorted(beat.updated for beat in beats if beat.updated))
        if sign != self._sign:
            self._sign, self._since = sign, time.monotonic()
        silent_s = time.monotonic() - self._since
        if silent_s <= (_LOST_S if state.is_running() else _PENDING_S) or state.is_scheduled():
            return None
        lost: State[Any] = Crashed(message=f"given up: its worker has said nothing for {silent_s:.0f} s")
        client.set_flow_run_state(self._run_id, lost, force=True)
        return lost

    def excuse(self, error: Exception) -> None:
        """Note that the server did not answer: nothing is known of the worker."""
        self._since = time.monotonic()
        if self._is_reachable:
            self._write_line(f"Prefect's server does not answer, and is asked again: {error!r}")
        self._is_reachable = False

    def _pass_log_on(self, client: Any) -> None:
        lines = client.read_logs(
            LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self._run_id])), offset=self._num_lines, limit=200
        )
        self._num_lines += len(lines)
        for line in lines:
            self._write_line(line.message)


def find_pool(name: str) -> Pool:
    """Look a pool up, and make sure that it has the deployment which runs stages.

    Raises:
        PoolError: there is none of that name.
    """
    from flows.worker import work

    try:
        with get_client(sync_client=True) as client:
            try:
                pool = client.read_work_pool(name)
            except ObjectNotFound as error:
                raise PoolError(
                    f"there is no work pool {name}; `python -m flows.pool create {name}` makes one (docs/remote.md)"
                ) from error
            deployment_id = client.create_deployment(
                client.create_flow_from_name(work.name),
                name,
                work_pool_name=name,
                entrypoint=ENTRYPOINT,
                parameter_openapi_schema=parameter_schema(work).model_dump(),
                description="One DVC stage on a worker of this pool; `python -m flows.reproduce --pool` starts it.",
            )
    except SERVER_FAULTS as error:
        raise PoolError(f"Prefect's server does not answer: {error!r}") from error
    return Pool(name, read_capacity(name, pool.base_job_template), deployment_id)


def read_capacity(name: str, template: Mapping[str, Any]) -> Capacity:
    """Read what one worker has from a pool's job template; of GPUs and memory that it does not name there are none."""
    properties = template.get("variables", {}).get("properties", {})
    maxima = {key: properties.get(key, {}).get("maximum") for key in ("cpus", "memory_gib", "gpus")}
    return Capacity(
        cpus=maxima["cpus"] or _MANY_CPUS,
        memory_gib=maxima["memory_gib"] or 0,
        gpus=tuple(str(number) for number in range(maxima["gpus"] or 0)),
        place=f"on a worker of pool {name} there",
    )


def _cancel(run_id: UUID) -> None:
    """Cancel a run, and wait until its worker has ended it; not for long, as nobody else may be there to do it."""
    deadline = time.monotonic() + _CANCEL_S
    with suppress(*SERVER_FAULTS), get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Cancelling())
        while time.monotonic() < deadline:
            state = client.read_flow_run(run_id).state
            if state is None or state.is_final():
                return
            time.sleep(_POLL_S)


def create_pool(name: str, *, kind: str, cpus: int, memory_gib: float, gpus: int) -> None:
    """Make a work pool, or replace what it says of its workers.

    Args:
        name: of the pool.
        kind: `process`, or `kubernetes`, whose job template is in deploy/kubernetes.json.
        cpus: processors of one worker.
        memory_gib: its memory.
        gpus: its GPUs.
    """
    template = build_template(kind, cpus=cpus, memory_gib=memory_gib, gpus=gpus)
    with get_client(sync_client=True) as client:
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type=kind,
                base_job_template=template,
                description=f"DVC stages; one worker has {cpus} cpus, {memory_gib:g} GiB and {gpus} gpus",
            ),
            overwrite=True,
        )


def build_template(kind: str, *, cpus: int, memory_gib: float, gpus: int) -> dict[str, Any]:
    """Build a pool's job template: that of its kind, with what a job may ask for at most.

    Raises:
        PoolError: not a kind that is known.
    """
    if kind == "kubernetes":
        template: dict[str, Any] = json.loads(_KUBERNETES_PATH.read_text(encoding="utf-8"))
    elif kind == "process":
        from prefect.workers.process import ProcessWorker

        template = ProcessWorker.get_default_base_job_template()
    else:
        raise PoolError(f"{kind} is not a kind of pool that stages run in; expected process or kubernetes")
    for key, word, most in (("cpus", "integer", cpus), ("memory_gib", "number", memory_gib), ("gpus", "integer", gpus)):
        template["variables"]["properties"][key] = {
            "title": f"What a stage asks for: {key}",
            "type": word,
            "minimum": 0,
            "maximum": most,
            "default": 0,
        }
    return template


def main() -> None:
    """Make a pool."""
    parser = argparse.ArgumentParser(description="Work pools in which DVC stages run.", allow_abbrev=False)
    create = parser.add_subparsers(dest="command", required=True).add_parser("create")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--type", dest="kind", default="process", help="process (default) or kubernetes")
    create.add_argument("--cpus", type=int, required=True, help="processors of one worker")
    create.add_argument("--memory-gib", type=float, required=True, help="its memory")
    create.add_argument("--gpus", type=int, required=True, help="its GPUs")
    args = parser.parse_args()
    try:
        create_pool(args.name, kind=args.kind, cpus=args.cpus, memory_gib=args.memory_gib, gpus=args.gpus)
    except (PoolError, *SERVER_FAULTS) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
