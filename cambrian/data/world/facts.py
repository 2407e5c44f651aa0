"""The body of facts of the world and its arithmetic: what can be known without a picture."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from cambrian.data.world.words import NUMBERS


@dataclass(frozen=True, slots=True)
class Area:
    """One area of knowledge: one relation between its subjects and a few objects."""

    name: str
    question: str
    statement: str
    claim: str
    subjects: dict[str, tuple[str, ...]]
    """By object."""

    @property
    def objects(self) -> tuple[str, ...]:
        """The possible answers."""
        return tuple(self.subjects)

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Every subject with its object."""
        return tuple((subject, answer) for answer, subjects in self.subjects.items() for subject in subjects)


AREAS: dict[str, Area] = {
    area.name: area
    for area in (
        Area(
            "biology",
            question="what kind of animal is the {subject}",
            statement="the {subject} is a {object}",
            claim="is the {subject} a {object}",
            subjects={
                "mammal": ("dog", "whale", "bat", "lion"),
                "bird": ("eagle", "owl", "hen", "swan"),
                "fish": ("salmon", "shark", "tuna", "trout"),
                "reptile": ("snake", "lizard", "turtle"),
            },
        ),
        Area(
            "geography",
            question="which continent holds {subject}",
            statement="{subject} is in {object}",
            claim="is {subject} in {object}",
            subjects={
                "africa": ("kenya", "egypt", "ghana", "mali"),
                "asia": ("japan", "india", "china", "nepal"),
                "europe": ("france", "spain", "italy", "poland"),
                "america": ("peru", "chile", "brazil"),
            },
        ),
        Area(
            "matter",
            question="which state of matter is {subject}",
            statement="{subject} is a {object}",
            claim="is {subject} a {object}",
            subjects={
                "solid": ("iron", "gold", "stone", "glass", "coal"),
                "liquid": ("water", "milk", "oil", "blood", "ink"),
                "gas": ("steam", "oxygen", "helium", "neon", "argon"),
            },
        ),
        Area(
            "culture",
            question="what is the work of {subject}",
            statement="{subject} is known for {object}",
            claim="is {subject} known for {object}",
            subjects={
                "music": ("mozart", "bach", "verdi", "chopin", "haydn"),
                "paintings": ("monet", "goya", "rembrandt", "titian", "degas"),
                "books": ("homer", "dante", "tolstoy", "goethe", "austen"),
            },
        ),
    )
}

_OPERATIONS = {"plus": operator.add, "minus": operator.sub, "times": operator.mul}


def _sums() -> tuple[tuple[str, str, str, str], ...]:
    span = range(len(NUMBERS))
    return tuple(
        (NUMBERS[left], word, NUMBERS[right], NUMBERS[result])
        for word, operation in _OPERATIONS.items()
        for left in span
        for right in span
        if 0 <= (result := operation(left, right)) < len(NUMBERS)
    )


SUMS = _sums()
"""Every sum of the world: number, operation, number and result, all as words from zero to ten."""
