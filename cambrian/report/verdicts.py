"""A verdict for every published number: agrees, differs, not attempted, or not possible and why."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Literal

from cambrian.report.published import MME, MME_DIVISOR
from cambrian.report.tables import round_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.report.config import ReportConfig, TablesConfig
    from cambrian.report.history import Origin
    from cambrian.report.published import Cell, Published, PublishedTable
    from cambrian.report.tables import Row, Table

Word = Literal["agrees", "differs", "not attempted", "not possible"]
WORDS: tuple[Word, ...] = ("agrees", "differs", "not attempted", "not possible")

TEXT_REASON = "a text, which no rule compares; both faces stand in the table"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One published cell and what became of it; the fields are the columns of verdicts.csv."""

    table: str
    number: int | None
    row: str
    column: str
    published: Cell
    reproduced: Cell
    standard_error: float | None
    """Over items; None where the number is a count or a fact."""
    tolerance: float | None
    """How far the two may lie apart and still agree."""
    scale: str
    run: str
    commit: str
    """The commit that holds the run's scores as they are; empty while they are not committed."""
    artefact: str
    """The md5 under which dvc.lock knows the run's scores."""
    verdict: Word
    why: str


def judge_cells(
    tables: Sequence[Table],
    config: TablesConfig,
    report: ReportConfig,
    published: Published,
    *,
    seed_deviations: Mapping[str, float],
    origins: Mapping[str, Origin],
    samples_per_record: int,
    scale: str,
) -> list[Verdict]:
    """Judge every number and fact that the paper's tables print, in the paper's order.

    `seed_deviations` are measured between seeds, by measure; where there is none, the config's stands for it.
    """
    made = {table.id: table for table in tables}
    verdicts: list[Verdict] = []
    for printed in sorted(published.tables.values(), key=lambda table: (table.number is None, table.number or 0)):
        judge = _Judge(printed, config, report, seed_deviations, origins, samples_per_record, scale)
        table = made.get(printed.id)
        if table is None:
            verdicts += judge.judge_unmade()
        else:
            for row in table.rows:
                verdicts += judge.judge_row(table, row)
    return verdicts


def write_verdicts(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(Verdict)])
    writer.writerows(["" if value is None else value for value in astuple(verdict)] for verdict in verdicts)
    return text.getvalue()


def count_verdicts(verdicts: Sequence[Verdict]) -> dict[str, dict[str, int]]:
    """How many cells of each table got each verdict; the first line counts all."""
    counts: dict[str, Counter[str]] = {"all": Counter(verdict.verdict for verdict in verdicts)}
    for verdict in verdicts:
        counts.setdefault(verdict.table, Counter())[verdict.verdict] += 1
    return {table: {word: found[word] for word in WORDS} for table, found in counts.items()}


@dataclass(frozen=True, slots=True)
class _Judge:
    """What one table's cells are held to."""

    printed: PublishedTable
    config: TablesConfig
    report: ReportConfig
    seed_deviations: Mapping[str, float]
    origins: Mapping[str, Origin]
    samples_per_record: int
    scale: str

    def judge_row(self, table: Table, row: Row) -> list[Verdict]:
        """The verdicts of a row's published cells; rows of ours have none."""
        name = " | ".join("" if key is None else str(key) for key in row.keys)
        verdicts = []
        for column, cell in row.published.items():
            if cell is None:
                continue
            ours, error = row.reproduced.get(column), row.standard_error.get(column)
            tolerance = self._tolerance(row, column, error)
            word, why = self._compare(table, row, column, cell, ours, tolerance)
            verdicts.append(self._verdict(name, column, cell, ours, error, tolerance, row.run or "", word, why))
        return verdicts

    def judge_unmade(self) -> list[Verdict]:
        """The verdicts of a table of which nothing was made."""
        impossible = self.config.not_possible.get(self.printed.id)
        why = impossible or self.config.not_attempted[self.printed.id]
        word: Word = "not possible" if impossible else "not attempted"
        verdicts = []
        keys = self.config.keys_of_unmade.get(self.printed.id, [self.printed.columns[0]])
        for values in self.printed.rows:
            name = " | ".join(str(self.printed.cell(values, key)) for key in keys)
            for column, cell in zip(self.printed.columns, values, strict=True):
                if column not in keys and cell is not None:
                    verdicts.append(self._verdict(name, column, cell, None, None, None, "", word, why))
        return verdicts

    def _verdict(
        self,
        row: str,
        column: str,
        published: Cell,
        ours: Cell,
        error: float | None,
        tolerance: float | None,
        run: str,
        word: Word,
        why: str,
    ) -> Verdict:
        origin = self.origins.get(run)
        return Verdict(
            table=self.printed.id,
            number=self.printed.number,
            row=row,
            column=column,
            published=published,
            reproduced=ours,
            standard_error=error,
            tolerance=round_cell(tolerance),
            scale=self.scale,
            run=run,
            commit=origin.commit if origin else "",
            artefact=origin.artefact if origin else "",
            verdict=word,
            why=why,
        )

    def _tolerance(self, row: Row, column: str, error: float | None) -> float | None:
        """Points, counts or percentage points by which the faces may differ; None where there is nothing of ours."""
        if row.reproduced.get(column) is None:
            return None
        if self.printed.id in self.config.counted_tables:
            return self.samples_per_record / 1000
        if self.printed.id in self.config.share_tables and column in row.difference:
            images = float(str(row.reproduced["images"]))
            share = min(max(float(str(row.reproduced[column])) / images, 1 / images), 1 - 1 / images)
            return 100 * self.report.min_standard_errors * math.sqrt(share * (1 - share) / images)
        if error is None:
            return 0.0
        assumed = self.report.seed_standard_deviation * (MME_DIVISOR if column == MME else 1.0)
        measured = self.seed_deviations if self.printed.id in self.config.scores else {}  # of scores only
        seeds = measured.get(column, assumed)
        return self.report.min_standard_errors * math.hypot(error, seeds)

    def _compare(
        self, table: Table, row: Row, column: str, published: Cell, ours: Cell, tolerance: float | None
    ) -> tuple[Word, str]:
        if ours is None or tolerance is None:
            return self._explain_absence(row)
        if self.printed.id in self.config.ranked_tables:
            missing = sum(other.status == "not attempted" for other in table.rows if other.keys[0] == row.keys[0])
            if missing:
                return "not attempted", f"a rank needs all of its half: {missing} of its runs have no scores"
        if isinstance(published, str) and published != ours and self.printed.id not in self.config.exact_texts:
            return "not possible", TEXT_REASON
        difference = row.difference.get(column)
        if difference is None:
            return ("agrees" if published == ours else "differs"), "the two values are compared as they stand"
        unit = "percentage points" if self.printed.id in self.config.share_tables else "points or units"
        word: Word = "agrees" if abs(difference) <= tolerance else "differs"
        return word, f"apart by {abs(difference):.4g} {unit}"

    def _explain_absence(self, row: Row) -> tuple[Word, str]:
        if row.run is not None:
            return "not attempted", explain_missing_run(row.run)
        reasons = self.config.not_possible_rows.get(self.printed.id, {})
        for key in row.keys:
            if isinstance(key, str) and key in reasons:
                return "not possible", reasons[key]
        return "not attempted", self.config.not_attempted_rows.get(self.printed.id, "no run stands for this cell")


def explain_missing_run(run: str) -> str:
    """Why a run's cells have nothing of ours."""
    return f"run {run} has no scores at this scale: it is not in this breadth, or not done"
