"""`dvc repro` as a Prefect flow: independent stages at once, each a task run with its log and its state.

    python -m flows.reproduce [TARGET ...] [--cpus 2] [--force] [--keep-going]

DVC decides whether a stage runs, this when, Prefect shows it. Without PREFECT_API_URL a temporary server takes the run
down, and `prefect server start` shows it later; docs/executor.md and docs/prefect.md have the commands.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before prefect, which reads the environment when imported)

import argparse
import signal
import sys
import threading
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prefect import allow_failure, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed

from flows.cancellation import SERVER_FAULTS, CancelWatch
from flows.checks import RunRefusedError, check_run
from flows.coordinator import Coordinator, Ended
from flows.durations import estimate, read_durations
from flows.execute import Execution, execute_stage
from flows.graph import GraphError, Project, StageNode
from flows.process import CancelledError, LimitError
from flows.publishing import describe_stage, publish_files, publish_overview
from flows.schedule import Outcome, Schedule
from flows.server import ServerError, ensure_server
from flows.settings import Settings, SettingsError, read_settings
from flows.slots import Slots, measure_capacity
from flows.task_runs import record_task_run
from flows.workspace import WorkspaceBusyError, hold_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType
    from uuid import UUID

    from prefect.client.schemas.objects import State

_SHOWN_LINES = 5
_NOTE_PATIENCE_S = 5.0


class Execute(Protocol):
    """Runs a stage, see `execute_stage`; what it runs on is bound already."""

    def __call__(  # noqa: D102
        self, *, write_line: Callable[[str], None], on_start: Callable[[], None]
    ) -> Execution: ...


@flow(name="reproduce", persist_result=False, validate_parameters=True)
def reproduce(
    targets: list[str] | None = None,
    force: bool = False,
    keep_going: bool = False,
    downstream: bool = False,
    glob: bool = False,
    all_pipelines: bool = False,
    cpus: int | None = None,
    memory_gib: float | None = None,
    gpus: list[str] | None = None,
    table_artifacts: list[str] | None = None,
    image_artifacts: list[str] | None = None,
) -> Any:
    """Bring stages of the DVC project around the current folder up to date, independent ones at the same time.

    Args:
        targets: as for `dvc repro`; none means the dvc.yaml of the current folder. What they depend on comes first.
        force: run every one of these stages, changed or not, and overwrite outputs that were edited by hand.
        keep_going: after a failure, go on with stages that do not depend on the one that failed.
        downstream: the targets and what depends on them, instead of what they depend on.
        glob: targets are patterns (`train@*`).
        all_pipelines: every dvc.yaml of the project.
        cpus: stages of one processor that may run at once; by default the processors of this machine.
        memory_gib: memory for stages that say how much they need; by default that of this machine.
        gpus: GPUs for stages that ask for some, as CUDA_VISIBLE_DEVICES names them; by default those of this machine.
        table_artifacts: glob patterns of CSV files to show; by default those of [tool.flows] in pyproject.toml.
        image_artifacts: glob patterns of images to show; the same default.

    Returns:
        The final state: Completed, Failed (a stage failed, or nothing was started and why) or Cancelled.
    """
    log = get_run_logger()
    try:
        settings = read_settings(Path("pyproject.toml"))
        with (
            Project() as project,
            hold_workspace(project.temporary) as lease,
            CancelWatch(_find_flow_run_id()) as is_cancelled,
        ):
            stages = project.plan(targets or [], glob=glob, downstream=downstream, all_pipelines=all_pipelines)
            up_to_date = set() if force else project.find_up_to_date(stages)
            to_run = [stage for stage in stages if stage.address not in up_to_date]
            log.info("%d stages to look at, %d up to date", len(stages), len(up_to_date))
            needs = {
                stage.address: settings.find_needs(
                    stage.address, meta=stage.meta, params=project.read_params(stage.address)
                )
                for stage in to_run
            }
            slots = Slots(
                measure_capacity(cpus=cpus, memory_gib=memory_gib, gpus=None if gpus is None else tuple(gpus))
            )
            check_run(project, [stage.address for stage in to_run], needs, slots.capacity, force=force)
            durations = estimate((stage.address for stage in to_run), read_durations(project.temporary))
            view = _View(project, force=force)
            coordinator = Coordinator(
                Schedule(stages, keep_going=keep_going, durations=durations),
                slots,
                needs,
                lease,
                launch=view.launch,
                record=view.record,
                is_up_to_date=(lambda _address: False) if force else project.is_up_to_date,
                is_cancelled=is_cancelled,
                dvc_tmp=project.temporary,
            )
            coordinator.run(up_to_date)
        outdated = _find_outdated(stages) if to_run else {}
    except (GraphError, SettingsError, WorkspaceBusyError, RunRefusedError) as error:
        log.error("%s", error)
        return Failed(message=str(error))
    try:
        publish_overview(stages, coordinator.schedule.outcomes, coordinator.seconds)
        patterns = _choose_patterns(settings, table_artifacts, image_artifacts)
        publish_files(patterns, [out for stage in stages for out in stage.outs])
    except SERVER_FAULTS as error:  # what the stages made is there all the same
        log.warning("the server did not take all of the artifacts: %r", error)
    return _conclude(coordinator.schedule.outcomes, outdated)


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
        lines = "\n".join(execution.tail[-_SHOWN_LINES:])
        return Failed(message=f"{address} ended with status {execution.status}:\n{lines}")
    if execution.restored:
        return Completed(name=Outcome.RESTORED.value, message="outputs taken from the run-cache")
    return Completed(name=Outcome.CACHED.value, message="up to date") if execution.unchanged else Completed()


def main() -> None:
    """Run the flow from the command line; the exit status is 0 when every stage is up to date, 130 after Ctrl-C."""
    args = _build_parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and so it stays
            signal.signal(number, _exit_by_signal)
    try:
        ensure_server()
        state: Any = reproduce(**vars(args), return_state=True)
    except (KeyboardInterrupt, TerminationSignal):
        sys.exit(130)
    except ServerError as error:
        sys.exit(str(error))
    sys.exit(0 if state.is_completed() else 1)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Bring DVC stages up to date, shown in Prefect.", allow_abbrev=False)
    add = parser.add_argument
    add("targets", nargs="*", metavar="TARGET", help="stages, as for `dvc repro`; default: dvc.yaml")
    add("-f", "--force", action="store_true", help="run stages even if nothing changed")
    add("-k", "--keep-going", action="store_true", help="after a failure, go on with independent stages")
    add("--downstream", action="store_true", help="the targets and what depends on them")
    add("--glob", action="store_true", help="targets are patterns")
    add("-P", "--all-pipelines", action="store_true", help="every dvc.yaml of the project")
    add("--cpus", type=int, metavar="N", help="stages of one processor at once; default: this machine's processors")
    add("--memory-gib", type=float, metavar="GIB", help="memory for stages; default: this machine's")
    add("--gpus", type=_split, metavar="0,1", help="GPUs for stages that ask for some; default: this machine's")
    for kind, files in (("table", "CSV files"), ("image", "images")):
        add(
            f"--{kind}-artifact",
            dest=f"{kind}_artifacts",
            action="append",
            metavar="PATTERN",
            help=f"{files} to show, may be repeated; default: {kind}_artifacts of [tool.flows] in pyproject.toml",
        )
    return parser


def _split(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _exit_by_signal(number: int, _frame: FrameType | None) -> None:
    """End by an exception, so that what was started is ended first: stages have sessions of their own."""
    raise SystemExit(128 + number)


def _find_flow_run_id() -> UUID:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run.id


class _View:
    """The stages of one flow run as Prefect's task runs."""

    def __init__(self, project: Project, *, force: bool) -> None:
        self._project = project
        self._force = force
        self._states: dict[str, State[Any]] = {}
        self._flow_run_id = _find_flow_run_id()

    def launch(self, stage: StageNode, done: Callable[[Ended], None], **resources: Any) -> None:
        """Start a stage as a task run of its own; `done` is called, in another thread, when it has ended."""
        note = describe_stage(stage.command, self._project.read_params(stage.address))
        execute = partial(execute_stage, stage.address, force=self._force, **resources)
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


def _find_outdated(stages: Sequence[StageNode]) -> dict[str, str]:
    """Name the stages that are not up to date any more, and why: sources were edited while the run was under way."""
    looked_at = {stage.address for stage in stages}
    with Project() as project:
        nodes = [node for node in project.plan(all_pipelines=True) if node.address in looked_at]
        up_to_date = project.find_up_to_date(nodes)
        changes = {
            node.address: [
                change.subject or change.kind for change in project.explain(node.address) if change.kind != "always"
            ]
            for node in nodes
            if node.address not in up_to_date
        }
    return {address: ", ".join(named) for address, named in changes.items() if named}


def _choose_patterns(
    settings: Settings, tables: Sequence[str] | None, images: Sequence[str] | None
) -> dict[str, Sequence[str]]:
    return {
        "table": settings.table_artifacts if tables is None else tables,
        "image": settings.image_artifacts if images is None else images,
    }


def _conclude(outcomes: Mapping[str, Outcome], outdated: Mapping[str, str]) -> State[Any]:
    counts = {
        name: sum(outcome.value == name for outcome in outcomes.values())
        for name in sorted({outcome.value for outcome in outcomes.values()})
    }
    message = f"{len(outcomes)} stages: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    failed = [address for address, outcome in outcomes.items() if outcome is Outcome.FAILED]
    if failed:
        return Failed(message=f"{', '.join(failed)} failed. {message}")
    if not all(outcome.is_good for outcome in outcomes.values()):
        return Cancelled(message=message)
    if outdated:
        named = "; ".join(f"{address} ({why})" for address, why in outdated.items())
        return Failed(
            message=f"changed while the run was under way, so that these are to run again: {named}. {message}"
        )
    return Completed(message=message)


if __name__ == "__main__":
    main()
