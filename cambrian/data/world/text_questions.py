"""Questions that need no picture: facts, sums, numbers, programs."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from cambrian.data.world.facts import AREAS, SUMS
from cambrian.data.world.question_forms import (
    ANSWERS,
    TEMPLATES,
    Question,
    make_open,
    make_which,
    make_yes_no,
)
from cambrian.data.world.words import GLYPHS, NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _fact_makers() -> dict[str, Callable[[], Iterator[Question]]]:
    def make(name: str) -> Callable[[], Iterator[Question]]:
        def ask() -> Iterator[Question]:
            for subject, answer in AREAS[name].pairs:
                yield make_open(name, AREAS[name].question.format(subject=subject), answer, AREAS[name].objects)

        return ask

    return {name: make(name) for name in AREAS}


def _ask_claim() -> Iterator[Question]:
    for area in AREAS.values():
        for subject, answer in area.pairs:
            for claimed in area.objects:
                text = area.claim.format(subject=subject, object=claimed)
                yield make_yes_no("claim", text, claimed == answer)


def _ask_statement() -> Iterator[Question]:
    for area in AREAS.values():
        for subject, answer in area.pairs:
            statement = area.statement.format(subject=subject, object=answer)
            yield make_open("statement", TEMPLATES["fact"].format(subject), statement, ())


def _ask_sum() -> Iterator[Question]:
    for left, operation, right, result in SUMS:
        yield make_open("sum", TEMPLATES["sum"].format(left, operation, right), result, NUMBERS)


def _ask_sum_steps() -> Iterator[Question]:
    for left, operation, right, result in SUMS:
        answer = ANSWERS["sum-steps"].format(left=left, operation=operation, right=right, result=result)
        yield make_open("sum-steps", TEMPLATES["sum-steps"].format(left, operation, right), answer, ())


def _ask_larger() -> Iterator[Question]:
    for small, large in ((low, high) for low in range(len(NUMBERS)) for high in range(low + 1, len(NUMBERS))):
        yield make_which("larger", TEMPLATES["larger"], NUMBERS[large], NUMBERS[small])


def _ask_program() -> Iterator[Question]:
    for letters in permutations(GLYPHS, 2):
        yield make_open("program", TEMPLATES["run-first"].format(" ".join(letters)), letters[0], GLYPHS)
        yield make_open("program", TEMPLATES["run-last"].format(" ".join(letters)), letters[1], GLYPHS)
    for left, operation, right, result in SUMS:
        if operation == "plus":
            yield make_open("program", TEMPLATES["run-add"].format(f"{left} {right}"), result, NUMBERS)


TEXT_QUESTIONS: dict[str, Callable[[], Iterator[Question]]] = {
    **_fact_makers(),
    "claim": _ask_claim,
    "statement": _ask_statement,
    "sum": _ask_sum,
    "sum-steps": _ask_sum_steps,
    "larger": _ask_larger,
    "program": _ask_program,
}
"""By kind: every question of it."""
