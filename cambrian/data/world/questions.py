"""Questions on pictures and facts, each with its one right answer.

A question names a thing by one word and ends on its key word. That, and answers of one word, is what a small language
model learns fastest.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING

from cambrian.data.world.facts import AREAS, SUMS
from cambrian.data.world.picture_questions import PICTURE_QUESTIONS
from cambrian.data.world.question_forms import ANSWERS, NOUNS, SINGULAR, TEMPLATES, Question
from cambrian.data.world.scenes import Scene, Solid, sample_scene
from cambrian.data.world.text_questions import TEXT_QUESTIONS
from cambrian.data.world.words import (
    COLOURS,
    COLUMNS,
    DEPTHS,
    GLYPHS,
    GRID_SIDE,
    NUMBERS,
    OPTION_LETTERS,
    ROWS,
    SHAPES,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from cambrian.data.world.config import SceneConfig, WorldConfig
    from cambrian.data.world.pictures import Picture

QUESTION_KINDS = (*PICTURE_QUESTIONS, *TEXT_QUESTIONS)


def find_questions(picture: Picture | None, kind: str, config: SceneConfig) -> list[Question]:
    """Every question of this kind that the picture has an answer to, with all possible choices in a fixed order.

    Raises:
        ValueError: the kind does not exist.
    """
    if kind in TEXT_QUESTIONS:
        return list(_text_questions(kind))
    if kind not in PICTURE_QUESTIONS:
        raise ValueError(f"no question is of kind {kind!r}; the kinds are {', '.join(QUESTION_KINDS)}")
    return [] if picture is None else list(PICTURE_QUESTIONS[kind](picture, config))


def draw_question(rng: np.random.Generator, picture: Picture | None, kind: str, config: SceneConfig) -> Question | None:
    """One question of this kind, every possible answer being as likely, with at most four choices in random order.

    None where the picture supports no question of this kind (a scene of one solid has no relation).
    """
    questions = find_questions(picture, kind, config)
    if not questions:
        return None
    answers = sorted({question.answer for question in questions})
    if len(answers) > 1 and not questions[0].needs_choices:
        answer = answers[rng.integers(len(answers))]
        questions = [question for question in questions if question.answer == answer]
    return shuffle_choices(rng, questions[rng.integers(len(questions))])


def shuffle_choices(rng: np.random.Generator, question: Question) -> Question:
    """The question with its answer and up to three of the other choices, in random order."""
    if not question.choices:
        return question
    others = [choice for choice in question.choices if choice != question.answer]
    kept = [others[index] for index in rng.permutation(len(others))[: len(OPTION_LETTERS) - 1].tolist()]
    kept.insert(int(rng.integers(len(kept) + 1)), question.answer)
    return replace(question, choices=tuple(kept))


def list_choices(question: Question) -> str:
    """The text with the choices before it, so that it still ends on its key word; the answer is a choice."""
    return TEMPLATES["listed"].format(" ".join(question.choices), question.text)


def letter_choices(question: Question) -> str:
    """The text with lettered choices before it; the answer is `answer_letter`."""
    options = zip(OPTION_LETTERS, question.choices, strict=False)
    return TEMPLATES["listed"].format(" ".join(f"{letter} {choice}" for letter, choice in options), question.text)


def answer_letter(question: Question) -> str:
    """The letter of the right choice."""
    return OPTION_LETTERS[question.choices.index(question.answer)]


def sample_twins(
    rng: np.random.Generator, config: WorldConfig, kinds: Sequence[str]
) -> tuple[Scene, Scene, Question, Question]:
    """Two scenes that differ in one property of one solid, and one question that they answer differently."""
    while True:
        scene = sample_scene(rng, config.scene)
        twin = _change_one(rng, scene)
        kind = kinds[int(rng.integers(len(kinds)))]
        others = {question.text: question for question in find_questions(twin, kind, config.scene)}
        pairs = [
            (question, others[question.text])
            for question in find_questions(scene, kind, config.scene)
            if question.text in others
            and others[question.text].answer != question.answer
            and sorted(others[question.text].choices) == sorted(question.choices)
        ]
        if pairs:
            first, second = pairs[rng.integers(len(pairs))]
            return scene, twin, first, second


def all_words() -> set[str]:
    """Every word that questions and answers of this module can have."""
    texts = [
        *TEMPLATES.values(),
        *ANSWERS.values(),
        *COLOURS,
        *SHAPES,
        *COLUMNS,
        *ROWS,
        *DEPTHS,
        *NUMBERS,
        *GLYPHS,
        *OPTION_LETTERS,
        *NOUNS.values(),
        *SINGULAR.values(),
        *(operation for _, operation, _, _ in SUMS),
    ]
    for area in AREAS.values():
        texts += [area.question, area.statement, area.claim, *area.objects, *(subject for subject, _ in area.pairs)]
    return {word for text in texts for word in text.split() if not word.startswith("{")} | {"bar"}


def _change_one(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene with another colour, another shape or a mirrored place of one solid."""
    number = int(rng.integers(len(scene.solids)))
    solid = scene.solids[number]
    taken = {other.colour for other in scene.solids}
    match int(rng.integers(3)):
        case 0:
            free = [colour for colour in COLOURS if colour not in taken]
            changed = replace(solid, colour=free[rng.integers(len(free))])
        case 1:
            free = [shape for shape in SHAPES if shape != solid.shape]
            changed = replace(solid, shape=free[rng.integers(len(free))])
        case _:
            changed = _mirror(solid)
    solids = [*scene.solids[:number], changed, *scene.solids[number + 1 :]]
    if len({other.cell for other in solids}) < len(solids):
        return scene
    return replace(scene, solids=tuple(sorted(solids, key=lambda other: other.cell)))


def _mirror(solid: Solid) -> Solid:
    """The solid as far from the other side of the picture as it was from this one."""
    row, column = divmod(solid.cell, GRID_SIDE)
    x, y, z = solid.position
    return replace(
        solid,
        position=(-x, y, z),
        screen=(1 - solid.screen[0], solid.screen[1]),
        cell=row * GRID_SIDE + GRID_SIDE - 1 - column,
    )


@functools.cache
def _text_questions(kind: str) -> tuple[Question, ...]:
    return tuple(TEXT_QUESTIONS[kind]())
