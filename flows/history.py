"""What git knows about the files that a stage was run with: the version that DVC recorded, and what changed since."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MAX_COMMITS = 200


@dataclass(frozen=True, slots=True)
class Difference:
    """How a file or folder differs from a committed version of it."""

    commit: str
    """Short name of the commit with the old version."""
    is_exact: bool
    """Whether that is the very version with which the stage ran; else it is the nearest that is known."""
    lines: tuple[str, ...]
    """A unified diff."""
    untracked: tuple[str, ...]
    """Files in the folder that git does not know."""


def find_difference(root: Path, path: str, recorded: str) -> Difference | None:
    """Compare a path with the version of it that DVC recorded.

    That version is searched among the commits that changed the path, by its content. If none has it, the path is
    compared with the commit in which dvc.lock last changed.

    Args:
        root: a folder in the repository, on which `path` stands.
        path: a file or folder.
        recorded: its MD5 as dvc.lock has it (a folder's ends in `.dir`).

    Returns:
        None when git does not track the path, or there is no git repository.
    """
    listed = _git(root, "log", f"--max-count={_MAX_COMMITS}", "--format=%h", "--", path)
    if listed is None or not listed.split():
        return None
    commits = listed.split()
    exact = next((commit for commit in commits if _hash_version(root, commit, path) == recorded), None)
    commit = exact or (_git(root, "log", "-1", "--format=%h", "--", "*dvc.lock") or "").strip() or commits[0]
    diff = _git(root, "diff", "--no-color", "--no-ext-diff", "--unified=1", commit, "--", path) or ""
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "--", path) or ""
    return Difference(commit, exact is not None, tuple(diff.splitlines()), tuple(untracked.splitlines()))


def _hash_version(root: Path, commit: str, path: str) -> str | None:
    """Compute what DVC would record of a committed version: MD5 of a file, or of the list of a folder's files."""
    listed = _git(root, "ls-tree", "-r", "-z", "--full-name", commit, "--", path)
    prefix = _git(root, "rev-parse", "--show-prefix")
    if not listed or prefix is None:
        return None
    full = os.path.normpath(f"{prefix.strip()}{path}")
    entries = [(line.split("\t", 1)[1], line.split()[2]) for line in listed.split("\0") if line]
    contents = _read_blobs(root, [blob for _, blob in entries])
    digests = [hashlib.md5(content, usedforsecurity=False).hexdigest() for content in contents]
    if [name for name, _ in entries] == [full]:
        return digests[0]
    files = [
        {"md5": digest, "relpath": name.removeprefix(f"{full}/")}
        for (name, _), digest in zip(entries, digests, strict=True)
    ]
    files.sort(key=lambda file: file["relpath"].split("/"))
    return f"{hashlib.md5(json.dumps(files, sort_keys=True).encode(), usedforsecurity=False).hexdigest()}.dir"


def _read_blobs(root: Path, blobs: Sequence[str]) -> list[bytes]:
    read = subprocess.run(
        ["git", "cat-file", "--batch"], cwd=root, input="\n".join(blobs).encode(), capture_output=True, check=True
    ).stdout
    contents = []
    position = 0
    for _ in blobs:
        end = read.index(b"\n", position)
        size = int(read[position:end].split()[2])
        contents.append(read[end + 1 : end + 1 + size])
        position = end + 1 + size + 1
    return contents


def _git(root: Path, *arguments: str) -> str | None:
    """Run git; None when it fails, as it does outside a repository and before the first commit."""
    ended = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False, errors="replace")
    return ended.stdout if ended.returncode == 0 else None
