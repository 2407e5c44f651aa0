"""What changed between two revisions: scores, tables, verdicts and findings beyond noise, and what explains them.

As plain values for a report; `flows.difference_text` writes it as Markdown.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from flows.causes import Cause, Locks, RevisionError, list_files, name_commit, read_file
from flows.result_files import NOISE_LIMIT, ResultChange, ResultFile, ResultFileError, compare_results, count_errors
from flows.settings import SettingsError, fill_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flows.settings import Settings

WORKSPACE = "workspace"


class DifferenceError(RuntimeError):
    """The revisions cannot be compared; the message is DVC's or git's."""


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
    def num_errors(self) -> float | None:
        """By how many standard errors it moved; None where that is not known."""
        return count_errors(self.old, self.new, [self.standard_error])

    @property
    def is_noise(self) -> bool:
        """Whether it moved by less than a difference that means something."""
        return self.num_errors is not None and self.num_errors < NOISE_LIMIT

    @property
    def verdict(self) -> str:
        """Say whether the difference is more than noise."""
        if self.old is None or self.new is None:
            return "new" if self.old is None else "gone"
        return describe_errors(self.num_errors)


@dataclass(frozen=True, slots=True)
class Difference:
    """Two revisions, compared."""

    before: str
    after: str
    """Short names of commits, or `workspace`."""
    scores: tuple[MetricChange, ...]
    """Every number of DVC's metrics that changed, noise included."""
    results: tuple[ResultFile, ...]
    params: Mapping[str, Mapping[str, Any]]
    """As `dvc params diff --json` says."""
    causes: Mapping[str, tuple[Cause, ...]]
    """What explains a changed score or row, by its file, or by its file and key."""
    locks: Locks

    @property
    def is_empty(self) -> bool:
        """Whether no score and no row of a result file is another one."""
        return not self.scores and not any(file.changes or file.num_new or file.num_gone for file in self.results)


def describe_errors(num_errors: float | None) -> str:
    """Write `3.1 standard errors`, and whether that is noise."""
    if num_errors is None:
        return ""
    return f"{num_errors:.1f} standard errors" + ("" if num_errors >= NOISE_LIMIT else ", noise")


def compare_revisions(root: Path, before: str, after: str | None, settings: Settings) -> Difference:
    """Compare two commits, or a commit and the workspace.

    Args:
        root: the DVC project's folder.
        before: anything that git takes for a commit.
        after: the same; None is the workspace.
        settings: which files have the results, and what they call a standard error.

    Raises:
        DifferenceError: there is no such commit, or DVC cannot read a metrics file.
    """
    try:
        old = name_commit(root, before)
        new = None if after is None else name_commit(root, after)
        both = [old, *([] if new is None else [new])]
        scores = list_metric_changes(
            _run_dvc(root, "metrics", "diff", "--all", *both), noise_metric=settings.noise_metric
        )
        results = compare_results(root, old, new, settings.compare)
        locks = Locks(root, old, new)
        causes = {}
        for score in scores:
            path = score.name.partition(": ")[0]
            causes[score.name] = locks.find_causes([path], path)
        for file in results:
            for change in file.changes:
                causes[f"{file.path}: {change.key}"] = locks.find_causes(
                    {*change.old.sources, *change.new.sources}, file.path
                )
        return Difference(
            before=old,
            after=new or WORKSPACE,
            scores=tuple(scores),
            results=tuple(results),
            params=_run_dvc(root, "params", "diff", *both),
            causes=causes,
            locks=locks,
        )
    except (RevisionError, ResultFileError) as error:
        raise DifferenceError(str(error)) from error


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


def write_file(difference: Difference, settings: Settings, root: Path) -> Path:
    """Write a difference where a report looks for it; one without changes is not written over one with some.

    Without that rule, a report would forget what a run changed as soon as its results are committed. But where the
    changes were against the same commit, they were undone since: what that commit has is put back.

    Raises:
        DifferenceError: what lies there is no difference.
        SettingsError: [tool.flows] does not say where, or names a value that there is not.
    """
    if not settings.difference_file:
        raise SettingsError(
            "[tool.flows] of pyproject.toml has no difference_file; set it to where the difference goes"
        )
    path = root / fill_path(settings.difference_file, root / "params.yaml")
    text = None
    if difference.is_empty and path.exists():
        if _read_before(path) != difference.before:
            return path
        name = path.relative_to(root).as_posix()
        if name in list_files(root, difference.before):
            text = read_file(root, difference.before, name)
    if text is None:
        text = json.dumps(to_json(difference), indent=1, sort_keys=True) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def _read_before(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["before"]
    except (ValueError, KeyError, TypeError) as error:
        raise DifferenceError(
            f"{path} is no difference, which has a commit as `before` ({error!r}); take the committed one: "
            f"git checkout {path}"
        ) from error


def to_json(difference: Difference) -> dict[str, Any]:
    """Everything of a difference that a report shows, as plain values; noise is counted, not listed."""
    return {
        "before": difference.before,
        "after": difference.after,
        "noise_limit": NOISE_LIMIT,
        "scores": [
            {"name": change.name, "before": change.old, "after": change.new, "verdict": change.verdict}
            for change in difference.scores
            if not change.is_noise
        ],
        "num_noise": sum(change.is_noise for change in difference.scores),
        "files": [_file_to_json(file, difference) for file in difference.results],
        "causes": [{**asdict(cause), "reaches": count} for cause, count in count_reached(difference).items()],
    }


def count_reached(difference: Difference) -> dict[Cause, int]:
    """The causes of everything that changed beyond noise, with how many scores and rows each of them reaches."""
    reached: dict[Cause, int] = {}
    names = [change.name for change in difference.scores if not change.is_noise]
    names += [
        f"{file.path}: {change.key}"
        for file in difference.results
        for change in file.changes
        if change.is_reversed or not change.is_noise
    ]
    for name in names:
        for cause in difference.causes[name]:
            reached[cause] = reached.get(cause, 0) + 1
    return dict(sorted(reached.items(), key=lambda entry: -entry[1]))


def _file_to_json(file: ResultFile, difference: Difference) -> dict[str, Any]:
    return {
        "path": file.path,
        "title": file.title,
        "counts": {
            word: [file.counts_before.get(word, 0), file.counts_after.get(word, 0)]
            for word in sorted({*file.counts_before, *file.counts_after})
        },
        "reversed": [
            {
                "key": change.key,
                "before": change.old.word,
                "after": change.new.word,
                "verdict": describe_errors(change.num_errors),
                "causes": [cause.subject for cause in difference.causes[f"{file.path}: {change.key}"]],
            }
            for change in file.reversed
        ],
        "groups": [describe_group(file, group, changes) for group, changes in file.groups.items()],
        "num_new": file.num_new,
        "num_gone": file.num_gone,
    }


def describe_group(file: ResultFile, group: str, changes: Sequence[ResultChange]) -> dict[str, Any]:
    """Count what changed of a table: its cells, those beyond noise, and those with another word."""
    largest = max((change.num_errors for change in changes if change.num_errors is not None), default=None)
    return {
        "group": group,
        "size": file.group_sizes[group],
        "changed": len(changes),
        "beyond": sum(not change.is_noise for change in changes),
        "reversed": sum(change.is_reversed for change in changes),
        "largest": describe_errors(largest),
    }


def _read_number(pair: Mapping[str, Any], side: str) -> float | None:
    value = pair.get(side)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _run_dvc(root: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "dvc", *arguments, "--json"]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise DifferenceError(f"dvc {' '.join(arguments)}: {ended.stderr.strip()}")
    read: dict[str, Any] = json.loads(ended.stdout or "{}")
    return read
