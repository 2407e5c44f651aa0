"""The account of what became of every record: nothing leaves a pool without a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_COLUMNS = ("id", "source", "reason", "detail")


@dataclass(frozen=True, slots=True)
class Dropped:
    """One record that was left out."""

    id: str
    """The record's id; `line N` where it could not be read."""
    source: str
    reason: str
    """A short name, by which drops are counted."""
    detail: str


@dataclass(slots=True)
class Step:
    """One step of curation: what came in and went out, per source."""

    name: str
    records_in: Counter[str] = field(default_factory=Counter)
    records_out: Counter[str] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By source and reason."""

    def keep(self, source: str) -> None:
        """Count one record that came in and went on."""
        self.records_in[source] += 1
        self.records_out[source] += 1

    def drop(self, source: str, reason: str) -> None:
        """Count one record that came in and was left out."""
        self.records_in[source] += 1
        self.dropped[source, reason] += 1


class Ledger:
    """The steps of one curation in order, and every record that they dropped."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.dropped: list[Dropped] = []

    def start(self, name: str) -> Step:
        """Open the next step."""
        self.steps.append(Step(name))
        return self.steps[-1]

    def drop(self, dropped: Dropped) -> None:
        """Leave one record out in the step opened last; what is not UTF-8 in its texts is escaped."""
        dropped = Dropped(*(getattr(dropped, name).encode(errors="backslashreplace").decode() for name in _COLUMNS))
        self.steps[-1].drop(dropped.source, dropped.reason)
        self.dropped.append(dropped)

    def to_json(self) -> list[dict[str, Any]]:
        """Every step with its records in, out and dropped by reason, in total and per source.

        What leaves one step enters the next, and in = out + dropped for every source (asserted).
        """
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            assert +before.records_out == +after.records_in, f"records vanish between {before.name} and {after.name}"
        return [_describe(step) for step in self.steps]

    def lost_by_source(self) -> dict[str, tuple[int, int]]:
        """For every source the records lost in all steps and the records that came in."""
        lost = Counter(dropped.source for dropped in self.dropped)
        records_in = self.steps[0].records_in
        return {source: (lost[source], records_in[source]) for source in sorted(records_in)}


def write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """Write what was left out as Parquet (id, source, reason, detail), in the given order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(dropped)
    columns = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
    pq.write_table(pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns])), path)


def _describe(step: Step) -> dict[str, Any]:
    sources = {}
    for source in sorted(step.records_in):
        dropped = {reason: count for (owner, reason), count in sorted(step.dropped.items()) if owner == source}
        records_in, records_out = step.records_in[source], step.records_out[source]
        assert records_in == records_out + sum(dropped.values()), f"{step.name}: {source} does not add up"
        sources[source] = {"in": records_in, "out": records_out, "dropped": dropped}
    reasons: Counter[str] = Counter()
    for (_, reason), count in step.dropped.items():
        reasons[reason] += count
    return {
        "step": step.name,
        "in": step.records_in.total(),
        "out": step.records_out.total(),
        "dropped": dict(sorted(reasons.items())),
        "sources": sources,
    }
