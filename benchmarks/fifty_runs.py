"""Fifty parallel runs of a project of twenty stages: do they end in fifty equal lock files, that of `dvc repro`?

    python -m benchmarks.fifty_runs [--runs 50] [--output benchmarks/results/fifty_runs.json]

Four layers of five stages, each of which depends on two of the layer before, on eight slots. Every run begins without
dvc.lock and outputs; every second one without DVC's cache too, so that all stages run, the others with it, so that all
are restored from the run-cache. `dvc status` is clean after each. Two folders have half of the runs each, at the same
time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.executor import Project, describe_versions, init

NUM_STAGES, WIDTH = 20, 5
SLOTS = "8"
NUM_FOLDERS = 2


def make(root: Path) -> Project:
    """Make the project, without running it."""
    root.mkdir()
    project = Project(init(root), {})
    stages: dict[str, Any] = {}
    for number in range(NUM_STAGES):
        before, place = (number // WIDTH - 1) * WIDTH, number % WIDTH
        deps = [f"out{before + (place + step) % WIDTH}.txt" for step in (0, 1)] if before >= 0 else ["source.txt"]
        stages[f"stage{number}"] = {
            "cmd": f"cat {' '.join(deps)} > out{number}.txt && echo {number} >> out{number}.txt",
            "deps": deps,
            "params": [f"values.value{number}"],
            "outs": [f"out{number}.txt"],
        }
    (root / "source.txt").write_text("source\n", encoding="utf-8")
    project.write(stages, {"values": {f"value{number}": number for number in range(NUM_STAGES)}})
    return project


def forget(project: Project, *, cache: bool) -> None:
    """Delete what a run made, and DVC's cache if that is wanted."""
    for path in (project.root / "dvc.lock", *project.root.glob("out*.txt")):
        path.unlink(missing_ok=True)
    if cache:
        shutil.rmtree(project.root / ".dvc/cache", ignore_errors=True)


def run_all(project: Project, runs: range, expected: Any) -> list[int]:
    """Run so many times; returns the runs whose lock file is another one."""
    differing = []
    for step, run in enumerate(runs):
        forget(project, cache=step % 2 == 0)
        project.time("flows.reproduce", "--cpus", SLOTS)
        project.assert_up_to_date()
        if project.read_lock() != expected:
            differing.append(run)
    return differing


def main() -> None:
    """Run, compare, print one JSON object, and write it where `--output` says."""
    parser = argparse.ArgumentParser(description="Do parallel runs end in equal locks?", allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fifty-runs-") as folder:
        # before prefect is imported: its database is not to be that of whoever runs this
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        os.environ.pop("PREFECT_API_URL", None)
        from benchmarks.machine import describe_machine
        from flows.server import ensure_server

        ensure_server()
        machine = describe_machine("cpu")
        plain, *parallel = (make(Path(folder) / name) for name in ("plain", *map(str, range(NUM_FOLDERS))))
        plain.time("dvc", "repro", "--quiet")
        expected = plain.read_lock()
        started = time.perf_counter()
        with ThreadPoolExecutor(NUM_FOLDERS) as pool:
            shares = [range(number, args.runs, NUM_FOLDERS) for number in range(NUM_FOLDERS)]
            found = pool.map(run_all, parallel, shares, [expected] * NUM_FOLDERS)
            differing = sorted(run for share in found for run in share)
        seconds = time.perf_counter() - started
    result = {
        "name": "fifty_runs",
        "ratio": (args.runs - len(differing)) / args.runs,
        "goal": 1.0,
        "meets": not differing,
        "runs": args.runs,
        "differing": differing,
        "seconds": round(seconds, 1),
        "machine": machine,
        "versions": describe_versions(),
        "command": " ".join(["python -m benchmarks.fifty_runs", *sys.argv[1:]]),
    }
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
