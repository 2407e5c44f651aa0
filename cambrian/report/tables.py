"""Tables in the paper's shape with three faces: published, reproduced (with standard error), difference."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cambrian.report.published import AVERAGE, look_up_table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from cambrian.report.config import RankingTable, ScoreTable
    from cambrian.report.published import Cell, Published, PublishedTable
    from cambrian.report.scores import RunScores

NUM_DIGITS = 4
"""Digits after the point in files; what a reader sees is rounded further."""

MAX_NAMED_RUNS = 6

FACES = ("published", "reproduced", "standard_error", "difference")

RANK_COLUMNS = {"All": AVERAGE, "G": "General", "K": "Knowledge", "O": "OCR & Chart", "V": "Vision-Centric"}

Status = Literal["reproduced", "not attempted", "added", "stated"]
"""`added` rows are ours; `stated` rows are facts that no run reproduces."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what names it, the run that fills it, and its faces by column."""

    keys: list[Cell]
    run: str | None
    status: Status
    published: dict[str, Cell]
    reproduced: dict[str, Cell] = field(default_factory=dict)
    standard_error: dict[str, float] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)
    image: bool = True
    """False where the reproduced numbers are those of a run without images."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the report."""

    id: str
    number: int | None
    title: str
    scale: str
    keys: list[str]
    columns: list[str]
    rows: list[Row]
    notes: list[str]
    own_notes: list[str]
    """What a reader must know of our side."""

    @classmethod
    def of(
        cls,
        printed: PublishedTable,
        *,
        scale: str,
        keys: list[str],
        columns: list[str],
        rows: list[Row],
        own_notes: list[str],
    ) -> Table:
        """A published table with our rows: its name, number, title and notes are the publication's."""
        return cls(
            id=printed.id,
            number=printed.number,
            title=printed.title,
            scale=scale,
            keys=keys,
            columns=columns,
            rows=rows,
            notes=list(printed.notes),
            own_notes=own_notes,
        )

    def to_json(self) -> dict[str, Any]:
        """The table as plain values."""
        return asdict(self)

    def to_csv(self) -> str:
        """One line per row and face, in the table's own columns."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*self.keys, "face", "run", "status", *self.columns])
        for row in self.rows:
            for face in FACES:
                cells: Mapping[str, Cell] = getattr(row, face)
                if any(value is not None for value in cells.values()):
                    values = [_text(cells.get(column)) for column in self.columns]
                    writer.writerow([*map(_text, row.keys), face, row.run or "", row.status, *values])
            if row.status == "not attempted":
                writer.writerow(
                    [*map(_text, row.keys), "reproduced", row.run or "", row.status, *[""] * len(self.columns)]
                )
        return text.getvalue()


def make_score_table(
    table_id: str, config: ScoreTable, scores: Mapping[str, RunScores], published: Published, *, scale: str
) -> Table:
    """A table of scores: every printed row, filled where its run has been evaluated, then ours.

    Raises:
        ParamsError: there is no such table.
        ValueError: a row of tables.yaml names no printed row, or two.
    """
    printed = look_up_table(published, table_id)
    columns = [column for column in printed.columns if column not in config.keys]
    run_of_row = {printed_place(printed, config.keys, row.row): row.run for row in config.rows}
    rows = []
    for place, values in enumerate(printed.rows):
        keys = [printed.cell(values, key) for key in config.keys]
        cells = {column: printed.cell(values, column) for column in columns}
        rows.append(_score_row(keys, run_of_row.get(place), cells, scores))
    rows += [_score_row(list(row.row), row.run, {}, scores, columns) for row in config.added]
    runs = {row.run for row in rows if row.run is not None}
    return Table(
        id=table_id,
        number=printed.number,
        title=printed.title,
        scale=scale,
        keys=list(config.keys),
        columns=columns,
        rows=rows,
        notes=list(printed.notes),
        own_notes=[*_note_missing(sorted(runs - scores.keys())), *_note_seeds(runs, scores)],
    )


def make_ranking_table(
    config: RankingTable, scores: Mapping[str, RunScores], published: Published, *, scale: str
) -> Table:
    """Ranks within each half of the backbones; published ranks are counted anew among the rows that we have."""
    printed = look_up_table(published, "rankings")
    keys = ["half", "model", "architecture"]
    run_of_row = {printed_place(printed, keys, row.row): row.run for row in config.runs}
    columns = list(RANK_COLUMNS)
    reproduced: dict[int, dict[str, Cell]] = {}
    expected: dict[int, dict[str, float]] = {}
    for half in config.half_of_groups:
        present = {
            place: scores[run]
            for place, run in run_of_row.items()
            if run in scores and printed.cell(printed.rows[place], "half") == half
        }
        for column, measure in RANK_COLUMNS.items():
            ours = rank({place: -run.headline[measure] for place, run in present.items()})
            theirs = rank({place: float(str(printed.cell(printed.rows[place], column))) for place in present})
            for place in present:
                reproduced.setdefault(place, {})[column] = ours[place]
                expected.setdefault(place, {})[column] = ours[place] - theirs[place]
    rows = []
    for place, values in enumerate(printed.rows):
        run = run_of_row.get(place)
        rows.append(
            Row(
                keys=[printed.cell(values, key) for key in keys],
                run=run,
                status="reproduced" if place in reproduced else "not attempted",
                published={column: printed.cell(values, column) for column in columns},
                reproduced=reproduced.get(place, {}),
                difference=expected.get(place, {}),
            )
        )
    return Table.of(
        printed,
        scale=scale,
        keys=keys,
        columns=columns,
        rows=rows,
        own_notes=[
            "Ours are ranks among the reproduced rows; a difference compares with the printed ranks among them."
        ],
    )


def rank(values: Mapping[int, float]) -> dict[int, int]:
    """The rank of each value, the lowest first; equal values share the lower rank."""
    return {key: 1 + sum(other < value for other in values.values()) for key, value in values.items()}


def round_cell(value: float | None) -> float | None:
    """A number as files hold it."""
    return None if value is None else round(value, NUM_DIGITS) + 0.0  # no negative zero


def printed_place(printed: PublishedTable, keys: Sequence[str], row: Sequence[Cell]) -> int:
    """Where a printed table has the row that these values of its keys name.

    Raises:
        ValueError: they name no printed row, or two.
    """
    found = printed.find_rows(keys, row)
    if len(found) != 1:
        raise ValueError(
            f"tables.yaml: {printed.id}: row {list(row)} names {len(found)} printed rows, expected one; keys are {keys}"
        )
    return printed.rows.index(found[0])


def cell_differences(theirs: Mapping[str, Cell], ours: Mapping[str, Cell]) -> dict[str, float]:
    """Ours less theirs where both are numbers."""
    differences = {}
    for column, value in ours.items():
        printed = theirs.get(column)
        numbers = [cell for cell in (printed, value) if isinstance(cell, int | float) and not isinstance(cell, bool)]
        if len(numbers) == 2:
            differences[column] = round(float(numbers[1]) - float(numbers[0]), 8) + 0.0
    return differences


def _note_seeds(runs: Collection[str], scores: Mapping[str, RunScores]) -> list[str]:
    """Which of a table's runs stand for the mean over several seeds."""
    repeated: dict[int, list[str]] = {}
    for run in sorted(run for run in runs if run in scores and scores[run].num_seeds > 1):
        repeated.setdefault(scores[run].num_seeds, []).append(run)
    return [f"Means over {number} seeds: {', '.join(names)}." for number, names in sorted(repeated.items())]


def _note_missing(runs: Sequence[str]) -> list[str]:
    """What a reader is told of runs without scores; the rows name them, so a long list is only counted."""
    if not runs:
        return []
    return [f"Not attempted: {', '.join(runs) if len(runs) <= MAX_NAMED_RUNS else f'{len(runs)} runs'}."]


def _score_row(
    keys: list[Cell],
    run: str | None,
    cells: dict[str, Cell],
    scores: Mapping[str, RunScores],
    columns: Sequence[str] | None = None,
) -> Row:
    if run is None or run not in scores:
        return Row(keys=keys, run=run, status="not attempted", published=cells)
    found = scores[run]
    measures = [column for column in columns or cells if column in found.headline]
    differences = {}
    for measure in measures:
        printed = cells.get(measure)
        if isinstance(printed, int | float):
            differences[measure] = _rounded(found.headline[measure] - printed)
    return Row(
        keys=keys,
        run=run,
        status="reproduced" if cells else "added",
        published=cells,
        reproduced={measure: _rounded(found.headline[measure]) for measure in measures},
        standard_error={measure: _rounded(found.standard_error[measure]) for measure in measures},
        difference=differences,
        image=bool(found.with_image),
    )


def _rounded(value: float) -> float:
    return round(value, NUM_DIGITS) + 0.0


def _text(value: Cell) -> str:
    return "" if value is None else str(value)
