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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed

from flows.cancellation import SERVER_FAULTS, CancelWatch, end_killed
from flows.checks import RunRefusedError, check_run
from flows.coordinator import Coordinator
from flows.difference import DifferenceError, compare_revisions
from flows.durations import estimate, read_durations
from flows.graph import GraphError, Project, StageNode
from flows.publishing import publish_difference, publish_files, publish_links, publish_overview
from flows.schedule import Outcome, Schedule
from flows.server import ServerError, ensure_server
from flows.settings import Needs, Settings, SettingsError, read_settings
from flows.slots import Slots, measure_capacity
from flows.view import View, find_flow_run_id
from flows.workspace import WorkspaceBusyError, hold_workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from prefect.client.schemas.objects import State

    from flows.elsewhere import Elsewhere


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
    pool: str | None = None,
    pool_stages: list[str] | None = None,
    remote: str | None = None,
    git_remote: str = "origin",
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
        pool: a Prefect work pool, whose workers run the stages on other machines; none by default.
        pool_stages: patterns of the stages that go there; by default all that DVC's run-cache can bring back.
        remote: DVC remote over which files go; by default DVC's own default.
        git_remote: git remote over which the code goes.

    Returns:
        The final state: Completed, Failed (a stage failed, or nothing was started and why) or Cancelled.
    """
    log = get_run_logger()
    try:
        settings = read_settings(Path("pyproject.toml"))
        with (
            Project() as project,
            hold_workspace(project.temporary, str(find_flow_run_id())) as hold,
            CancelWatch(find_flow_run_id()) as is_cancelled,
        ):
            if hold.killed is not None:
                end_killed(hold.killed)
            stages = project.plan(targets or [], glob=glob, downstream=downstream, all_pipelines=all_pipelines)
            project.clear_leftovers()
            up_to_date = set() if force else project.find_up_to_date(stages)
            to_run = [stage for stage in stages if stage.address not in up_to_date]
            log.info("%d stages to look at, %d up to date", len(stages), len(up_to_date))
            needs = _find_needs(project, settings, to_run)
            capacity = measure_capacity(cpus=cpus, memory_gib=memory_gib, gpus=None if gpus is None else tuple(gpus))
            addresses = [stage.address for stage in to_run]
            elsewhere = None
            if pool is None:
                check_run(project, addresses, needs, capacity, force=force)
            elif to_run:
                check = partial(check_run, project, addresses, needs, capacity, force=force)
                elsewhere = _find_elsewhere(project, addresses, check, pool, pool_stages, remote, git_remote)
            slots = Slots(capacity, elsewhere=elsewhere.addresses if elsewhere else frozenset())
            durations = estimate(addresses, read_durations(project.temporary))
            view = View(project, force=force, elsewhere=elsewhere)
            coordinator = Coordinator(
                Schedule(stages, keep_going=keep_going, durations=durations),
                slots,
                needs,
                hold.lease,
                launch=view.launch,
                record=view.record,
                is_up_to_date=(lambda _address: False) if force else project.is_up_to_date,
                is_cancelled=is_cancelled,
                dvc_tmp=project.temporary,
            )
            coordinator.run(up_to_date)
        outdated = _find_outdated(coordinator.schedule.outcomes) if to_run else {}
    except (GraphError, SettingsError, WorkspaceBusyError, RunRefusedError) as error:
        log.error("%s", error)
        return Failed(message=str(error))
    try:
        publish_overview(stages, coordinator.schedule.outcomes, coordinator.seconds, needs)
        patterns = _choose_patterns(settings, table_artifacts, image_artifacts)
        outs = [out for stage in stages for out in stage.outs]
        publish_files(patterns, outs)
        with Project() as project:
            if settings.link_artifacts:
                publish_links(project, remote, settings.link_artifacts, outs)
            if coordinator.seconds and (settings.compare or project.has_metrics):
                _publish_difference(project, settings)
    except SERVER_FAULTS as error:  # what the stages made is there all the same
        log.warning("the server did not take all of the artifacts: %r", error)
    return _conclude(coordinator.schedule.outcomes, outdated)


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
    add("--pool", metavar="NAME", help="run stages on the workers of this Prefect work pool")
    add("--pool-stage", dest="pool_stages", action="append", metavar="PATTERN", help="which of them; default: all")
    add("--remote", metavar="NAME", help="DVC remote for their files; default: DVC's default")
    add("--git-remote", default="origin", metavar="NAME", help="git remote for their code; default: %(default)s")
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


def _find_elsewhere(
    project: Project,
    addresses: Sequence[str],
    check: Callable[..., None],
    pool: str,
    patterns: Sequence[str] | None,
    remote: str | None,
    git_remote: str,
) -> Elsewhere:
    """Get ready to run stages in a work pool; what for is imported only here, as it takes a second."""
    from flows.elsewhere import choose_stages, prepare
    from flows.pool import find_pool

    log = get_run_logger()
    there = find_pool(pool)
    chosen = choose_stages(project, addresses, patterns)
    check(elsewhere=dict.fromkeys(chosen, there.capacity))
    elsewhere = prepare(project, there, chosen, remote=remote, git_remote=git_remote)
    for warning in elsewhere.warnings:
        log.warning("%s", warning)
    log.info("%d of them run in pool %s, the others here", len(chosen), pool)
    return elsewhere


def _find_needs(project: Project, settings: Settings, stages: Sequence[StageNode]) -> dict[str, Needs]:
    return {
        stage.address: settings.find_needs(stage.address, meta=stage.meta, params=project.read_params(stage.address))
        for stage in stages
    }


def _find_outdated(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Name the stages that are not up to date any more, and why: sources were edited while the run was under way.

    Those that failed or did not start have not been up to date, and nobody is to wait for the reasons.
    """
    looked_at = {address for address, outcome in outcomes.items() if outcome.is_good}
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


def _publish_difference(project: Project, settings: Settings) -> None:
    try:
        publish_difference(compare_revisions(project.root, "HEAD", None, settings))
    except DifferenceError as error:  # a project without a commit, for example
        get_run_logger().warning("scores and verdicts are not compared with the last commit: %s", error)


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
