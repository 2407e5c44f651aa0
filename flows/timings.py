"""Minutes per stage: the timing log as a table.

python -m flows.timings [LOG] [--write]

The log has one JSON object a line: `stage`, `wall_s`, `cpu_s`, `peak_mib`, `finished`; the last line of a stage counts.
Instances of a foreach or matrix (`train@small`) are one row. `--write` keeps what each stage took where a report finds
it, with commit and machine (`flows/actual.py`).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from flows.causes import RevisionError
from flows.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

STAGE_LOG = Path("logs/timings.jsonl")
_log = logging.getLogger(__name__)
_COLUMNS = ("stage", "instances", "wall min", "longest min", "cpu min", "peak MiB")


@dataclass(frozen=True, slots=True)
class StageTiming:
    """The cost of one stage's last run, or of a group of them."""

    stage: str
    instances: int
    wall_s: float
    longest_s: float
    """Wall time of the slowest instance."""
    cpu_s: float
    peak_mib: float
    """Memory of the largest instance."""
    finished: str = ""
    """When it ended, by the clock of the machine; empty for groups."""


def read_timings(path: Path) -> list[StageTiming]:
    """Read the last record of every stage instance, in the order in which these were written.

    A line that cannot be read (a killed process may leave one) is logged and left out.
    """
    last: dict[str, StageTiming] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            record = json.loads(line)
            wall_s = float(record["wall_s"])
            timing = StageTiming(
                str(record["stage"]),
                1,
                wall_s,
                wall_s,
                float(record["cpu_s"]),
                float(record["peak_mib"]),
                str(record.get("finished", "")),
            )
        except (ValueError, KeyError, TypeError) as error:
            _log.warning("%s:%d left out, not a timing record (%r): %.80s", path, number, error, line)
            continue
        last.pop(timing.stage, None)
        last[timing.stage] = timing
    return list(last.values())


def group_timings(timings: Iterable[StageTiming]) -> list[StageTiming]:
    """Add up the instances of each stage, in the order of each stage's first instance."""
    groups: dict[str, list[StageTiming]] = {}
    for timing in timings:
        groups.setdefault(timing.stage.partition("@")[0], []).append(timing)
    return [_add_up(stage, members) for stage, members in groups.items()]


def write_table(groups: list[StageTiming], console: Console) -> None:
    """Write the table with its total: boxed on a terminal, plain columns elsewhere."""
    table = Table(box=box.SIMPLE if console.is_terminal else None, show_footer=True, pad_edge=console.is_terminal)
    rows = [_format_row(group) for group in groups]
    total = _format_row(_add_up("total", groups))
    for column, header in enumerate(_COLUMNS):
        table.add_column(header, total[column], justify="left" if column == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main() -> None:
    """Print the table; without a log there is nothing to say, and that is no failure."""
    logging.basicConfig(format="%(message)s")
    parser = argparse.ArgumentParser(description="Minutes per stage.", allow_abbrev=False)
    parser.add_argument("log", nargs="?", type=Path, default=STAGE_LOG, metavar="LOG")
    parser.add_argument("--write", action="store_true", help="also where actual_file of [tool.flows] says")
    args = parser.parse_args()
    path: Path = args.log
    if not path.exists():
        _log.warning("no timings: %s does not exist; stages write it when they run", path)
        return
    if args.write:
        import flows.telemetry  # noqa: F401  # before dvc, which reads the environment when imported
        from flows.actual import write_actual  # which reads timings itself
        from flows.graph import GraphError, Project

        try:
            with Project() as project:
                write_actual(project, path, read_settings(Path("pyproject.toml")))
        except (GraphError, RevisionError, SettingsError) as error:
            sys.exit(str(error))
    write_table(group_timings(read_timings(path)), Console(file=sys.stdout, width=None if sys.stdout.isatty() else 120))


def _add_up(stage: str, members: list[StageTiming]) -> StageTiming:
    return StageTiming(
        stage=stage,
        instances=sum(member.instances for member in members),
        wall_s=sum(member.wall_s for member in members),
        longest_s=max((member.longest_s for member in members), default=0.0),
        cpu_s=sum(member.cpu_s for member in members),
        peak_mib=max((member.peak_mib for member in members), default=0.0),
    )


def _format_row(timing: StageTiming) -> tuple[str, ...]:
    minutes = (f"{seconds / 60:.2f}" for seconds in (timing.wall_s, timing.longest_s, timing.cpu_s))
    return timing.stage, str(timing.instances), *minutes, f"{timing.peak_mib:.0f}"


if __name__ == "__main__":
    main()
