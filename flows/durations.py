"""How long stages took when they last ran, of which a plan is made.

Every run appends to a file in DVC's temporary folder; where stages keep a timing log of their own (see
`flows.timings`), what it has of stages that no run has timed is used as well.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from flows.timings import STAGE_LOG, read_timings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def record_duration(dvc_tmp: Path, address: str, wall_s: float) -> None:
    """Note how long a stage's command took, with what DVC did around it."""
    path = _locate(dvc_tmp)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"stage": address, "finished": time.time(), "wall_s": round(wall_s, 3)})
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def read_durations(dvc_tmp: Path) -> dict[str, float]:
    """Read the seconds of each stage's last run, by address."""
    stage_log = {timing.stage: timing.wall_s for timing in read_timings(STAGE_LOG)} if STAGE_LOG.exists() else {}
    return stage_log | {address: runs[-1] for address, runs in read_runs(dvc_tmp).items()}


def read_runs(dvc_tmp: Path) -> dict[str, list[float]]:
    """Read the seconds of every run of each stage, the last one last; a line that a killed run tore is left out."""
    runs: dict[str, list[float]] = {}
    path = _locate(dvc_tmp)
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
            runs.setdefault(str(record["stage"]), []).append(float(record["wall_s"]))
        except (ValueError, KeyError, TypeError):
            continue
    return runs


def estimate(addresses: Iterable[str], durations: Mapping[str, float]) -> dict[str, float]:
    """Give every stage that never ran the mean of its foreach's other instances; those without any are left out."""
    groups: dict[str, list[float]] = {}
    for address, seconds in durations.items():
        groups.setdefault(address.partition("@")[0], []).append(seconds)
    found = {}
    for address in addresses:
        siblings = groups.get(address.partition("@")[0], [])
        if address in durations:
            found[address] = durations[address]
        elif siblings:
            found[address] = sum(siblings) / len(siblings)
    return found


def _locate(dvc_tmp: Path) -> Path:
    return dvc_tmp / "flows" / "durations.jsonl"
