"""Where a published benchmark's rows come from: a data set of the hub at one commit, or a folder with its files."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cambrian.params import Params

UNKNOWN = "unknown"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubDataSet(Params):
    """A data set of the hub at one commit; HF_ENDPOINT in the environment names a mirror."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str
    """A full commit id: a branch or a tag can move. `unknown` may stand here until somebody looks it up; nothing is
    fetched before."""

    @field_validator("revision")
    @classmethod
    def _check_revision(cls, value: str) -> str:
        if value != UNKNOWN and not _COMMIT.fullmatch(value):
            raise ValueError(f"expected a commit id of 40 digits, or {UNKNOWN!r} as long as nobody has looked it up")
        return value


class FolderDataSet(Params):
    """A folder on this machine with the files of the hub's data set, such as a clone of it."""

    kind: Literal["folder"]
    path: str


class TableLayout(Params):
    """Rows as `datasets` reads them."""

    kind: Literal["table"]
    configurations: list[str] = Field(min_length=1)
    """Read one after the other; `default` where a data set has no names for parts."""
    split: str


class JoinedLayout(Params):
    """Rows in one table, pictures in another (GQA)."""

    kind: Literal["joined"]
    rows: str
    """The configuration with the questions."""
    pictures: str
    """The configuration with the pictures."""
    row_key: str
    """The column of the rows that names their picture."""
    picture_key: str
    split: str


class FilesLayout(Params):
    """A CSV, JSON or JSONL file of rows, and files of pictures beside it (MMVP, V*, Q-Bench)."""

    kind: Literal["files"]
    table: str
    picture: str
    """Where a row's picture lies: a layout with the row's columns."""
    picture_column: str
    """Under which name it joins the row; another column of this name is replaced."""
    archive: str | None
    """The tar file that holds the pictures; null where they lie in the folder as they are."""
    renamed: dict[str, str]
    """Columns that are kept under another name, where the table has them (MMVP's header is misspelt)."""


class PublishedSet(Params):
    """One score's data set."""

    source: Annotated[HubDataSet | FolderDataSet, Field(discriminator="kind")]
    layout: Annotated[TableLayout | JoinedLayout | FilesLayout, Field(discriminator="kind")]
    fields: list[str] = Field(min_length=1)
    """The columns that are kept. A revision that lacks one of them is refused."""


class PublishedBenchmarks(Params):
    """The benchmarks as their authors published them."""

    kind: Literal["published"]
    sets: dict[str, PublishedSet]
    """By score."""
