"""Where a run's numbers come from: the hash that DVC knows them by, and the commit that holds them."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.report.scores import SCORES_NAME

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Origin:
    """What brings a number back: `git checkout COMMIT`, or `git log -S ARTEFACT -- '*dvc.lock'`."""

    artefact: str
    """The md5 of the scores, as dvc.lock has it."""
    commit: str
    """The last commit that changed them; empty while what lies here is not committed, or git is not there."""


def find_origins(results: Path, runs: Iterable[str]) -> dict[str, Origin]:
    """The origin of every run that has scores."""
    paths = {run: results / run / SCORES_NAME for run in runs}
    present = {run: path for run, path in paths.items() if path.is_file()}
    commits = _commits_of(results) if present else {}
    return {
        run: Origin(
            hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest(), commits.get(f"{run}/{SCORES_NAME}", "")
        )
        for run, path in present.items()
    }


def _commits_of(folder: Path) -> dict[str, str]:
    """The last commit of every file below the folder that is as committed, by its path from there."""
    log = _git(folder, "log", "--format=commit %h", "--name-only", "--relative", "--", ".")
    commits: dict[str, str] = {}
    commit = ""
    for line in log.splitlines():
        if line.startswith("commit "):
            commit = line.removeprefix("commit ")
        elif line:
            commits.setdefault(line, commit)
    changed = _git(folder, "diff", "--name-only", "--relative", "HEAD", "--", ".").splitlines()
    return {path: commit for path, commit in commits.items() if path not in set(changed)}


def _git(folder: Path, *arguments: str) -> str:
    """What git prints; nothing outside a repository, or before its first commit."""
    try:
        ended = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git: a results folder that was copied to a machine for reading
        return ""
    return ended.stdout if ended.returncode == 0 else ""
