"""The reasons for which DVC would run a stage again: values and hashes, as they were and as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Change:
    """One reason for which DVC would run a stage again."""

    kind: str
    """`new` (it never ran), `command`, `param`, `dependency`, `output` or `always` (it asks to run every time)."""
    subject: str
    """The name of the param, with its file, or the path; empty for a stage and its command."""
    before: str | None
    """Value, hash or command when the stage last ran; None when there was none."""
    after: str | None
    """The same, now."""
    maker: str | None = None
    """The stage that makes the dependency."""


def explain_params(file: Any) -> list[Change]:
    """Compare the values that a stage tracks in a params file with those that it ran with."""
    before = file.hash_info.value if file.hash_info else {}
    now = file.read_params() if file.exists else {}
    prefix = "" if str(file) == file.DEFAULT_PARAMS_FILE else f"{file}:"
    changes = []
    for name in file.params or [*now, *(name for name in before if name not in now)]:
        for part, old, new in _compare(before.get(name, _MISSING), now.get(name, _MISSING)):
            changes.append(Change("param", f"{prefix}{name}{part}", _write_value(old), _write_value(new)))
    return changes


_MISSING = object()


def _compare(before: Any, now: Any, part: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find the innermost values that differ, each with its dotted name."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*before, *now]):
            yield from _compare(before.get(name, _MISSING), now.get(name, _MISSING), f"{part}.{name}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _compare(old, new, f"{part}[{index}]")
    elif before is _MISSING or now is _MISSING or before != now:
        yield part, before, now


def _write_value(value: Any) -> str | None:
    return None if value is _MISSING else str(value)


def explain_output(out: Any) -> list[Change]:
    """Compare an output with what the stage made."""
    before = out.hash_info.value if out.hash_info else None
    now = out.get_hash().value if out.exists else None
    return [] if before == now else [Change("output", str(out), before, now)]
