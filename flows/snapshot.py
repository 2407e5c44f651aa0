"""The workspace as a commit: what another machine needs to run a stage, edits and new files included.

Made beside the checkout, the way `git stash create` does: neither the branch, the index nor a file is touched. The
commit goes to a ref of its own name on a git remote that workers reach.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_MAX_NEW_BYTES = 50 * 2**20
_WRITER = "flows"


class SnapshotError(RuntimeError):
    """The workspace cannot become a commit, or git refused something."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A commit that holds the workspace."""

    top: Path
    """The repository's folder."""
    commit: str
    """Its id; the checked out commit's where nothing was edited."""

    @property
    def ref(self) -> str:
        """Where it is put on a git remote."""
        return name_ref(self.commit)


def name_ref(commit: str) -> str:
    """Name the ref of a commit on a git remote."""
    return f"refs/flows/{commit}"


def take_snapshot(root: Path) -> Snapshot:
    """Make a commit of the workspace around `root`: tracked files as they are, and new ones that git does not ignore.

    Raises:
        SnapshotError: no commit yet, an edited submodule (a commit holds only which commit of it is meant), or a new
            file so large that it is hardly meant to go into git.
    """
    top = Path(_git(root, "rev-parse", "--show-toplevel"))
    _refuse_dirty_submodules(top)
    _refuse_large(top)
    with _index_of(top, "HEAD") as environment:
        _git(top, "add", "--all", environment=environment)
        return Snapshot(top, _commit(top, "HEAD", environment))


def add_files(snapshot: Snapshot, paths: Sequence[Path]) -> Snapshot:
    """Put files and folders of the workspace, as they are now, over those of a snapshot; ignored ones too."""
    with _index_of(snapshot.top, snapshot.commit) as environment:
        _git(snapshot.top, "add", "--all", "--force", "--", *map(str, paths), environment=environment)
        return Snapshot(snapshot.top, _commit(snapshot.top, snapshot.commit, environment))


def list_unknown(snapshot: Snapshot, paths: Sequence[Path]) -> list[Path]:
    """List those of the paths that the snapshot does not hold, as git ignores them or they are outside."""
    unknown = []
    for path in paths:
        try:
            name = path.relative_to(snapshot.top).as_posix()
        except ValueError:
            unknown.append(path)
            continue
        if not _git(snapshot.top, "ls-tree", "--name-only", snapshot.commit, "--", name):
            unknown.append(path)
    return unknown


def push_snapshot(snapshot: Snapshot, remote: str) -> None:
    """Put the commit onto a git remote, under its ref."""
    _git(snapshot.top, "push", "--quiet", "--no-verify", remote, f"{snapshot.commit}:{snapshot.ref}")


def drop_snapshot(snapshot: Snapshot, remote: str) -> None:
    """Take the ref away again; the remote's own housekeeping then forgets the commit."""
    _git(snapshot.top, "push", "--quiet", "--no-verify", remote, f":{snapshot.ref}")


def find_address(root: Path, remote: str) -> str:
    """Look up a git remote's address; a folder's is made absolute, as a worker stands elsewhere."""
    address = _git(root, "remote", "get-url", remote)
    path = root / address
    return str(path.resolve()) if path.is_dir() else address


def _refuse_dirty_submodules(top: Path) -> None:
    status = _git(top, "status", "--porcelain=v2", "--ignore-submodules=none", "-z")
    dirty = []
    for line in status.split("\0"):
        parts = line.split(" ", 8)
        # field 3 is `N...` of a file, `S<commit><modified><untracked>` of a submodule
        if parts[0] == "1" and parts[2].startswith("S") and parts[2][2:] != "..":
            dirty.append(parts[8])
    if dirty:
        raise SnapshotError(
            f"the submodule {', '.join(dirty)} has edits that are not committed there; other machines would not get "
            "them. Commit them in the submodule, and push it"
        )


def _refuse_large(top: Path) -> None:
    listed = _git(top, "ls-files", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        size = (top / name).lstat().st_size
        if size > _MAX_NEW_BYTES:
            raise SnapshotError(
                f"{name} is new and has {size / 2**20:.0f} MiB, which would go to git with the snapshot (at most "
                f"{_MAX_NEW_BYTES // 2**20}): `dvc add {name}`, or let git ignore it"
            )


@contextmanager
def _index_of(top: Path, commit: str) -> Iterator[dict[str, str]]:
    """An index file of its own with a commit's tree; gives git's environment for it."""
    with tempfile.TemporaryDirectory(prefix="flows-index-") as folder:
        environment = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(top, "read-tree", commit, environment=environment)
        yield environment


def _commit(top: Path, parent: str, environment: Mapping[str, str]) -> str:
    tree = _git(top, "write-tree", environment=environment)
    if tree == _git(top, "rev-parse", f"{parent}^{{tree}}"):
        return _git(top, "rev-parse", parent)
    date = _git(top, "show", "--no-patch", "--format=%cI", parent)
    # the parent's date: the same files become the same commit, however often they are asked for
    who = {
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", _WRITER), ("EMAIL", ""), ("DATE", date))
    }
    return _git(top, "commit-tree", tree, "-p", parent, "-m", "snapshot of a workspace", environment=who)


def _git(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    ended = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=os.environ | {"GIT_TERMINAL_PROMPT": "0"} | dict(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        raise SnapshotError(f"git {' '.join(arguments[:2])}: {ended.stderr.strip()}")
    return ended.stdout.rstrip("\n")
