"""The executor against plain `dvc repro`, on generated projects of trivial and of sleeping stages.

    python -m benchmarks.executor [--output benchmarks/results/executor.json]

- **up to date**: 200 stages in one dvc.yaml, nothing to do; both take turns;
- **overhead**: ten of these stages changed, run one at a time; what the run takes beyond the one with nothing to do;
- **slots**: stages that only sleep, on two and on eight slots; `dvc repro` does the same in a folder of its own at the
  same time, which costs neither of them anything: they sleep.

A Prefect server runs throughout, as it does for whoever uses the UI; starting it is not counted. Every project is up to
date for `dvc status` at the end, and both ways leave equal locks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

NUM_STAGES, WIDTH = 200, 20
"""Of the large project: layers of so many stages, each of which depends on one of the layer before."""
NUM_CHANGED = 10
NUM_SLEEPING, SLEEP_S = 16, 10.0
REPEATS = 3
GOALS = {"up_to_date_ratio": 2.0, "overhead_s": 2.0, "speedup_2": 1.8, "speedup_8": 6.0}
"""The first two at most, the others at least."""


@dataclass(frozen=True)
class Project:
    """A DVC project of our own making."""

    root: Path
    outs: dict[str, str]
    """Content of every output, which is known beforehand."""

    def write(self, stages: dict[str, Any], params: dict[str, Any]) -> None:
        """Write the pipeline, without running it."""
        for name, content in (("dvc.yaml", {"stages": stages}), ("params.yaml", params)):
            with (self.root / name).open("w", encoding="utf-8") as file:
                YAML().dump(content, file)

    def write_as_if_run(self, stages: dict[str, Any], params: dict[str, Any]) -> None:
        """Write also what a run would leave: outputs, cache and dvc.lock. Running 200 stages takes DVC a minute."""
        self.write(stages, params)
        lock = {}
        for name, stage in stages.items():
            for out in stage["outs"]:
                content = self.outs[out].encode()
                digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
                cached = self.root / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
                cached.parent.mkdir(parents=True, exist_ok=True)
                cached.write_bytes(content)
                (self.root / out).write_bytes(content)
            lock[name] = {
                "cmd": stage["cmd"],
                "deps": [self._record(dep) for dep in stage["deps"]],
                "params": {
                    "params.yaml": {param: params["values"][param.partition(".")[2]] for param in stage["params"]}
                },
                "outs": [self._record(out) for out in stage["outs"]],
            }
        with (self.root / "dvc.lock").open("w", encoding="utf-8") as file:
            YAML().dump({"schema": "2.0", "stages": lock}, file)
        self.assert_up_to_date()

    def time(self, *command: str) -> float:
        """Run a Python module in the project; returns seconds of the clock."""
        started = time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-m", *command], cwd=self.root, capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - started
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} in {self.root} failed:\n{ended.stdout}{ended.stderr}")
        return seconds

    def assert_up_to_date(self) -> None:
        """Check that DVC has nothing to do."""
        found = subprocess.run(
            [sys.executable, "-m", "dvc", "status"], cwd=self.root, capture_output=True, text=True, check=True
        ).stdout
        assert "up to date" in found, found

    def read_lock(self) -> Any:
        """Read dvc.lock, in which the order of stages says only when each was run first."""
        return YAML(typ="safe").load((self.root / "dvc.lock").read_text(encoding="utf-8"))

    def _record(self, path: str) -> dict[str, str | int]:
        content = (self.root / path).read_bytes()
        return {
            "path": path,
            "hash": "md5",
            "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "size": len(content),
        }


def make_large(root: Path) -> tuple[Project, dict[str, Any], dict[str, Any]]:
    """Make the project of trivial stages, up to date; returns it with its stages and params."""
    outs: dict[str, str] = {}
    stages: dict[str, Any] = {}
    for number in range(NUM_STAGES):
        source, out = f"source{number}.txt", f"out{number}.txt"
        (root / source).write_text(f"{number}\n", encoding="utf-8")
        deps = [source] + ([f"out{number - WIDTH}.txt"] if number >= WIDTH else [])
        outs[out] = f"{number}\n" + "".join(outs[dep] for dep in deps[1:])
        stages[f"stage{number}"] = {
            "cmd": f"cat {' '.join(deps)} > {out}",
            "deps": deps,
            "params": [f"values.value{number}"],
            "outs": [out],
        }
    params = {"values": {f"value{number}": number for number in range(NUM_STAGES)}}
    project = Project(init(root), outs)
    project.write_as_if_run(stages, params)
    return project, stages, params


def make_sleeping(root: Path) -> Project:
    """Make a project of stages that do nothing, for a while."""
    project = Project(init(root), {})
    project.write(
        {
            f"sleep{number}": {
                "cmd": f"sleep {SLEEP_S} && echo {number} > out{number}.txt",
                "outs": [f"out{number}.txt"],
            }
            for number in range(NUM_SLEEPING)
        },
        {},
    )
    return project


def init(root: Path) -> Path:
    """Make a folder a git and DVC repository."""
    for command in (["git", "init", "--quiet"], [sys.executable, "-m", "dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=root, check=True)
    return root


def measure_up_to_date(project: Project) -> dict[str, list[float]]:
    """Let both look at a project with nothing to do, in turns."""
    samples: dict[str, list[float]] = {"dvc": [], "ours": []}
    for _ in range(REPEATS):
        samples["dvc"].append(project.time("dvc", "repro", "--quiet"))
        samples["ours"].append(project.time("flows.reproduce"))
    return samples


def measure_changed(project: Project, stages: dict[str, Any], params: dict[str, Any]) -> dict[str, float]:
    """Change some stages of the last layer, for each of the two in turn."""
    seconds = {}
    for step, (name, command) in enumerate(
        (("dvc", ("dvc", "repro", "--quiet")), ("ours", ("flows.reproduce", "--cpus", "1"))), start=1
    ):
        changed = {f"value{NUM_STAGES - 1 - number}": -1000 * step - number for number in range(NUM_CHANGED)}
        project.write(stages, {"values": params["values"] | changed})
        seconds[name] = project.time(*command)
        project.assert_up_to_date()
    return seconds


def measure_sleeping(folder: Path) -> dict[str, float]:
    """Run stages that sleep one after the other by DVC, and on two and eight slots by us."""
    projects = {}
    for name in ("dvc", "2", "8"):
        (folder / name).mkdir()
        projects[name] = make_sleeping(folder / name)
    with ThreadPoolExecutor(1) as pool:
        sequential = pool.submit(projects["dvc"].time, "dvc", "repro", "--quiet")
        seconds = {slots: projects[slots].time("flows.reproduce", "--cpus", slots) for slots in ("2", "8")}
        seconds["dvc"] = sequential.result()
    for project in projects.values():
        project.assert_up_to_date()
        assert project.read_lock() == projects["dvc"].read_lock(), "the locks differ"
    return seconds


def describe_versions() -> dict[str, str]:
    """Return the versions of what is compared."""
    return {name: metadata.version(name) for name in ("dvc", "prefect")}


def judge(
    up_to_date: dict[str, list[float]], changed: dict[str, float], sleeping: dict[str, float]
) -> dict[str, float | bool]:
    """Compare what was measured with the goals."""
    ours = statistics.median(up_to_date["ours"])
    found = {
        "up_to_date_ratio": ours / statistics.median(up_to_date["dvc"]),
        "overhead_s": (changed["ours"] - ours) / NUM_CHANGED,
        "speedup_2": sleeping["dvc"] / sleeping["2"],
        "speedup_8": sleeping["dvc"] / sleeping["8"],
    }
    meets = all(
        found[name] >= goal if name.startswith("speedup") else found[name] <= goal for name, goal in GOALS.items()
    )
    return {name: round(value, 2) for name, value in found.items()} | {"meets": meets}


def main() -> None:
    """Measure, print one JSON object, and write it where `--output` says."""
    parser = argparse.ArgumentParser(description="The executor against `dvc repro`.", allow_abbrev=False)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="executor-") as folder:
        # before prefect is imported: its database is not to be that of whoever runs this
        os.environ["PREFECT_HOME"] = str(Path(folder) / "prefect")
        os.environ.pop("PREFECT_API_URL", None)
        from benchmarks.machine import describe_machine
        from flows.server import ensure_server

        ensure_server()
        machine = describe_machine("cpu")
        (Path(folder) / "large").mkdir()
        large, stages, params = make_large(Path(folder) / "large")
        up_to_date = measure_up_to_date(large)
        changed = measure_changed(large, stages, params)
        sleeping = measure_sleeping(Path(folder))
    judged = judge(up_to_date, changed, sleeping)
    result = {
        "name": "executor",
        "ratio": judged["up_to_date_ratio"],
        "goal": GOALS["up_to_date_ratio"],
        **judged,
        "goals": GOALS,
        "up_to_date_s": up_to_date,
        "ten_changed_s": changed,
        "sleeping_s": sleeping,
        "sizes": {"stages": NUM_STAGES, "sleeping": NUM_SLEEPING, "sleep_s": SLEEP_S},
        "machine": machine,
        "versions": describe_versions(),
        "command": f"python -m benchmarks.executor{f' --output {args.output}' if args.output else ''}",
    }
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
