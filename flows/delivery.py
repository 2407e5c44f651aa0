"""Results on a branch of their own: one commit, made beside the checkout, which stays as it is."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class DeliveryError(RuntimeError):
    """The results cannot be committed as they are."""


def commit_results(root: Path, branch: str, files: Sequence[Path], message: str) -> str | None:
    """Commit files as they are in the checkout onto the commit that is checked out, and let a branch point there.

    Neither the checkout nor its index is touched. Where the branch pointed before is left to git's reflog.

    Args:
        root: a folder in the repository.
        branch: made, or moved.
        files: what the run wrote and git is to hold; ignored ones (what DVC holds) are left out.
        message: its first line is the subject.

    Returns:
        The commit's id, or None when all files are as they were.

    Raises:
        DeliveryError: the branch is checked out, or a tracked file besides `files` was edited: the results would then
            stand beside code with which they were not made.
    """
    if _git(root, "rev-parse", "--abbrev-ref", "HEAD") == branch:
        raise DeliveryError(f"{branch} is checked out; results go to a branch of their own")
    top = Path(_git(root, "rev-parse", "--show-toplevel"))
    known = [path.resolve().relative_to(top.resolve()).as_posix() for path in files]
    edited = [
        line[3:] for line in _git(root, "status", "--porcelain", "--untracked-files=no").splitlines() if line.strip()
    ]
    others = [path for path in edited if path not in known]
    if others:
        raise DeliveryError(f"{', '.join(others)} was edited and is not committed; commit or undo that first")
    wanted = [path for path in known if not _is_ignored(top, path)]
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(top, "read-tree", "HEAD", environment=index)
        if wanted:
            _git(top, "add", "--", *wanted, environment=index)
        tree = _git(top, "write-tree", environment=index)
    if tree == _git(top, "rev-parse", "HEAD^{tree}"):
        return None
    commit = _git(top, "commit-tree", tree, "-p", "HEAD", "-m", message)
    _git(top, "update-ref", "-m", "results of a run", f"refs/heads/{branch}", commit)
    return commit


def _is_ignored(top: Path, path: str) -> bool:
    return subprocess.run(["git", "check-ignore", "--quiet", path], cwd=top, check=False).returncode == 0


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
