"""What `sbatch` does with a script, without a cluster."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_options(script: Path) -> dict[str, str]:
    """Read the options of a batch script, by their long names."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", script.read_text(), flags=re.MULTILINE))


def submit(script: Path, *arguments: str, folder: Path, number: int, **environment: str) -> subprocess.Popen[bytes]:
    """Start a job: a copy of the script, in the folder of the call, with what SLURM tells of the job.

    The folder gets a `.venv`, which is this process's, and the job's log; the node's own disk is `node` in it.
    """
    options = read_options(script)
    spooled = folder / f"slurm-script-{number}"
    spooled.write_text(script.read_text())
    if not (folder / ".venv").exists():
        (folder / ".venv").symlink_to(sys.prefix)
    kept = {name: value for name, value in os.environ.items() if name != "FLOWS_WORKER_DIR"}
    slurm = {
        "SLURM_JOB_ID": str(number),
        "SLURM_SUBMIT_DIR": str(folder),
        "SLURM_TMPDIR": str(folder / "node"),
        "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
        "SLURM_GPUS_ON_NODE": options["gpus"],
        "PATH": f"{folder / 'nothing'}:/usr/bin:/bin",  # the script is to find its programs by itself
    }
    with (folder / options["output"].replace("%j", str(number))).open("wb") as log:
        return subprocess.Popen(
            ["bash", spooled, *arguments],
            cwd=folder,
            env=kept | slurm | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
