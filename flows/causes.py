"""Why a result is another one than it was: the values, code and data that changed on the way to it, by two locks.

`dvc.lock` has for every stage what it ran with. From a result's stage, the way leads back over every dependency that
changed, to the values, commands and files that no stage makes.
"""

from __future__ import annotations

import os.path
import posixpath
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

_NUM_REMEMBERED = 64
Kind = Literal["param", "code", "data", "command", "stage"]


class RevisionError(RuntimeError):
    """A commit, or a file in it, that cannot be read; the message is git's."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One change that no other change explains."""

    kind: Kind
    """`code` is what git holds, `data` what it does not; `stage` is one that is new, or no function of its inputs."""
    subject: str
    """The value with its file, the path, or the stage's address."""
    change: str
    """From what to what, or how many lines."""


class Locks:
    """What every `dvc.lock` of two revisions holds, by stage address."""

    def __init__(self, root: Path, before: str, after: str | None) -> None:
        """Read them; `after` is None for the workspace.

        Raises:
            RevisionError: git does not know a revision.
        """
        self.before = read_locks(root, before)
        self.after = read_locks(root, after)
        self._root = root.resolve()
        self._top = Path(run_git(root, "rev-parse", "--show-toplevel").strip())
        self._revisions = [before, *([] if after is None else [after])]
        self._makers = {out["path"]: address for address, entry in self._list_entries() for out in entry["outs"]}
        self._found: dict[str, tuple[Cause, ...]] = {}
        self._described: dict[str, Cause] = {}

    def list_changed(self) -> list[str]:
        """List the stages that were run, or are new."""
        return [address for address, entry in self.after.items() if self.before.get(address) != entry]

    def find_causes(self, sources: Iterable[str], file: str) -> tuple[Cause, ...]:
        """List what explains that a result changed, each once; nothing where no lock says a word about it.

        Args:
            sources: the files that the result was made of, among all that its stage reads.
            file: where it stands: what changed about the making of it counts, what else its stage reads does not.
        """
        found: dict[Cause, None] = {}
        for path in sources:
            for address in self._find_makers(path):
                found.update(dict.fromkeys(self._trace(address)))
        for address in self._find_makers(file):
            found.update(dict.fromkeys(self._explain(address, is_followed=False)))
        order = ("param", "command", "code", "data", "stage")
        return tuple(sorted(found, key=lambda cause: order.index(cause.kind)))

    def _trace(self, address: str) -> tuple[Cause, ...]:
        if address not in self._found:
            self._found[address] = ()  # a stage is looked at once, also on the way to itself
            self._found[address] = tuple(dict.fromkeys(self._explain(address, is_followed=True)))
        return self._found[address]

    def _explain(self, address: str, *, is_followed: bool) -> Iterator[Cause]:
        old, new = self.before.get(address), self.after.get(address)
        if old == new or new is None:
            return
        if old is None:
            yield Cause("stage", address, "is new")
            return
        is_explained = False
        if old["cmd"] != new["cmd"]:
            is_explained = True
            yield Cause("command", address, f"{old['cmd']} -> {new['cmd']}")
        for name in dict.fromkeys([*new["params"], *old["params"]]):
            for part, left, right in compare_values(old["params"].get(name), new["params"].get(name)):
                is_explained = True
                yield Cause("param", f"{name}{part}", f"{left} -> {right}")
        left_deps, right_deps = ({dep["path"]: dep for dep in entry["deps"]} for entry in (old, new))
        for path in dict.fromkeys([*right_deps, *left_deps]):
            if _identify(left_deps.get(path)) != _identify(right_deps.get(path)):
                is_explained = True
                makers = self._find_makers(path)
                for maker in makers if is_followed else ():
                    yield from self._trace(maker)
                if not makers:
                    yield self._describe_source(path)
        if not is_explained:
            yield Cause("stage", address, "made something else of the same inputs")

    def _describe_source(self, path: str) -> Cause:
        if path not in self._described:
            stat = listed = ""
            if self._is_inside(path):  # git refuses to be asked about others
                stat = run_git(self._root, "diff", "--shortstat", *self._revisions, "--", path).strip()
                listed = run_git(self._root, "ls-files", "--", path).strip()
            self._described[path] = Cause("code" if stat or listed else "data", path, stat or "changed")
        return self._described[path]

    def _is_inside(self, path: str) -> bool:
        return not _is_url(path) and Path(os.path.normpath(self._root / path)).is_relative_to(self._top)

    def _find_makers(self, path: str) -> list[str]:
        """The stages that make a path, something in it, or the folder that it lies in."""
        if path in self._makers:
            return [self._makers[path]]
        return list(
            dict.fromkeys(
                address
                for out, address in self._makers.items()
                if out.startswith(f"{path}/") or path.startswith(f"{out}/")
            )
        )

    def _list_entries(self) -> Iterator[tuple[str, Any]]:
        yield from self.before.items()
        yield from self.after.items()


def compare_values(before: Any, after: Any, part: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find the innermost values that differ, each with its dotted name."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*after, *before]):
            yield from compare_values(before.get(name), after.get(name), f"{part}.{name}")
    elif before != after:
        yield part, before, after


def name_commit(root: Path, revision: str) -> str:
    """Return the short id of a commit.

    Raises:
        RevisionError: there is none of this name.
    """
    return run_git(root, "rev-parse", "--short", "--verify", f"{revision}^{{commit}}").strip()


def run_git(root: Path, *arguments: str) -> str:
    """Return what git prints.

    Raises:
        RevisionError: it ended with a fault.
    """
    ended = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RevisionError(f"git {' '.join(arguments[:4])}: {ended.stderr.strip()}")
    return ended.stdout


def list_files(root: Path, revision: str | None) -> list[str]:
    """List the files of a commit, or those of the workspace that git holds or would; paths start at `root`.

    Raises:
        RevisionError: git does not know the revision.
    """
    command = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    if revision is not None:
        command = ["ls-tree", "-r", "-z", "--name-only", revision]
    return sorted(path for path in set(run_git(root, *command).split("\0")) if path)


def read_file(root: Path, revision: str | None, path: str) -> str | None:
    """Read a file as it is in a commit, or in the workspace; None where it was deleted."""
    if revision is not None:
        return run_git(root, "show", f"{revision}:./{path}")
    file = root / path
    return file.read_text(encoding="utf-8") if file.is_file() else None


def read_locks(root: Path, revision: str | None) -> dict[str, Any]:
    """Read every `dvc.lock` of a commit, or of the workspace, by stage address; all paths start at `root`.

    Raises:
        RevisionError: git does not know the revision.
    """
    joined = {}
    for path in list_files(root, revision):
        if path.rpartition("/")[2] != "dvc.lock":
            continue
        folder = path.rpartition("/")[0]
        stages = _parse(read_file(root, revision, path) or "")
        pipeline = _parse(read_file(root, revision, f"{path.removesuffix('lock')}yaml") or "")
        for name, entry in stages.items():
            # paths of a lock start where the stage's command does, which only dvc.yaml says
            start = posixpath.join(folder, _find_wdir(pipeline.get(name.partition("@")[0])))
            joined[f"{folder}/dvc.yaml:{name}" if folder else name] = {
                "cmd": entry.get("cmd", ""),
                "deps": _place(start, entry.get("deps", ())),
                "outs": _place(start, entry.get("outs", ())),
                "params": {
                    f"{posixpath.normpath(posixpath.join(start, file))}: {name}": value
                    for file, values in entry.get("params", {}).items()
                    for name, value in values.items()
                },
            }
    return joined


@lru_cache(maxsize=_NUM_REMEMBERED)
def _parse(text: str) -> Mapping[str, Any]:
    """Read the stages of a dvc.yaml or dvc.lock; most are the same in two revisions, and parsing one takes seconds."""
    read: Mapping[str, Any] = YAML(typ="safe").load(StringIO(text)) or {}
    stages: Mapping[str, Any] = read.get("stages") or {}
    return stages


def _find_wdir(stage: Mapping[str, Any] | None) -> str:
    if stage is None:
        return ""
    return str(stage.get("do", stage).get("wdir", ""))


def _place(folder: str, paths: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        entry
        if _is_url(entry["path"])
        else {**entry, "path": posixpath.normpath(posixpath.join(folder, entry["path"]))}
        for entry in paths
    ]


def _is_url(path: str) -> bool:
    return "://" in path


def _identify(entry: Mapping[str, Any] | None) -> Any:
    """What of an entry says which version it is: not its size, or by which hash it is named."""
    return None if entry is None else next((entry[name] for name in ("md5", "etag", "checksum") if name in entry), "")
