"""Why a stage would run again, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.history import find_difference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flows.changes import Change
    from flows.graph import Project

_MAX_LINES = 40


def explain_stage(project: Project, address: str) -> list[str]:
    """Say why a stage would run, or that it would not; one line of text per line.

    The stages before it come first: what they make anew is not known yet, so the stage itself may still turn out to be
    up to date.

    Raises:
        GraphError: there is no such stage, or DVC cannot tell.
    """
    nodes = project.plan([address])
    up_to_date = project.find_up_to_date(nodes)
    if len(up_to_date) == len(nodes):
        return [f"{address} is up to date, and so is everything that it depends on."]
    lines = []
    for node in nodes:
        if node.address in up_to_date:
            continue
        changes = project.explain(node.address)
        before = [upstream for upstream in node.upstream if upstream not in up_to_date]
        if changes:
            lines.append(f"{node.address} would run:")
            for change in changes:
                lines += [f"  {line}" for line in _describe(project, change)]
        else:
            lines.append(f"{node.address} runs if what it depends on changes:")
        lines += [f"  it depends on {upstream}, which may make something else" for upstream in before]
    return lines


def _describe(project: Project, change: Change) -> Iterator[str]:
    match change.kind:
        case "new":
            yield "it has never run: dvc.lock has no entry for it"
        case "always":
            yield "it runs every time: it has no dependencies, or dvc.yaml says always_changed"
        case "command":
            yield "its command changed"
            yield f"  from: {change.before}"
            yield f"  to:   {change.after}"
        case "param":
            yield f"param {change.subject} {_describe_values(change)}"
        case "output":
            if change.after is None:
                yield f"its output {change.subject} is missing"
            else:
                yield f"its output {change.subject} is not what it made"
        case _:
            yield from _describe_dependency(project, change)


def _describe_values(change: Change) -> str:
    if change.before is None:
        return f"is new: {change.after}"
    if change.after is None:
        return f"was {change.before}, and is gone"
    return f"changed from {change.before} to {change.after}"


def _describe_dependency(project: Project, change: Change) -> Iterator[str]:
    made = f", which {change.maker} makes," if change.maker is not None else ""
    if change.after is None:
        yield f"{change.subject}{made} is missing"
        return
    if change.before is None:
        yield f"{change.subject}{made} is a new dependency"
        return
    yield f"{change.subject}{made} changed ({change.before[:8]} -> {change.after[:8]})"
    difference = None if change.maker else find_difference(Path.cwd(), change.subject, change.before)
    if difference is None:
        return
    if not difference.is_exact:
        yield f"  the version with which it ran is in no commit; the nearest is {difference.commit}:"
    else:
        yield f"  since {difference.commit}:"
    shown = [line for line in difference.lines if not line.startswith(("diff ", "index ", "--- "))]
    for line in shown[:_MAX_LINES]:
        yield f"    {line.removeprefix('+++ b/') if line.startswith('+++ ') else line}"
    if len(shown) > _MAX_LINES:
        yield f"    ... {len(shown) - _MAX_LINES} more lines: git diff {difference.commit} -- {change.subject}"
    for name in difference.untracked:
        yield f"    {name} is new, and git does not know it"
