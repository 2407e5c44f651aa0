"""A copy of the project with few rows and small numbers, for running the real `dvc repro` in a test."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from tests.interrupts import listen_to_ctrl_c
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FOLDERS = ("cambrian", "docs", "flows", "pipeline", "recordings", "scales", "stages")
FILES = (
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    "pyproject.toml",
    "results/mini/actual.json",
    "results/mini/difference.json",
)


class Project:
    """A project folder of its own: git, DVC, code copied, rows cut down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for part in (*FOLDERS, *FILES):
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
            else:
                (folder / part).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, folder / part)
        for command in ("git init -q", "dvc init -q"):
            subprocess.run(command.split(), cwd=folder, check=True, env=self.environment)

    @property
    def environment(self) -> dict[str, str]:
        """The test's environment, with this copy's code first and no bytecode written into it."""
        return {**os.environ, "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "DVC_NO_ANALYTICS": "1"}

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Load a YAML file, change the value, write it back."""
        yaml = YAML(typ="safe")
        path = self.folder / name
        value = yaml.load(path.read_text())
        change(value)
        with path.open("w") as file:
            yaml.dump(value, file)

    def repro(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `dvc repro` and return what it printed."""
        done = subprocess.run(
            ["dvc", "repro", *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True
        )
        if check:
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    def status(self) -> str:
        """What `dvc status` prints."""
        return subprocess.run(
            ["dvc", "status"], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True
        ).stdout

    def repro_until(self, sign: Callable[[], bool], *arguments: str, signal_number: int) -> int:
        """Run `dvc repro`, send the signal to all its processes once the sign is seen, return the exit code."""
        process = subprocess.Popen(
            ["dvc", "repro", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=listen_to_ctrl_c,
        )
        deadline = time.monotonic() + 300
        while not sign():
            assert process.poll() is None, "dvc repro ended before the sign was seen"
            assert time.monotonic() < deadline, "the sign was never seen"
            time.sleep(0.02)
        os.killpg(process.pid, signal.Signals(signal_number))
        return process.wait(timeout=60)


def stages_run(output: str) -> list[str]:
    """The names of the stages that a `dvc repro` ran, without the files that they stand in."""
    return [line.split("'")[1].rsplit(":", 1)[-1] for line in output.splitlines() if line.startswith("Running stage '")]


def keep_runs(params: dict[str, Any], *names: str) -> None:
    """Cut params.yaml down to some runs and to the adapters, mixes and backbones that they need."""
    params["runs"] = {name: params["runs"][name] for name in names}
    runs = params["runs"].values()
    params["adapters"] = {name: params["adapters"][name] for name in sorted({run["adapter"] for run in runs})}
    rows = [*runs, *params["adapters"].values()]
    mixes = sorted({row["mix"] for row in rows})
    params["probed"] = [name for name in params["probed"] if any(name in row["encoders"] for row in rows)]
    params["analysed"] = {
        name: run
        for name, run in params["runs"].items()
        if params["adapters"][run["adapter"]]["connector"].startswith("sva")
    }
    params["mixes"] = {name: params["mixes"][name] for name in mixes}
    params["backbones"] = sorted({row["llm"] for row in rows} | {name for row in rows for name in row["encoders"]})
