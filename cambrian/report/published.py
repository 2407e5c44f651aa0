"""What the paper published: tables, figures and the grouping of scores, as data (published.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.params import look_up, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PUBLISHED_PATH = Path(__file__).with_name("published.yaml")

AVERAGE = "Average"
"""The mean of all sixteen scores, as the result tables name it."""

SEEING = "Seeing"
"""Ours: the mean of the three categories that need the image (General, OCR & Chart, Vision-Centric)."""

KNOWLEDGE = "Knowledge"

MME = "MME-P"
MME_DIVISOR = 20.0
"""MME-P is 0 to 2000 and enters means divided by this (paper, benchmark section)."""

FIGURE_SCORE_NAMES = {
    "MMMU": "MMMU-V",
    "MathVista": "MathVista-M",
    "MME-P (/20)": MME,
    "MME": MME,
    "RWQA": "RealWorldQA",
}
"""Names that the figures print where the tables have others."""

Cell = float | int | str | bool | list[Any] | None


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """One table as printed."""

    id: str
    number: int | None
    """The number in the NeurIPS version; None for tables that we made of a figure or a page."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]

    def find_rows(self, keys: Sequence[str], values: Sequence[Cell]) -> list[tuple[Cell, ...]]:
        """The rows that have these values in these columns."""
        places = [self.columns.index(key) for key in keys]
        return [row for row in self.rows if [row[place] for place in places] == list(values)]

    def cell(self, row: Sequence[Cell], column: str) -> Cell:
        """What a row has in a column."""
        return row[self.columns.index(column)]


@dataclass(frozen=True, slots=True)
class Published:
    """Everything that the report compares with."""

    tables: Mapping[str, PublishedTable]
    figures: Mapping[str, Mapping[str, Any]]
    engine: Mapping[str, Any]
    """What is stated of the data engine."""
    categories: Mapping[str, tuple[str, ...]]
    """The four groups, each with its four scores, in the printed order."""

    @property
    def scores(self) -> list[str]:
        """The sixteen scores in the printed order."""
        return [score for members in self.categories.values() for score in members]


def read_published() -> Published:
    """Read the published numbers.

    Raises:
        ParamsError: the file is missing or not YAML.
    """
    value = read_yaml(PUBLISHED_PATH)
    tables = {
        table["id"]: PublishedTable(
            id=table["id"],
            number=table["neurips_number"],
            title=table["title"],
            columns=tuple(table["columns"]),
            rows=tuple(tuple(row) for row in table["rows"]),
            notes=tuple(table["notes"]),
        )
        for table in value["tables"]
    }
    return Published(
        tables=tables,
        figures={figure["id"]: figure for figure in value["figures"]},
        engine=value["data_engine"],
        categories={name: tuple(members) for name, members in value["scoring"]["categories"].items()},
    )


def look_up_table(published: Published, table_id: str) -> PublishedTable:
    """The table of this id.

    Raises:
        ParamsError: there is none; the message names the nearest id.
    """
    table: PublishedTable = look_up(published.tables, table_id, where=PUBLISHED_PATH.name)
    return table
