"""What a benchmark is: a reader of its rows, a rule for its replies, and a metric."""

from __future__ import annotations

import ast
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cambrian.interfaces import Item


@dataclass(frozen=True, slots=True)
class Question:
    """One row of a data set, in the words that all benchmarks share."""

    id: str
    text: str
    answers: tuple[str, ...]
    """Every accepted answer; for multiple choice the text of the right option. Empty where the data set keeps them to
    itself: such an item is asked and exported, not scored."""
    image: bytes | None
    choices: tuple[str, ...] = ()
    hint: str = ""
    """A passage that stands before the question."""
    own_wording: str = ""
    """The data set's own text of the question, with its options and what else it says, where it has one."""
    ocr_tokens: tuple[str, ...] = ()
    category: str = ""
    """Items of one category are averaged before the categories are, where the metric asks for it."""
    group: str | None = None
    """Items of one group are scored together; None for an item that stands alone."""


@dataclass(frozen=True, slots=True)
class Metric:
    """How credits become a score: values of groups, averaged, or averaged within each category first."""

    group_value: Literal["mean", "all", "mean-plus-all"]
    """A group's value: the mean credit; 1 when every item of it is right; or the sum of both (MME)."""
    by_category: bool
    """Whether the score is the mean over categories of their means."""
    full_marks: float
    """What a group value of 1 is worth."""


PERCENT = Metric(group_value="mean", by_category=False, full_marks=100)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One score of a model."""

    name: str
    columns: tuple[str, ...]
    """The columns of the data set that are read; the others are not loaded."""
    read_row: Callable[[Mapping[str, Any], int], Question | None]
    """The question of a row and its number; None for a row that the score leaves out."""
    match: Callable[[str, Item], float]
    metric: Metric
    guessed_answers: tuple[str, ...]
    """For questions without options: answers among which a guesser picks, such as yes and no; empty where the paper
    takes the chance level as 0."""


def image_bytes(value: Mapping[str, Any] | None) -> bytes | None:
    """The encoded file of a hub image column, which is a struct of `bytes` and `path`."""
    return value["bytes"] if value is not None else None


def row_id(row: Mapping[str, Any], column: str) -> str:
    """What names a row in its data set, as text.

    Raises:
        ValueError: it is null or empty.
    """
    if row[column] in (None, ""):
        raise ValueError(f"its {column} is {row[column]!r}, expected what names the row")
    return str(row[column])


def texts(row: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """The entries of a list column; none for null.

    Raises:
        TypeError: it holds one text, whose letters would pass for a list of texts.
    """
    if isinstance(row[column], str):
        raise TypeError(f"its {column} is the text {row[column]!r}, expected a list of texts")
    return tuple(row[column] or ())


def letter_index(letter: str) -> int:
    """The place of an option by its letter, written `B`, `b`, `(b)` or `B.`.

    Raises:
        ValueError: it is no letter.
    """
    bare = str(letter).strip().strip("().: ").lower()
    if len(bare) != 1 or bare not in string.ascii_lowercase:
        raise ValueError(f"answer {letter!r} is not an option's letter")
    return string.ascii_lowercase.index(bare)


def pick(choices: Sequence[str], index: int) -> tuple[str, ...]:
    """The text of the right option, as the tuple of accepted answers.

    Raises:
        ValueError: there are fewer options.
    """
    if not 0 <= index < len(choices):
        raise ValueError(f"the answer is option {index + 1} of {len(choices)}")
    return (choices[index],)


def read_list(text: str) -> tuple[str, ...]:
    """The strings of a list that a data set stores as text: `['a', 'b']`.

    Raises:
        ValueError: it is not the text of a list.
    """
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"options {text!r} are not the text of a list") from error
    if not isinstance(value, list):
        raise ValueError(f"options {text!r} are not the text of a list")
    return tuple(str(entry) for entry in value)
