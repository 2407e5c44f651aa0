"""The words of questions and of their answers, and a question as what holds both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

YES, NO, UNKNOWN = "yes", "no", "unknown"

TEMPLATES: dict[str, str] = {
    "colour": "what colour is the {}",
    "shape": "what shape is the {}",
    "exists": "is there a {}",
    "attribute": "is the {} {}",
    "count": "how many {}",
    "count-shape": "how many have the shape {}",
    "number-is": "is the number of {} {}",
    "column": "which column holds the {}",
    "row": "which row holds the {}",
    "depth-level": "how far is the {}",
    "horizontal": "is the {} left or right of the {}",
    "vertical": "is the {} above or below the {}",
    "left": "is the {} left of the {}",
    "right": "is the {} right of the {}",
    "above": "is the {} above the {}",
    "below": "is the {} below the {}",
    "closer": "which one is closer",
    "farther": "which one is farther",
    "distance": "which one is nearest to the {}",
    "value": "what is the value of {}",
    "value-colour": "which colour has the value {}",
    "value-is": "is the value of {} {}",
    "tallest": "which colour is tallest",
    "shortest": "which colour is shortest",
    "taller": "which one is taller",
    "first": "which {} is first",
    "last": "which {} is last",
    "at": "which {} is {}",
    "after": "which {} is after {}",
    "before": "which {} is before {}",
    "read": "read the {}",
    "describe": "describe the picture",
    "code": "write the code",
    "run-first": "run first {}",
    "run-last": "run last {}",
    "run-add": "run add {}",
    "sum": "what is {} {} {}",
    "sum-steps": "explain {} {} {}",
    "larger": "which one is larger",
    "fact": "tell me about {}",
    "listed": "choices {} {}",
}
"""The words of every question; facts have theirs in `facts`."""

ANSWERS: dict[str, str] = {
    "sum-steps": "{left} {operation} {right} makes {result} so the answer is {result}",
    "code-scene": "solids {}",
    "code-chart": "bars {}",
    "code-card": "letters {}",
    "code-digits": "digits {}",
    "joined": "{} and {}",
    "above-below": "above below",
    "yes-no": f"{YES} {NO} {UNKNOWN}",
}
"""The words of answers that are not words of pictures and facts."""

NOUNS = {"scene": "solids", "chart": "bars", "card": "letters", "digits": "digits"}
SINGULAR = {"letters": "letter", "digits": "digit"}


@dataclass(frozen=True, slots=True)
class Question:
    """A question with its answer."""

    kind: str
    text: str
    answer: str
    choices: tuple[str, ...]
    """The answer and wrong ones; empty for yes/no questions and for answers of several words."""
    needs_choices: bool
    """The text means nothing without the choices (`which one is closer`)."""


def make_open(kind: str, text: str, answer: str, choices: Sequence[str]) -> Question:
    """A question that can be asked with the choices or without."""
    return Question(kind, text, answer, tuple(choices), needs_choices=False)


def make_yes_no(kind: str, text: str, is_true: bool) -> Question:
    """A question whose answer is yes or no."""
    return Question(kind, text, YES if is_true else NO, (), needs_choices=False)


def make_which(kind: str, text: str, answer: str, other: str) -> Question:
    """A question that means nothing without its two choices."""
    return Question(kind, text, answer, (answer, other), needs_choices=True)
