"""`dvc repro` as a Prefect flow: the same stages in the same order, each a task run with its log and its state.

    python -m flows.reproduce [TARGET ...] [--force] [--keep-going]

DVC decides whether a stage runs, Prefect shows it. Without PREFECT_API_URL a temporary server takes the run down, and
`prefect server start` shows it later; docs/prefect.md has the commands.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before prefect, which reads the environment when imported)

import argparse
import signal
import sys
import time
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from prefect import allow_failure, flow, get_client, get_run_logger, task
from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed
from ruamel.yaml import YAML

from flows.artifacts import (
    ArtifactPatternError,
    ArtifactPatterns,
    build_key,
    find_files,
    read_image,
    read_patterns,
    read_table,
)
from flows.execute import execute_stage
from flows.graph import GraphError, Project, StageNode
from flows.process import CancelledError
from flows.server import ServerError, ensure_server

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

    from prefect.client.schemas.objects import State

_SHOWN_LINES = 5


@flow(name="reproduce", persist_result=False, validate_parameters=True)
def reproduce(
    targets: list[str] | None = None,
    force: bool = False,
    keep_going: bool = False,
    table_artifacts: list[str] | None = None,
    image_artifacts: list[str] | None = None,
) -> Any:
    """Bring stages of the DVC project around the current folder up to date, one after the other.

    Args:
        targets: as for `dvc repro`; none means the dvc.yaml of the current folder. What they depend on comes first.
        force: run every one of these stages, changed or not.
        keep_going: after a failure, go on with stages that do not depend on the one that failed.
        table_artifacts: glob patterns of CSV files to show; by default those of [tool.flows] in pyproject.toml.
        image_artifacts: glob patterns of images to show; the same default.

    Returns:
        The final state: Completed, Failed (a stage failed, or the project cannot be read) or Cancelled.
    """
    log = get_run_logger()
    try:
        patterns = _choose_patterns(table_artifacts, image_artifacts)
        with Project() as project:
            stages = project.plan(targets or [])
            log.info("%d stages to look at", len(stages))
            states, seconds = _run_stages(project, stages, force=force, keep_going=keep_going)
    except (GraphError, ArtifactPatternError) as error:
        log.error("%s", error)
        return Failed(message=str(error))
    _publish_overview(stages, states, seconds)
    _publish_files(patterns, [out for stage in stages for out in stage.outs])
    return _conclude(states)


@task(task_run_name="{address}", persist_result=False, cache_policy=NO_CACHE)
def bring_up_to_date(address: str, project: Project, command: str, force: bool, obstacle: str | None) -> Any:
    """Bring one stage up to date; the state says how that went.

    Completed: its command ran. Cached: there was nothing to do, and nothing was started. Restored: DVC took the
    outputs from its run-cache. Failed: with the last lines of its output. Skipped: because of `obstacle`.
    """
    log = get_run_logger()
    if obstacle is not None:
        return Cancelled(name="Skipped", message=obstacle)
    try:
        if not force and project.is_up_to_date(address):
            return Completed(name="Cached", message="up to date")
        create_markdown_artifact(_describe(command, project.read_params(address)), description="command and params")
        execution = execute_stage(address, force=force, write_line=log.info, is_cancelled=_is_flow_cancelled)
    except GraphError as error:
        return Failed(message=str(error))
    except CancelledError:
        return Cancelled(message="ended because the flow run was cancelled")
    if execution.status != 0:
        lines = "\n".join(execution.tail[-_SHOWN_LINES:])
        return Failed(message=f"`dvc repro {address}` ended with status {execution.status}:\n{lines}")
    return Completed(name="Restored", message="outputs taken from the run-cache") if execution.restored else Completed()


def main() -> None:
    """Run the flow from the command line; the exit status is 0 when every stage is up to date, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Bring DVC stages up to date, shown in Prefect.", allow_abbrev=False)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stages, as for `dvc repro`; default: dvc.yaml")
    parser.add_argument("-f", "--force", action="store_true", help="run stages even if nothing changed")
    parser.add_argument(
        "-k", "--keep-going", action="store_true", help="after a failure, go on with independent stages"
    )
    for kind, files in (("table", "CSV files"), ("image", "images")):
        parser.add_argument(
            f"--{kind}-artifact",
            action="append",
            metavar="PATTERN",
            help=f"{files} to show, may be repeated; default: {kind}_artifacts of [tool.flows] in pyproject.toml",
        )
    args = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and so it stays
            signal.signal(number, _exit_by_signal)
    try:
        ensure_server()
        state: Any = reproduce(
            args.targets, args.force, args.keep_going, args.table_artifact, args.image_artifact, return_state=True
        )
    except (KeyboardInterrupt, TerminationSignal):
        sys.exit(130)
    except ServerError as error:
        sys.exit(str(error))
    sys.exit(0 if state.is_completed() else 1)


def _exit_by_signal(number: int, _frame: FrameType | None) -> None:
    """End by an exception, so that what was started is ended first: stages have sessions of their own."""
    raise SystemExit(128 + number)


def _choose_patterns(tables: Sequence[str] | None, images: Sequence[str] | None) -> ArtifactPatterns:
    configured = read_patterns(Path("pyproject.toml"))
    return ArtifactPatterns(
        tables=configured.tables if tables is None else tuple(tables),
        images=configured.images if images is None else tuple(images),
    )


def _run_stages(
    project: Project, stages: Sequence[StageNode], *, force: bool, keep_going: bool
) -> tuple[dict[str, State[Any]], dict[str, float]]:
    """Give every stage its task run, in order; those that cannot or should not start end as Skipped."""
    states: dict[str, State[Any]] = {}
    seconds: dict[str, float] = {}
    for stage in stages:
        started = time.monotonic()
        states[stage.address] = bring_up_to_date(
            stage.address,
            project,
            stage.command,
            force,
            _find_obstacle(stage, states, keep_going=keep_going),
            wait_for=_link([states[address] for address in stage.upstream if address in states]),
            return_state=True,
        )
        seconds[stage.address] = time.monotonic() - started
    return states, seconds


def _link(upstream: Sequence[State[Any]]) -> list[Any]:
    """Draw the graph's edges in the UI; what a failure means for dependents is decided here, not by Prefect.

    Prefect would turn the dependents of a skipped stage into NotReady, which counts as pending for ever.
    """
    return [allow_failure(state) for state in upstream if state.is_completed() or state.is_failed()]


def _find_obstacle(stage: StageNode, states: dict[str, State[Any]], *, keep_going: bool) -> str | None:
    """Say why a stage is not to start, or None."""
    for address, state in states.items():
        if state.is_completed():
            continue
        if address in stage.upstream:
            return f"not started: it depends on {address}, which is {state.name}"
        if state.is_failed() and not keep_going:
            return f"not started: {address} failed (--keep-going goes on with stages that do not depend on it)"
        if state.name == "Cancelled":
            return "not started: the flow run was cancelled"
    return None


def _is_flow_cancelled() -> bool:
    """Ask the server whether somebody pressed Cancel; nobody else would tell a flow that has no worker."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(context.flow_run.id).state
    except httpx.HTTPError as error:
        # hours of training are not lost to a server that is being restarted
        get_run_logger().warning("cannot ask the server whether this run was cancelled: %r", error)
        return False
    return state is not None and (state.is_cancelled() or state.is_cancelling())


def _describe(command: str, params: dict[str, Any]) -> str:
    """Write a stage's command and params as Markdown."""
    text = StringIO()
    YAML().dump(params, text)
    return f"~~~~\n{command}\n~~~~\n" + (f"\n~~~~\n{text.getvalue()}~~~~\n" if params else "")


def _publish_overview(stages: Sequence[StageNode], states: dict[str, State[Any]], seconds: dict[str, float]) -> None:
    create_table_artifact(
        key="stages",
        table=[
            {"stage": stage.address, "state": states[stage.address].name, "seconds": round(seconds[stage.address], 1)}
            for stage in stages
        ],
        description="Every stage of this run, in the order in which DVC takes them.",
    )


def _publish_files(patterns: ArtifactPatterns, outs: Sequence[Path]) -> None:
    """Show the tables and images that the stages made; one that cannot be shown is logged and fails nothing."""
    log = get_run_logger()
    for kind, wanted in (("table", patterns.tables), ("image", patterns.images)):
        files = find_files(wanted, outs=outs)
        if wanted and not files:
            log.info("no %s to show: no output of these stages matches %s", kind, ", ".join(wanted))
        for path in files:
            try:
                if kind == "table":
                    create_table_artifact(key=build_key(path), table=read_table(path), description=f"`{path}`")
                else:
                    create_image_artifact(key=build_key(path), image_url=read_image(path), description=f"`{path}`")
            except ArtifactPatternError as error:
                log.warning("not shown: %s", error)


def _conclude(states: dict[str, State[Any]]) -> State[Any]:
    counts = {
        name: sum(state.name == name for state in states.values())
        for name in sorted({str(s.name) for s in states.values()})
    }
    message = f"{len(states)} stages: " + ", ".join(f"{count} {name}" for name, count in counts.items())
    failed = [address for address, state in states.items() if state.is_failed()]
    if failed:
        return Failed(message=f"{', '.join(failed)} failed. {message}")
    if "Cancelled" in counts:
        return Cancelled(message=message)
    return Completed(message=message)


if __name__ == "__main__":
    main()
