"""Questions about the pipeline that start nothing.

python -m flows plan [TARGET ...]     what a run would do, for how long, and on what
python -m flows why STAGE             why a stage would run again: which value, file or line changed
python -m flows diff [REV_A [REV_B]]  what changed between two commits, as Markdown: scores, tables, verdicts, and why
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before dvc, which reads the environment when imported)

import argparse
import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from flows.difference import DifferenceError, compare_revisions, write_file
from flows.difference_text import write_markdown
from flows.durations import read_runs
from flows.graph import GraphError, Project
from flows.plan import Plan, plan_run
from flows.settings import SettingsError, read_settings
from flows.slots import Capacity, measure_capacity
from flows.why import explain_stage


def main() -> None:
    """Answer on standard output; the exit status is 0, or 1 when there is no answer."""
    parser = argparse.ArgumentParser(prog="python -m flows", description="Questions about the pipeline.")
    commands = parser.add_subparsers(dest="command", required=True)
    why = commands.add_parser("why", help="why a stage would run again")
    why.add_argument("stage", metavar="STAGE")
    plan = commands.add_parser("plan", help="what a run would do")
    plan.add_argument("targets", nargs="*", metavar="TARGET", help="stages, as for `dvc repro`")
    plan.add_argument("-f", "--force", action="store_true")
    for name in ("downstream", "glob", "all-pipelines"):
        plan.add_argument(f"--{name}", action="store_true", help=f"as `python -m flows.reproduce --{name}`")
    plan.add_argument("--cpus", type=int, metavar="N", help="default: this machine's processors")
    diff = commands.add_parser("diff", help="what changed between two commits, as Markdown")
    diff.add_argument("before", nargs="?", default="HEAD", metavar="REV_A", help="default: the last commit")
    diff.add_argument("after", nargs="?", metavar="REV_B", help="default: what lies in the workspace")
    diff.add_argument("--write", action="store_true", help="also where difference_file of [tool.flows] says")
    args = parser.parse_args()
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120, highlight=False)
    try:
        with Project() as project:
            if args.command == "why":
                for line in explain_stage(project, args.stage):
                    console.print(line, markup=False, soft_wrap=True)
                return
            if args.command == "diff":
                settings = read_settings(Path("pyproject.toml"))
                difference = compare_revisions(project.root, args.before, args.after, settings)
                sys.stdout.write(write_markdown(difference, read_runs(project.temporary)))
                if args.write:
                    write_file(difference, settings, project.root)
                return
            capacity = measure_capacity(cpus=args.cpus)
            nodes = project.plan(
                args.targets, glob=args.glob, downstream=args.downstream, all_pipelines=args.all_pipelines
            )
            planned = plan_run(project, nodes, read_settings(Path("pyproject.toml")), capacity, force=args.force)
            _write_plan(planned, capacity, console)
    except (DifferenceError, GraphError, SettingsError) as error:
        sys.exit(str(error))


def _write_plan(plan: Plan, capacity: Capacity, console: Console) -> None:
    if not plan.stages:
        console.print(f"nothing to do: {plan.num_up_to_date} stages are up to date")
        return
    table = Table(box=box.SIMPLE if console.is_terminal else None, pad_edge=False)
    for header in ("stage", "why", "minutes", "cpus", "GiB", "gpus", "limit"):
        table.add_column(header, justify="left" if header in ("stage", "why") else "right", no_wrap=header == "stage")
    for stage in plan.stages:
        lack = capacity.find_lack(stage.needs)
        table.add_row(
            stage.address,
            stage.reason if lack is None else f"{lack}!",
            "?" if stage.seconds is None else f"{stage.seconds / 60:.2f}",
            str(stage.needs.cpus),
            f"{stage.needs.memory_gib:g}",
            "-" if stage.needs.gpus is None else str(stage.needs.gpus),
            "-" if stage.needs.limit_s is None else f"{stage.needs.limit_s / 60:g} min",
        )
    console.print(table)
    unknown = f", and {plan.num_unknown} of unknown length" if plan.num_unknown else ""
    console.print(
        f"{len(plan.stages)} stages to run, {plan.num_up_to_date} up to date; {plan.total_s / 60:.1f} minutes one "
        f"after the other{unknown}, about {plan.wall_s / 60:.1f} on {capacity.cpus} cpus and {len(capacity.gpus)} gpus",
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
