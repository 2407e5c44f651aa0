"""What every training was forecast to take beside what it took."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SECONDS_PER_MINUTE = 60.0


def compare_costs(forecast: Path, actual: Path) -> dict[str, Any]:
    """Forecast and actual minutes of every training, and of which runs and commits the actual ones are.

    `actual` is what `python -m flows.timings --write` wrote; before the first run it says that nothing was measured.

    Raises:
        ArtifactError: a file is missing or broken.
    """
    expected, measured = read_json(forecast), read_json(actual)["stages"]
    rows = [
        _describe(name, phase, measured.get(phase["stage"]))
        for name, phase in sorted(expected["phases"].items(), key=lambda entry: -entry[1]["minutes"])
    ]
    both = [row for row in rows if row["ratio"] is not None]
    totals = {name: sum(row[name] for row in both) for name in ("forecast", "actual")}
    return {
        "hardware": expected["assumptions"]["hardware"]["name"],
        "rows": rows,
        "num_measured": len(both),
        "total": {**totals, "ratio": totals["actual"] / totals["forecast"] if totals["forecast"] else None},
        "runs": _list_runs({row["stage"]: measured[row["stage"]] for row in both}),
    }


def _describe(name: str, phase: Mapping[str, Any], measured: Mapping[str, Any] | None) -> dict[str, Any]:
    minutes = None if measured is None else measured["wall_s"] / _SECONDS_PER_MINUTE
    return {
        "name": name,
        "stage": phase["stage"],
        "forecast": phase["minutes"],
        "actual": minutes,
        "ratio": minutes / phase["minutes"] if minutes is not None and phase["minutes"] else None,
        "commit": "" if measured is None else measured["commit"],
    }


def _list_runs(measured: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The commits and machines at which the actual minutes were measured, with when and how many."""
    found: dict[tuple[str, str], list[str]] = {}
    for entry in measured.values():
        found.setdefault((entry["commit"], entry["machine"]), []).append(entry["finished"])
    return [
        {"commit": commit, "machine": machine, "stages": len(times), "first": min(times), "last": max(times)}
        for (commit, machine), times in sorted(found.items(), key=lambda entry: max(entry[1]))
    ]
