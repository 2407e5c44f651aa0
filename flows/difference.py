"""What a run changed, against a commit, as Markdown: scores with their noise, params, data, minutes.

python -m flows diff [COMMIT]
"""

from __future__ import annotations

import json
import math
import posixpath
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_NOISE_LIMIT = 2.0
"""A difference of so many standard errors is no longer called noise."""
_MIB = 2**20


class DifferenceError(RuntimeError):
    """The commit cannot be compared with; the message is DVC's or git's."""


@dataclass(frozen=True, slots=True)
class MetricChange:
    """A number in a metrics file that is not what it was."""

    name: str
    """With its file: `scores.json: mmlu.score`."""
    old: float | None
    new: float | None
    standard_error: float | None
    """Of the difference of the two; None where the file gives none."""

    @property
    def verdict(self) -> str:
        """Say whether the difference is more than noise."""
        if self.old is None or self.new is None:
            return "new" if self.old is None else "gone"
        if not self.standard_error:
            return ""
        errors = abs(self.new - self.old) / self.standard_error
        return f"{errors:.1f} standard errors" + ("" if errors >= _NOISE_LIMIT else ", noise")


def write_difference(root: Path, commit: str, durations: Mapping[str, Sequence[float]], *, noise_metric: str) -> str:
    """Compare the workspace with a commit.

    Args:
        root: the DVC project's folder.
        commit: anything that git takes for one.
        durations: the seconds of each stage's runs, the last one last.
        noise_metric: the name under which a metrics file has the standard error of the numbers beside it.

    Raises:
        DifferenceError: there is no such commit, or DVC cannot read a metrics file.
    """
    name = _run(root, ["git", "rev-parse", "--short", "--verify", f"{commit}^{{commit}}"]).strip()
    metrics = _run_dvc(root, "metrics", "diff", "--all", name)
    params = _run_dvc(root, "params", "diff", name)
    old_lock, new_lock = _read_locks_of(root, name), _read_locks(root)
    parts = [f"## Against {name}\n"]
    parts += _write_scores(list_metric_changes(metrics, noise_metric=noise_metric))
    parts += _write_params(params)
    parts += _write_data(old_lock, new_lock)
    changed = [stage for stage, entry in new_lock.items() if old_lock.get(stage) != entry]
    parts += _write_minutes(changed, durations)
    return "\n".join(parts) if len(parts) > 1 else f"{parts[0]}\nNothing changed.\n"


def list_metric_changes(metrics: Mapping[str, Mapping[str, Any]], *, noise_metric: str) -> list[MetricChange]:
    """List the numbers that changed, of what `dvc metrics diff --all --json` says; noise itself is not listed."""
    changes = []
    for file, values in metrics.items():
        for name, pair in values.items():
            parent, _, leaf = name.rpartition(".")
            old, new = _read_number(pair, "old"), _read_number(pair, "new")
            if leaf == noise_metric or old == new:
                continue
            noise = values.get(f"{parent}.{noise_metric}" if parent else noise_metric, {})
            errors = [_read_number(noise, side) for side in ("old", "new")]
            known = [error for error in errors if error is not None]
            standard_error = math.hypot(*known) if len(known) == len(errors) else None
            changes.append(MetricChange(f"{file}: {name}", old, new, standard_error))
    return changes


def _write_scores(changes: Iterable[MetricChange]) -> list[str]:
    rows = [
        [f"`{change.name}`", _show(change.old), _show(change.new), _show_difference(change), change.verdict]
        for change in changes
    ]
    return _write_table("Scores", ["", "before", "now", "difference", "more than noise?"], rows)


def _write_params(params: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        [f"`{file}: {name}`", f"`{pair.get('old')}`", f"`{pair.get('new')}`"]
        for file, values in params.items()
        for name, pair in values.items()
    ]
    return _write_table("Params", ["", "before", "now"], rows)


def _write_data(old_lock: Mapping[str, Any], new_lock: Mapping[str, Any]) -> list[str]:
    old, new = _list_outs(old_lock), _list_outs(new_lock)
    rows = [
        [f"`{path}`", _show_size(old.get(path)), _show_size(new.get(path))]
        for path in dict.fromkeys([*new, *old])
        if _show_size(old.get(path)) != _show_size(new.get(path))
    ]
    return _write_table("Data: outputs of another size", ["", "before", "now"], rows)


def _write_minutes(changed: Iterable[str], durations: Mapping[str, Sequence[float]]) -> list[str]:
    rows = []
    for stage in changed:
        seconds = durations.get(stage, ())
        before = f"{seconds[-2] / 60:.2f}" if len(seconds) > 1 else ""
        rows.append([f"`{stage}`", before, f"{seconds[-1] / 60:.2f}" if seconds else ""])
    return _write_table("Minutes of the stages that were run", ["", "the time before", "now"], rows)


def _write_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"### {title}\n", f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    return [*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows), ""]


def _list_outs(lock: Mapping[str, Any]) -> dict[str, Any]:
    return {out["path"]: out for entry in lock.values() for out in entry.get("outs", [])}


def _show_size(out: Mapping[str, Any] | None) -> str:
    if out is None:
        return ""
    files = f"{out['nfiles']} files, " if "nfiles" in out else ""
    size = out.get("size", 0)
    return f"{files}{size / _MIB:.2f} MiB" if size >= _MIB else f"{files}{size} bytes"


def _show(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _show_difference(change: MetricChange) -> str:
    return "" if change.old is None or change.new is None else f"{change.new - change.old:+.4g}"


def _read_number(pair: Mapping[str, Any], side: str) -> float | None:
    value = pair.get(side)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _read_locks(root: Path) -> dict[str, Any]:
    """Read what every dvc.lock of the workspace holds, by stage address."""
    listed = _run(root, ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", "*dvc.lock"])
    locks = [(path, root / path) for path in sorted(set(listed.split("\0"))) if path]
    return _join_locks((path, file.read_text(encoding="utf-8")) for path, file in locks if file.exists())


def _read_locks_of(root: Path, commit: str) -> dict[str, Any]:
    listed = _run(root, ["git", "ls-tree", "-r", "-z", "--name-only", commit])
    locks = [path for path in listed.split("\0") if path.rpartition("/")[2] == "dvc.lock"]
    return _join_locks((path, _run(root, ["git", "show", f"{commit}:./{path}"])) for path in locks)


def _join_locks(locks: Iterable[tuple[str, str]]) -> dict[str, Any]:
    joined = {}
    for path, text in locks:
        folder = path.rpartition("/")[0]
        for name, entry in YAML(typ="safe").load(StringIO(text)).get("stages", {}).items():
            outs = [
                out | {"path": posixpath.normpath(posixpath.join(folder, out["path"]))} for out in entry.get("outs", [])
            ]
            joined[f"{folder}/dvc.yaml:{name}" if folder else name] = entry | {"outs": outs}
    return joined


def _run_dvc(root: Path, *arguments: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(_run(root, [sys.executable, "-m", "dvc", *arguments, "--json"]) or "{}")
    return read


def _run(root: Path, command: Sequence[str]) -> str:
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise DifferenceError(f"{' '.join(command[-4:])}: {ended.stderr.strip()}")
    return ended.stdout
