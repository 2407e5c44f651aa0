"""Every published language model that a scale names, as rows of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from cambrian.params import Params, look_up, parse_block, read_yaml

_ROWS_PATH = Path(__file__).with_name("language_models.yaml")


class LanguageModelRow(Params):
    """One language model."""

    checkpoint: str
    """The repository of its weights."""
    revision: str | None = Field(pattern=r"^[0-9a-f]{40}$")
    """The repository's commit; null where nobody has looked it up yet."""
    padding_token: str | None
    """What pads where the tokenizer names neither a padding nor an unknown token."""
    config: dict[str, Any]
    """Fields of its `config.json`; a checkpoint that says otherwise is another model."""
    num_parameters: int = Field(gt=0)


def read_language_model_rows() -> dict[str, LanguageModelRow]:
    """Read all rows.

    Raises:
        ParamsError: a row has a field that there is not, lacks one, or has a value of another type.
    """
    return {
        name: parse_block(LanguageModelRow, row, where=f"{_ROWS_PATH.name}: {part}.{name}")
        for part, rows in read_yaml(_ROWS_PATH).items()
        for name, row in rows.items()
    }


def find_language_model(name: str) -> LanguageModelRow:
    """Return the row of this name.

    Raises:
        ParamsError: there is none; the message names the nearest.
    """
    row: LanguageModelRow = look_up(read_language_model_rows(), name, where=_ROWS_PATH.name)
    return row
