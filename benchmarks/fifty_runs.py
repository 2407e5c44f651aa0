"""Fifty parallel runs of a project of twenty stages: do they end in fifty equal lock files, that of `dvc repro`?

    python -m benchmarks.fifty_runs [--runs 50] [--output benchmarks/results/fifty_runs.json]

Four layers of five stages, each of which depends on two of the layer before, on eight slots. Every run begins without
dvc.lock and outputs; every second one without DVC's cache too, so that all stages run, the others with it, so that all
are restored from the run-cache. `dvc status` is clean after each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.executor import Project, init

NUM_STAGES, WIDTH = 20, 5
SLOTS = "8"


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
        from flows.server import ensure_server

        ensure_server()
        plain, parallel = make(Path(folder) / "plain"), make(Path(folder) / "parallel")
        plain.time("dvc", "repro", "--quiet")
        expected = plain.read_lock()
        started = time.perf_counter()
        differing = []
        for run in range(args.runs):
            forget(parallel, cache=run % 2 == 0)
            parallel.time("flows.reproduce", "--cpus", SLOTS)
            parallel.assert_up_to_date()
            if parallel.read_lock() != expected:
                differing.append(run)
        seconds = time.perf_counter() - started
    result = {
        "name": "fifty_runs",
        "ratio": (args.runs - len(differing)) / args.runs,
        "goal": 1.0,
        "meets": not differing,
        "runs": args.runs,
        "differing": differing,
        "seconds": round(seconds, 1),
        "command": f"python -m benchmarks.fifty_runs --runs {args.runs}",
    }
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
