"""A difference between two revisions as Markdown, short enough for the text of a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flows.difference import WORKSPACE, count_reached, describe_errors, describe_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flows.causes import Cause
    from flows.difference import Difference, MetricChange
    from flows.result_files import ResultFile

MAX_ROWS = 50
"""Of one table."""
MAX_CHARACTERS = 60_000
"""What takes the text of a pull request takes no more than 65,536; the rest is for what stands before it."""
_MIB = 2**20
_NUM_NAMED = 2
_NUM_LISTED = 5
"""New numbers of one file that are still shown one by one."""
_MAX_CELL = 150


def write_markdown(difference: Difference, durations: Mapping[str, Sequence[float]]) -> str:
    """Write what changed: what was found first, then why, then data and minutes.

    Args:
        difference: of two revisions.
        durations: the seconds of each stage's runs here, the last one last; of use against the workspace.
    """
    title = f"## Against {difference.before}\n"
    if difference.after != WORKSPACE:
        title = f"## {difference.after} against {difference.before}\n"
    parts = _write_scores(difference)
    for file in difference.results:
        parts += _write_groups(file) + _write_words(file, difference)
    parts += _write_causes(count_reached(difference))
    parts += _write_params(difference.params)
    parts += _write_data(difference.locks.before, difference.locks.after)
    if difference.after == WORKSPACE:
        parts += _write_minutes(difference.locks.list_changed(), durations)
    return _cut_text("\n".join([title, *parts])) if parts else f"{title}\nNothing changed.\n"


def _cut_text(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    kept = text[:MAX_CHARACTERS].rpartition("\n")[0]
    num_left_out = text.count("\n") - kept.count("\n")
    return f"{kept}\n\nand {num_left_out} more lines\n"


def _write_scores(difference: Difference) -> list[str]:
    came, went, changed = _part_by_file(difference.scores)
    beyond = [change for change in changed if not change.is_noise]
    beyond.sort(key=lambda change: -(change.num_errors or 0.0))
    noise = [change for change in changed if change.is_noise]
    header = ["", "before", "now", "difference", "more than noise?", "because of"]
    parts = _write_table("Scores", header, [_score_row(change, difference) for change in beyond])
    if noise:
        names = ", ".join(f"`{change.name}` {_show_difference(change)}" for change in noise[:MAX_ROWS])
        more = f", and {len(noise) - MAX_ROWS} more" if len(noise) > MAX_ROWS else ""
        parts.append(f"{len(noise)} scores moved by noise: {names}{more}\n")
    for what, files in (("new", came), ("gone", went)):
        if files:
            named = ", ".join(f"{count} of `{file}`" for file, count in list(files.items())[:MAX_ROWS])
            more = f", and {len(files) - MAX_ROWS} more" if len(files) > MAX_ROWS else ""
            parts.append(f"Numbers that are {what}: {named}{more}\n")
    return parts


def _part_by_file(
    scores: Sequence[MetricChange],
) -> tuple[Mapping[str, int], Mapping[str, int], Sequence[MetricChange]]:
    """How many numbers came, and how many went, of the files where that is all; and the changes of other files.

    A new run has some fifty numbers, which would hide what changed in the runs that were there before.
    """
    by_file: dict[str, list[MetricChange]] = {}
    for change in scores:
        by_file.setdefault(change.name.partition(": ")[0], []).append(change)
    many = {file: found for file, found in by_file.items() if len(found) > _NUM_LISTED}
    came = {file: len(found) for file, found in many.items() if all(change.old is None for change in found)}
    went = {file: len(found) for file, found in many.items() if all(change.new is None for change in found)}
    return came, went, [change for change in scores if change.name.partition(": ")[0] not in came.keys() | went.keys()]


def _score_row(change: MetricChange, difference: Difference) -> list[str]:
    because = _name_causes(difference.causes[change.name])
    numbers = [_show(change.old), _show(change.new), _show_difference(change)]
    return [f"`{change.name}`", *numbers, change.verdict, because]


def _write_groups(file: ResultFile) -> list[str]:
    found = [describe_group(file, group, changes) for group, changes in file.groups.items()]
    rows = [
        [
            f"`{entry['group']}`",
            *(str(entry[name]) for name in ("size", "changed", "beyond", "reversed")),
            entry["largest"],
        ]
        for entry in sorted(found, key=lambda entry: -entry["beyond"])
        if entry["beyond"] or entry["reversed"]
    ]
    header = ["", "rows", "changed", "beyond noise or of unknown noise", "another verdict", "largest"]
    return _write_table(f"Tables, by {file.path}", header, rows)


def _write_words(file: ResultFile, difference: Difference) -> list[str]:
    if not (file.reversed or file.num_new or file.num_gone):
        return []
    words = sorted({*file.counts_before, *file.counts_after})
    counts = ", ".join(
        f"{word} {file.counts_before.get(word, 0)} -> {file.counts_after.get(word, 0)}" for word in words
    )
    rows = [
        [
            change.key,
            f"{change.old.word} -> {change.new.word}",
            f"{_show(change.old.number)} -> {_show(change.new.number)}",
            describe_errors(change.num_errors),
            _name_causes(difference.causes[f"{file.path}: {change.key}"]),
        ]
        for change in file.reversed
    ]
    parts = [f"### {file.title}\n", f"{counts}; {file.num_new} rows are new, {file.num_gone} are gone\n"]
    return parts + _write_table("", ["", "verdict", "number", "more than noise?", "because of"], rows)


def _write_causes(causes: Mapping[Cause, int]) -> list[str]:
    rows = [[cause.kind, f"`{cause.subject}`", f"`{cause.change}`", str(count)] for cause, count in causes.items()]
    return _write_table("What explains it", ["", "", "change", "scores and rows behind it"], rows)


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
    lines = [f"### {title}\n"] if title else []
    lines += [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(map(_show_cell, row))} |" for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        lines.append(f"\nand {len(rows) - MAX_ROWS} more")
    return [*lines, ""]


def _show_cell(text: str) -> str:
    """Bring a text into a cell of a table: on one line, cut in the middle where it is long."""
    line = " ".join(text.split())
    if len(line) > _MAX_CELL:
        half = _MAX_CELL // 2
        line = f"{line[:half]} ... {line[-half:]}"
    return line.replace("|", "\\|")


def _name_causes(causes: Sequence[Cause]) -> str:
    named = ", ".join(f"`{cause.subject}`" for cause in causes[:_NUM_NAMED])
    return named + (f" and {len(causes) - _NUM_NAMED} more" if len(causes) > _NUM_NAMED else "")


def _list_outs(lock: Mapping[str, Any]) -> dict[str, Any]:
    return {out["path"]: out for entry in lock.values() for out in entry["outs"]}


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
