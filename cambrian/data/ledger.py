"""The account of what became of every record: nothing leaves a pool without a reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pyarrow as pa

_COLUMNS = ("id", "source", "reason", "detail")
_ROWS_AT_ONCE = 1_000_000


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

    def keep(self, source: str, count: int = 1) -> None:
        """Count records that came in and went on."""
        self.records_in[source] += count
        self.records_out[source] += count

    def drop(self, source: str, reason: str, count: int = 1) -> None:
        """Count records that came in and were left out."""
        self.records_in[source] += count
        self.dropped[source, reason] += count

    def add(self, other: Step) -> None:
        """Count what another process counted of this step."""
        self.records_in.update(other.records_in)
        self.records_out.update(other.records_out)
        self.dropped.update(other.dropped)


class Ledger:
    """The steps of one curation in order, and what they dropped, where that is few enough to be listed here."""

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
        lost: Counter[str] = Counter()
        for step in self.steps:
            for (source, _), count in step.dropped.items():
                lost[source] += count
        records_in = self.steps[0].records_in
        return {source: (lost[source], records_in[source]) for source in sorted(records_in)}


def dropped_schema() -> pa.Schema:
    """The columns of a file of dropped records."""
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in _COLUMNS])


def dropped_table(dropped: Iterable[Dropped]) -> pa.Table:
    """What was left out as a table; what is not UTF-8 in its texts is escaped."""
    import pyarrow as pa

    rows = list(dropped)
    columns = {
        name: [getattr(row, name).encode(errors="backslashreplace").decode() for row in rows] for name in _COLUMNS
    }
    return pa.table(columns, schema=dropped_schema())


def write_dropped(path: Path, dropped: Iterable[Dropped]) -> None:
    """Write what was left out as Parquet (id, source, reason, detail), in the given order."""
    from pyarrow import parquet

    parquet.write_table(dropped_table(dropped), path)


def write_dropped_table(path: Path, dropped: pa.Table) -> None:
    """Write what was left out as Parquet (id, source, reason, detail), sorted by all of these."""
    import pyarrow.compute as pc
    from pyarrow import parquet

    ids = dropped.column("id")
    if not pc.all(pc.less(ids.slice(0, max(len(ids) - 1, 0)), ids.slice(1)), min_count=0).as_py():
        dropped = dropped.take(pc.sort_indices(dropped, sort_keys=[(name, "ascending") for name in _COLUMNS]))
    with parquet.ParquetWriter(path, dropped_schema()) as writer:
        for start in range(0, max(dropped.num_rows, 1), _ROWS_AT_ONCE):
            writer.write_table(dropped.slice(start, _ROWS_AT_ONCE).combine_chunks())


def _describe(step: Step) -> dict[str, Any]:
    sources: dict[str, dict[str, Any]] = {}
    for source in sorted(step.records_in):
        sources[source] = {"in": step.records_in[source], "out": step.records_out[source], "dropped": {}}
    reasons: Counter[str] = Counter()
    for (source, reason), count in sorted(step.dropped.items()):
        sources[source]["dropped"][reason] = count
        reasons[reason] += count
    for source, counts in sources.items():
        found = counts["out"] + sum(counts["dropped"].values())
        assert counts["in"] == found, f"{step.name}: {source} does not add up"
    return {
        "step": step.name,
        "in": step.records_in.total(),
        "out": step.records_out.total(),
        "dropped": dict(sorted(reasons.items())),
        "sources": sources,
    }
