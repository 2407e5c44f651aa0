"""Which objects of a DVC remote somebody may still want: those that a dvc.lock or .dvc file of given commits names."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flows.bucket import Bucket, Stored


class UnreadableError(RuntimeError):
    """A commit or a lock file that cannot be read; nothing may be deleted by it."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """An output as a lock file names it."""

    path: str
    """From the repository's folder."""
    digest: str
    """Ends in `.dir` for a folder."""
    size: int | None
    """Bytes, as recorded."""


@dataclass(frozen=True, slots=True)
class Census:
    """What a remote holds, by whether somebody names it."""

    wanted: tuple[Stored, ...]
    unwanted: tuple[Stored, ...]
    """In the order in which they may be deleted: run-cache entries before the objects that they name."""
    young: tuple[Stored, ...]
    """Unwanted, but so new that somebody may be about to name them."""
    missing: tuple[Artefact, ...]
    """What is named and not there."""


def list_artefacts(root: Path, revisions: Sequence[str]) -> list[Artefact]:
    """List the outputs that the workspace's and these commits' lock files name, each version of each once.

    Args:
        root: a folder in the git repository.
        revisions: commits, branches or tags; none means all branches, remote ones too, and all tags.

    Raises:
        UnreadableError: git does not know a revision, or a file cannot be parsed.
    """
    found: dict[tuple[str, str], Artefact] = {}
    names = _git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--full-name", ":/").split("\0")
    top = _git(root, "rev-parse", "--show-toplevel").strip()
    for name in filter(_is_lock, names):
        path = Path(top) / name
        if path.exists():
            found |= {(a.path, a.digest): a for a in _parse(name, path.read_text(encoding="utf-8"))}
    refs = _git(root, "for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes", "refs/tags").split()
    seen: set[str] = set()
    for revision in revisions or refs:
        for line in filter(
            None, _git(root, "ls-tree", "-r", "-z", "--full-tree", f"{revision}^{{commit}}").split("\0")
        ):
            meta, _, name = line.partition("\t")
            blob = meta.split()[2]
            if _is_lock(name) and blob not in seen:
                seen.add(blob)
                found |= {(a.path, a.digest): a for a in _parse(name, _git(root, "cat-file", "blob", blob))}
    return sorted(found.values(), key=lambda artefact: (artefact.path, artefact.digest))


def list_commits(root: Path) -> list[str]:
    """List every commit that a branch or a tag has in its history.

    Raises:
        UnreadableError: the clone is a shallow one, which does not know them all.
    """
    if _git(root, "rev-parse", "--is-shallow-repository").strip() == "true":
        raise UnreadableError("this clone has only a part of the history: git fetch --unshallow")
    return _git(root, "rev-list", "--all").split()


def take_census(bucket: Bucket, artefacts: Sequence[Artefact], *, older_than_days: float) -> Census:
    """Compare a bucket with what is named.

    A folder's own list says which files it has; one whose list is missing keeps nothing, and is among the missing. A
    run-cache entry is wanted as long as everything that it names is there and wanted.
    """
    stored = list(bucket.iter_stored())
    objects = {found.digest: found for found in stored if found.digest is not None}
    named = {artefact.digest for artefact in artefacts}
    for digest in sorted(named & objects.keys()):
        if digest.endswith(".dir"):
            named |= {str(file["md5"]) for file in json.loads(bucket.read(objects[digest].key))}
    limit = datetime.now(UTC) - timedelta(days=older_than_days)
    groups: dict[str, list[Stored]] = {"wanted": [], "unwanted": [], "young": []}
    # entries first
    for found in sorted(stored, key=lambda found: (found.digest is not None, found.key)):
        if found.digest is None:
            is_wanted = {str(out["md5"]) for out in _read_yaml(found.key, bucket.read(found.key))["outs"]} <= named
        else:
            is_wanted = found.digest in named
        groups["wanted" if is_wanted else "young" if found.modified > limit else "unwanted"].append(found)
    missing = tuple(artefact for artefact in artefacts if artefact.digest not in objects)
    return Census(tuple(groups["wanted"]), tuple(groups["unwanted"]), tuple(groups["young"]), missing)


def _is_lock(name: str) -> bool:
    return name.rpartition("/")[2] == "dvc.lock" or name.endswith(".dvc")


def _parse(name: str, text: str) -> Iterator[Artefact]:
    folder = name.rpartition("/")[0]
    content = _read_yaml(name, text)
    stages = list(content["stages"].values()) if "stages" in content else [content]
    for stage in stages:
        for out in stage.get("outs", ()):
            if "md5" in out:
                yield Artefact(f"{folder}/{out['path']}".lstrip("/"), str(out["md5"]), out.get("size"))


def _read_yaml(name: str, text: str | bytes) -> dict[str, Any]:
    try:
        content = YAML(typ="safe").load(text)
    except (YAMLError, UnicodeDecodeError) as error:
        raise UnreadableError(f"{name} cannot be parsed, so nothing is known of what it names: {error}") from error
    if not isinstance(content, dict):
        raise UnreadableError(f"{name} holds {type(content).__name__}; expected a table")
    return content


def _git(root: Path, *arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise UnreadableError(f"git {' '.join(arguments)}: {ended.stderr.strip()}")
    return ended.stdout
