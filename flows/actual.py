"""What each stage took when it made what lies here, kept for a report: seconds, memory, commit, machine.

Outputs stay the same from run to run, so seconds are in none of them. They are in a file that git holds and no stage
makes (`actual_file` of [tool.flows]); `python -m flows.timings --write` brings it up to date after a run.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own

from flows.causes import name_commit, read_locks, run_git
from flows.delivery import is_result
from flows.settings import SettingsError, fill_path
from flows.slots import count_cpus
from flows.timings import read_timings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from flows.graph import Project, StageNode
    from flows.settings import Settings
    from flows.timings import StageTiming

_GIB = 2**30
_CLOCK_S = 2.0
"""By how much the log's clock, which has whole seconds, and a file's may differ."""


def write_actual(project: Project, log: Path, settings: Settings) -> Path:
    """Write down what stages took, of those whose outputs lie here as that run left them.

    What other stages took stays as it stands there, with its own commit and machine; so does what is known already.
    Nothing is noted of a stage that reads the file: it would have to run again, and its time be noted again, for ever.

    Raises:
        SettingsError: [tool.flows] does not say where, or names a value that there is not.
        RevisionError: this is no git repository with a commit.
        GraphError: DVC cannot read the project.
    """
    root = project.root
    if not settings.actual_file:
        raise SettingsError("[tool.flows] of pyproject.toml has no actual_file; set it to where the seconds go")
    name = fill_path(settings.actual_file, root / "params.yaml").as_posix()
    path = root / name
    locks = read_locks(root, None)
    written = [name, *(out["path"] for entry in locks.values() for out in entry["outs"])]
    if settings.difference_file:
        written.append(fill_path(settings.difference_file, root / "params.yaml").as_posix())
    readers = {address for address, entry in locks.items() if name in [dep["path"] for dep in entry["deps"]]}
    nodes = [node for node in project.plan(all_pipelines=True) if node.address not in readers]
    known = json.loads(path.read_text(encoding="utf-8"))["stages"] if path.exists() else {}
    source = {"commit": describe_commit(root, written), "machine": describe_machine()}
    fresh = {
        timing.stage: {
            "wall_s": timing.wall_s,
            "cpu_s": timing.cpu_s,
            "peak_mib": timing.peak_mib,
            "finished": timing.finished,
            **source,
        }
        for timing in find_present(read_timings(log), nodes)
    }
    stages = known | {
        stage: entry
        for stage, entry in fresh.items()
        if stage not in known or known[stage]["finished"] != entry["finished"]
    }
    if stages != known or not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"stages": stages}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return path


def find_present(timings: Iterable[StageTiming], nodes: Iterable[StageNode]) -> list[StageTiming]:
    """List the timings of the runs that made what lies here.

    The log may be of another scale, whose stages have the same names and other outputs, or of a run whose outputs were
    replaced since. A stage writes its outputs between its start and its end, so one of them has to be from that time.
    """
    outs = {node.address.rpartition(":")[2]: node.outs for node in nodes}
    present = []
    for timing in timings:
        if not timing.finished:
            continue
        ended = time.mktime(time.strptime(timing.finished, "%Y-%m-%dT%H:%M:%S"))
        times = [written for out in outs.get(timing.stage, ()) for written in _list_times(out)]
        if any(ended - timing.wall_s - _CLOCK_S <= written <= ended + _CLOCK_S for written in times):
            present.append(timing)
    return present


def describe_commit(root: Path, written: Collection[str]) -> str:
    """Name the commit that is checked out, and say if values, code or anything else that no run writes differ from it.

    Args:
        root: the DVC project's folder.
        written: what runs write, by paths that start there.

    Raises:
        RevisionError: this is no git repository with a commit.
    """
    changed = run_git(root, "diff", "--name-only", "--relative", "-z", "HEAD").split("\0")
    is_edited = any(path and (path == "params.yaml" or not is_result(path, written)) for path in changed)
    return name_commit(root, "HEAD") + (" with edits" if is_edited else "")


def describe_machine() -> str:
    """Name the processor, its cores and the memory, as far as this process may use them."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    memory_gib = psutil.virtual_memory().total / _GIB
    return f"{name}, {count_cpus()} cores, {memory_gib:.0f} GiB"


def _list_times(path: Path) -> list[float]:
    if path.is_dir():
        return [file.stat().st_mtime for file in path.rglob("*") if file.is_file()]
    return [path.stat().st_mtime] if path.exists() else []
