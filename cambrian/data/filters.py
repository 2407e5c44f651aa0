"""Quality filters: rules of a mix's row that a record must pass before it can be selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, NonNegativeInt

from cambrian.data.record_tables import read_turns
from cambrian.interfaces import IMAGE_PLACEHOLDER
from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from jaxtyping import Int16

    from cambrian.interfaces import Turn

Part = Literal["questions", "answers"]
"""Whose turns a filter looks at."""

_SPEAKERS = {"questions": "human", "answers": "gpt"}


class WordsFilter(Params):
    """Every turn has so many words."""

    kind: Literal["words"]
    of: Part
    at_least: NonNegativeInt
    at_most: NonNegativeInt

    def passes(self, turns: Sequence[Turn]) -> bool:
        """Whether a conversation may be selected."""
        return all(self.at_least <= len(text.split()) <= self.at_most for text in _texts(turns, self.of))

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.of} have {self.at_least} to {self.at_most} words"


class TurnsFilter(Params):
    """A conversation has at most so many turns, both speakers."""

    kind: Literal["turns"]
    at_most: NonNegativeInt

    def passes(self, turns: Sequence[Turn]) -> bool:
        """Whether a conversation may be selected."""
        return len(turns) <= self.at_most

    def describe(self) -> str:
        """The rule in words."""
        return f"at most {self.at_most} turns"


class PhrasesFilter(Params):
    """No turn has one of these phrases, in whatever case."""

    kind: Literal["phrases"]
    of: Part
    phrases: list[str]

    def passes(self, turns: Sequence[Turn]) -> bool:
        """Whether a conversation may be selected."""
        texts = [text.lower() for text in _texts(turns, self.of)]
        return not any(phrase.lower() in text for phrase in self.phrases for text in texts)

    def describe(self) -> str:
        """The rule in words."""
        return f"{self.of} have none of {', '.join(map(repr, self.phrases))}"


Filter = Annotated[WordsFilter | TurnsFilter | PhrasesFilter, Field(discriminator="kind")]


def find_unfit(filters: Sequence[Filter], table: pa.Table) -> Int16[np.ndarray, " rows"]:
    """For each row the number of the first filter that it does not pass; -1 where it passes all."""
    found = np.full(table.num_rows, -1, np.int16)
    if filters:
        for row, turns in enumerate(read_turns(table.column("conversations"))):
            found[row] = next((number for number, rule in enumerate(filters) if not rule.passes(turns)), -1)
    return found


def _texts(turns: Sequence[Turn], part: Part) -> list[str]:
    return [turn.text.replace(IMAGE_PLACEHOLDER, "") for turn in turns if turn.speaker == _SPEAKERS[part]]
