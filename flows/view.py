"""The stages of a run as Prefect's task runs: what the UI shows of them, and what runs behind it."""

from __future__ import annotations

import threading
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from prefect import allow_failure, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed

from flows.cancellation import SERVER_FAULTS
from flows.coordinator import Ended
from flows.execute import Execution, execute_stage
from flows.process import CancelledError, LimitError
from flows.publishing import describe_stage
from flows.schedule import Outcome
from flows.task_runs import record_task_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from prefect.client.schemas.objects import State

    from flows.elsewhere import Elsewhere
    from flows.graph import Project, StageNode

_NOTE_PATIENCE_S = 5.0


class Execute(Protocol):
    """Runs a stage, see `execute_stage`; what it runs on is bound already."""

    def __call__(  # noqa: D102
        self, *, write_line: Callable[[str], None], on_start: Callable[[], None]
    ) -> Execution: ...


@task(task_run_name="{address}", persist_result=False, cache_policy=NO_CACHE)
def bring_up_to_date(address: str, note: str, execute: Execute) -> Any:
    """Bring one stage up to date; the state says how that went.

    Completed: its command ran. Cached: DVC found nothing to do. Restored: DVC took the outputs from its run-cache.
    Failed: with the last lines of its output.
    """
    log = get_run_logger()

    def publish_note() -> None:
        try:
            create_markdown_artifact(note, description="command and params")
        except SERVER_FAULTS as error:
            log.warning("the server did not take the stage's command and params: %r", error)

    # beside the stage, which does not wait for the server
    publisher = threading.Thread(target=copy_context().run, args=(publish_note,), daemon=True)
    try:
        execution = execute(write_line=log.info, on_start=publisher.start)
        publisher.join(_NOTE_PATIENCE_S)
    except CancelledError:
        return Cancelled(message="ended because the flow run was cancelled")
    except LimitError as error:
        return Failed(message=f"{address} {error}, its limit, and was ended; raise limit_s if it should")
    if execution.status != 0:
        return Failed(message=f"{address} ended with status {execution.status}:\n{execution.tail}")
    if execution.restored:
        return Completed(name=Outcome.RESTORED.value, message="outputs taken from the run-cache")
    return Completed(name=Outcome.CACHED.value, message="up to date") if execution.unchanged else Completed()


def find_flow_run_id() -> UUID:
    """Return the id of the flow run in which this is called."""
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.id


class View:
    """The stages of one flow run as Prefect's task runs."""

    def __init__(self, project: Project, *, force: bool, elsewhere: Elsewhere | None) -> None:
        self._project = project
        self._elsewhere = elsewhere
        self._force = force
        self._states: dict[str, State[Any]] = {}
        self._flow_run_id = find_flow_run_id()

    def launch(self, stage: StageNode, done: Callable[[Ended], None], **resources: Any) -> None:
        """Start a stage as a task run of its own; `done` is called, in another thread, when it has ended."""
        note = describe_stage(stage.command, self._project.read_params(stage.address))
        execute = partial(execute_stage, stage.address, force=self._force, **resources)
        if self._elsewhere is not None and stage.address in self._elsewhere.addresses:
            from flows.elsewhere import execute_elsewhere

            execute = partial(
                execute_elsewhere,
                stage.address,
                self._elsewhere,
                force=self._force,
                run_key=str(self._flow_run_id),
                **resources,
            )
        future: Any = bring_up_to_date.submit(
            stage.address, note, execute, wait_for=self._link(stage), return_state=False
        )

        def take_state(_future: Any) -> None:
            outcome, message = Outcome.FAILED, "Prefect lost it; its log says more"
            try:
                future.wait()  # it has ended; the future takes the state over only now
                state = self._states[stage.address] = future.state
                message = str(state.message or "")
                outcome = Outcome(str(state.name))
            except ValueError:  # Crashed, for example
                pass
            finally:
                done(Ended(stage.address, outcome, message))  # else the run waits for ever

        future.add_done_callback(take_state)

    def record(self, stage: StageNode, outcome: Outcome, message: str) -> None:
        """Show a stage for which nothing is started."""
        upstream = [self._states[address] for address in stage.upstream if address in self._states]
        self._states[stage.address] = record_task_run(
            stage.address,
            outcome,
            message,
            task_key=bring_up_to_date.task_key,
            flow_run_id=self._flow_run_id,
            upstream=upstream,
        )

    def _link(self, stage: StageNode) -> list[Any]:
        """Draw the graph's edges in the UI; what a failure means for dependents is not Prefect's to decide.

        Prefect would turn the dependents of a skipped stage into NotReady, which counts as pending for ever.
        """
        return [allow_failure(self._states[address]) for address in stage.upstream if address in self._states]
