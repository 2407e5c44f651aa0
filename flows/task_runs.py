"""Task runs of stages for which nothing is started: Prefect's UI shows them, its engine never runs them.

Two hundred up-to-date stages would take Prefect's engine longer than DVC takes for everything. A task run comes to be
when the server hears of its first state; here the first is the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from prefect.client.schemas.objects import TaskRun, TaskRunResult
from prefect.states import Cancelled, Completed
from prefect.utilities.engine import emit_task_run_state_change_event

from flows.schedule import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from prefect.client.schemas.objects import State


def record_task_run(
    address: str, outcome: Outcome, message: str, *, task_key: str, flow_run_id: UUID, upstream: Iterable[State[Any]]
) -> State[Any]:
    """Show a stage that ended without having started, behind the task runs of `upstream`.

    Args:
        address: its name in the UI.
        outcome: CACHED or SKIPPED.
        message: what the UI says about it.
        task_key: of the task that would have run it.
        flow_run_id: of the run that it is part of.
        upstream: how the stages that it depends on ended.
    """
    make = Completed if outcome is Outcome.CACHED else Cancelled
    state: State[Any] = make(name=outcome.value, message=message, data=address)  # without data, nothing can wait for it
    run = TaskRun.model_validate(
        {
            "id": uuid4(),
            "name": address,
            "flow_run_id": flow_run_id,
            "task_key": task_key,
            "dynamic_key": str(uuid4()),
            "state": state,
            "state_id": state.id,
            "state_type": state.type,
            "state_name": state.name,
            **dict.fromkeys(("start_time", "end_time", "expected_start_time"), state.timestamp),
            "task_inputs": {
                "wait_for": [
                    TaskRunResult(id=before.state_details.task_run_id)
                    for before in upstream
                    if before.state_details.task_run_id is not None
                ]
            },
        }
    )
    state.state_details.task_run_id = run.id
    state.state_details.flow_run_id = flow_run_id
    emit_task_run_state_change_event(task_run=run, initial_state=None, validated_state=state)
    return state
