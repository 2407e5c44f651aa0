"""Results on a branch of their own: one commit, made beside the checkout, which stays as it is."""

from __future__ import annotations

import os
import posixpath
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class DeliveryError(RuntimeError):
    """The results cannot be committed as they are."""


RESULT_NAMES = ("dvc.lock", ".gitignore", "params.yaml")
"""What a run writes and git holds: DVC's locks, its lists of what git is not to hold, and values that were set."""


def commit_results(root: Path, branch: str, message: str, outs: Collection[str] = ()) -> str | None:
    """Commit what a run wrote onto the commit that is checked out, and let a branch point there.

    Neither the checkout nor its index is touched. Where the branch pointed before is left to git's reflog.

    Args:
        root: a folder in the repository.
        branch: made, or moved.
        message: its first line is the subject.
        outs: paths below `root` of what the run makes; those that git holds (metrics and tables that DVC does not
            cache, for example) are results.

    Returns:
        The commit's id, or None when nothing changed.

    Raises:
        DeliveryError: the branch is checked out, or a tracked file was edited that is not a result: the results would
            then stand beside code with which they were not made.
    """
    if _git(root, "rev-parse", "--abbrev-ref", "HEAD") == branch:
        raise DeliveryError(f"{branch} is checked out; results go to a branch of their own")
    top = Path(_git(root, "rev-parse", "--show-toplevel"))
    status = _git(top, "status", "--porcelain", "--no-renames", "--untracked-files=all", "-z")
    entries = [(entry[:2], entry[3:]) for entry in status.split("\0") if entry]
    prefix = _git(root, "rev-parse", "--show-prefix")
    made = [posixpath.normpath(posixpath.join(prefix, out)) for out in outs]
    results = [path for _, path in entries if is_result(path, made)]
    others = [path for state, path in entries if state != "??" and path not in results]
    if others:
        raise DeliveryError(f"{', '.join(others)} was edited and is not committed; commit or undo that first")
    if not results:
        return None
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(top, "read-tree", "HEAD", environment=index)
        _git(top, "add", "--all", "--", *results, environment=index)
        tree = _git(top, "write-tree", environment=index)
    commit = _git(top, "commit-tree", tree, "-p", "HEAD", "-m", message)
    _git(top, "update-ref", "-m", "results of a run", f"refs/heads/{branch}", commit)
    return commit


def is_result(path: str, outs: Collection[str]) -> bool:
    """Whether a run wrote a file that git holds: an output or a part of one, or what DVC itself writes."""
    return Path(path).name in RESULT_NAMES or any(path == out or path.startswith(f"{out}/") for out in outs)


def _git(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    ended = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise DeliveryError(f"git {' '.join(arguments[:2])}: {ended.stderr.strip()}")
    return ended.stdout.rstrip("\n")
