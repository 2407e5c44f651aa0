"""Questions on pictures and facts, each with its one right answer.

A question names a thing by one word and ends on its key word. That, and answers of one word, is what a small language
model learns fastest.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from itertools import permutations
from typing import TYPE_CHECKING

from cambrian.data.world.cards import Card
from cambrian.data.world.charts import Chart
from cambrian.data.world.facts import AREAS, SUMS
from cambrian.data.world.pictures import Picture, caption, count_things, kind_of
from cambrian.data.world.scenes import Scene, Solid, distance, sample_scene
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
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from cambrian.data.world.config import SceneConfig, WorldConfig

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


def find_questions(picture: Picture | None, kind: str, config: SceneConfig) -> list[Question]:
    """Every question of this kind that the picture has an answer to, with all possible choices in a fixed order.

    Raises:
        ValueError: the kind does not exist.
    """
    if kind in _TEXT_MAKERS:
        return list(_text_questions(kind))
    if kind not in _MAKERS:
        raise ValueError(f"no question is of kind {kind!r}; the kinds are {', '.join(QUESTION_KINDS)}")
    return [] if picture is None else list(_MAKERS[kind](picture, config))


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


def _names(scene: Scene) -> list[tuple[str, Solid]]:
    """Every word that means exactly one solid, with that solid: all colours, and shapes that are there once."""
    shapes = [solid.shape for solid in scene.solids]
    by_shape = [(solid.shape, solid) for solid in scene.solids if shapes.count(solid.shape) == 1]
    return [*((solid.colour, solid) for solid in scene.solids), *by_shape]


def _things(picture: Picture) -> list[tuple[str, str, str]]:
    """Every word that means exactly one thing on the picture, with that thing's column and row."""
    match picture:
        case Scene():
            return [(name, solid.column, solid.row) for name, solid in _names(picture)]
        case Chart():
            return [(bar.colour, COLUMNS[bar.column], ROWS[-1]) for bar in picture.bars]
        case Card():
            return [(sign.word, COLUMNS[sign.column], ROWS[picture.row]) for sign in picture.signs]


def _possible(picture: Picture) -> tuple[str, ...]:
    """Every word for a thing that a picture of this kind could show."""
    return {"scene": (*COLOURS, *SHAPES), "chart": tuple(COLOURS), "card": GLYPHS, "digits": NUMBERS[:10]}[
        kind_of(picture)
    ]


def _open(kind: str, text: str, answer: str, choices: Sequence[str]) -> Question:
    return Question(kind, text, answer, tuple(choices), needs_choices=False)


def _yes_no(kind: str, text: str, is_true: bool) -> Question:
    return Question(kind, text, YES if is_true else NO, (), needs_choices=False)


def _which(kind: str, text: str, answer: str, other: str) -> Question:
    return Question(kind, text, answer, (answer, other), needs_choices=True)


def _ask_colour(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for name, solid in _names(picture):
            if name == solid.shape:
                yield _open("colour", TEMPLATES["colour"].format(name), solid.colour, tuple(COLOURS))


def _ask_shape(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for solid in picture.solids:
            yield _open("shape", TEMPLATES["shape"].format(solid.colour), solid.shape, SHAPES)


def _ask_absent(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    """Questions about what is not there."""
    if isinstance(picture, Scene):
        shown = {word for solid in picture.solids for word in (solid.colour, solid.shape)}
        for template, names in (("shape", COLOURS), ("colour", SHAPES)):
            for name in names:
                if name not in shown:
                    yield _open("absent", TEMPLATES[template].format(name), UNKNOWN, ())


def _ask_exists(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    shown = (
        {word for solid in picture.solids for word in (solid.colour, solid.shape)}
        if isinstance(picture, Scene)
        else {name for name, _, _ in _things(picture)}
    )
    for name in _possible(picture):
        yield _yes_no("exists", TEMPLATES["exists"].format(name), name in shown)


def _ask_attribute(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for name, solid in _names(picture):
            if name == solid.shape:
                for colour in COLOURS:
                    yield _yes_no("attribute", TEMPLATES["attribute"].format(name, colour), colour == solid.colour)


def _most(picture: Picture, config: SceneConfig) -> int:
    return config.max_solids if isinstance(picture, Scene) else GRID_SIDE


def _ask_count(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    numbers = NUMBERS[1 : _most(picture, config) + 1]
    yield _open("count", TEMPLATES["count"].format(NOUNS[kind_of(picture)]), NUMBERS[count_things(picture)], numbers)


def _ask_count_shape(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        shapes = [solid.shape for solid in picture.solids]
        for shape in SHAPES:
            number = NUMBERS[shapes.count(shape)]
            text = TEMPLATES["count-shape"].format(shape)
            yield _open("count-shape", text, number, NUMBERS[: config.max_solids + 1])


def _ask_number_is(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for number in range(1, _most(picture, config) + 1):
        text = TEMPLATES["number-is"].format(NOUNS[kind_of(picture)], NUMBERS[number])
        yield _yes_no("number-is", text, number == count_things(picture))


def _ask_column(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, column, _ in _things(picture):
        yield _open("column", TEMPLATES["column"].format(name), column, COLUMNS)


def _ask_row(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if not isinstance(picture, Chart):
        for name, _, row in _things(picture):
            yield _open("row", TEMPLATES["row"].format(name), row, ROWS)


def _ask_depth_level(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for name, solid in _names(picture):
            yield _open("depth-level", TEMPLATES["depth-level"].format(name), solid.depth, DEPTHS)


def _pairs(picture: Picture) -> Iterator[tuple[str, Solid, str, Solid]]:
    if isinstance(picture, Scene):
        for (name, solid), (other_name, other) in permutations(_names(picture), 2):
            if solid is not other:
                yield name, solid, other_name, other


def _ask_horizontal(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, solid, other_name, other in _pairs(picture):
        if solid.column != other.column:
            answer = "left" if solid.screen[0] < other.screen[0] else "right"
            yield _open("horizontal", TEMPLATES["horizontal"].format(name, other_name), answer, ("left", "right"))


def _ask_vertical(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, solid, other_name, other in _pairs(picture):
        if solid.row != other.row:
            answer = "above" if solid.screen[1] < other.screen[1] else "below"
            yield _open("vertical", TEMPLATES["vertical"].format(name, other_name), answer, ("above", "below"))


def _ask_side(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    """Whether one solid is on a given side of another."""
    for name, solid, other_name, other in _pairs(picture):
        if solid.column != other.column:
            is_left = solid.screen[0] < other.screen[0]
            yield _yes_no("side", TEMPLATES["left"].format(name, other_name), is_left)
            yield _yes_no("side", TEMPLATES["right"].format(name, other_name), not is_left)
        if solid.row != other.row:
            is_above = solid.screen[1] < other.screen[1]
            yield _yes_no("side", TEMPLATES["above"].format(name, other_name), is_above)
            yield _yes_no("side", TEMPLATES["below"].format(name, other_name), not is_above)


def _ask_depth(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, solid, other_name, other in _pairs(picture):
        if DEPTHS.index(solid.depth) < DEPTHS.index(other.depth):
            yield _which("depth", TEMPLATES["closer"], name, other_name)
            yield _which("depth", TEMPLATES["farther"], other_name, name)


def _ask_distance(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for (anchor_name, anchor), (name, solid), (other_name, other) in permutations(_names(picture), 3):
            if solid is anchor or other is anchor or solid is other:
                continue
            if distance(solid, anchor) * config.min_distance_ratio <= distance(other, anchor):
                yield _which("distance", TEMPLATES["distance"].format(anchor_name), name, other_name)


def _ask_value(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar in picture.bars:
            text = TEMPLATES["value"].format(bar.colour)
            yield _open("value", text, bar.number, NUMBERS[1 : picture.max_value + 1])


def _ask_value_colour(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar in picture.bars:
            yield _open("value-colour", TEMPLATES["value-colour"].format(bar.number), bar.colour, tuple(COLOURS))


def _ask_value_is(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar in picture.bars:
            for value in range(1, picture.max_value + 1):
                text = TEMPLATES["value-is"].format(bar.colour, NUMBERS[value])
                yield _yes_no("value-is", text, value == bar.value)


def _ask_extreme(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        bars = sorted(picture.bars, key=lambda bar: bar.value)
        yield _open("extreme", TEMPLATES["tallest"], bars[-1].colour, tuple(COLOURS))
        yield _open("extreme", TEMPLATES["shortest"], bars[0].colour, tuple(COLOURS))


def _ask_taller(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar, other in permutations(picture.bars, 2):
            if bar.value > other.value:
                yield _which("taller", TEMPLATES["taller"], bar.colour, other.colour)


def _ask_end(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        for template, sign in (("first", picture.signs[0]), ("last", picture.signs[-1])):
            yield _open("end", TEMPLATES[template].format(picture.noun), sign.word, _possible(picture))


def _ask_at(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        for sign in picture.signs:
            text = TEMPLATES["at"].format(picture.noun, COLUMNS[sign.column])
            yield _open("at", text, sign.word, _possible(picture))


def _ask_beside(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        for sign, following in zip(picture.signs, picture.signs[1:], strict=False):
            text = TEMPLATES["after"].format(picture.noun, sign.word)
            yield _open("beside", text, following.word, _possible(picture))
            text = TEMPLATES["before"].format(picture.noun, following.word)
            yield _open("beside", text, sign.word, _possible(picture))


def _ask_read(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        words = " ".join(sign.word for sign in picture.signs)
        yield _open("read", TEMPLATES["read"].format(NOUNS[picture.kind]), words, ())


def _ask_describe(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    yield _open("describe", TEMPLATES["describe"], caption(picture), ())


def _ask_code(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    match picture:
        case Scene():
            words = [word for solid in picture.solids for word in (solid.colour, solid.shape)]
        case Chart():
            words = [word for bar in picture.bars for word in (bar.colour, bar.number)]
        case Card():
            words = [sign.word for sign in picture.signs]
    answer = ANSWERS[f"code-{kind_of(picture)}"].format(" ".join(words))
    yield _open("code", TEMPLATES["code"], answer, ())


@functools.cache
def _text_questions(kind: str) -> tuple[Question, ...]:
    return tuple(_TEXT_MAKERS[kind]())


def _fact_makers() -> dict[str, Callable[[], Iterator[Question]]]:
    def make(name: str) -> Callable[[], Iterator[Question]]:
        def ask() -> Iterator[Question]:
            for subject, answer in AREAS[name].pairs:
                yield _open(name, AREAS[name].question.format(subject=subject), answer, AREAS[name].objects)

        return ask

    return {name: make(name) for name in AREAS}


def _ask_claim() -> Iterator[Question]:
    for area in AREAS.values():
        for subject, answer in area.pairs:
            for claimed in area.objects:
                text = area.claim.format(subject=subject, object=claimed)
                yield _yes_no("claim", text, claimed == answer)


def _ask_statement() -> Iterator[Question]:
    for area in AREAS.values():
        for subject, answer in area.pairs:
            statement = area.statement.format(subject=subject, object=answer)
            yield _open("statement", TEMPLATES["fact"].format(subject), statement, ())


def _ask_sum() -> Iterator[Question]:
    for left, operation, right, result in SUMS:
        yield _open("sum", TEMPLATES["sum"].format(left, operation, right), result, NUMBERS)


def _ask_sum_steps() -> Iterator[Question]:
    for left, operation, right, result in SUMS:
        answer = ANSWERS["sum-steps"].format(left=left, operation=operation, right=right, result=result)
        yield _open("sum-steps", TEMPLATES["sum-steps"].format(left, operation, right), answer, ())


def _ask_larger() -> Iterator[Question]:
    for small, large in ((low, high) for low in range(len(NUMBERS)) for high in range(low + 1, len(NUMBERS))):
        yield _which("larger", TEMPLATES["larger"], NUMBERS[large], NUMBERS[small])


def _ask_program() -> Iterator[Question]:
    for letters in permutations(GLYPHS, 2):
        yield _open("program", TEMPLATES["run-first"].format(" ".join(letters)), letters[0], GLYPHS)
        yield _open("program", TEMPLATES["run-last"].format(" ".join(letters)), letters[1], GLYPHS)
    for left, operation, right, result in SUMS:
        if operation == "plus":
            yield _open("program", TEMPLATES["run-add"].format(f"{left} {right}"), result, NUMBERS)


_MAKERS: dict[str, Callable[[Picture, SceneConfig], Iterator[Question]]] = {
    "colour": _ask_colour,
    "shape": _ask_shape,
    "absent": _ask_absent,
    "exists": _ask_exists,
    "attribute": _ask_attribute,
    "count": _ask_count,
    "count-shape": _ask_count_shape,
    "number-is": _ask_number_is,
    "column": _ask_column,
    "row": _ask_row,
    "depth-level": _ask_depth_level,
    "horizontal": _ask_horizontal,
    "vertical": _ask_vertical,
    "side": _ask_side,
    "depth": _ask_depth,
    "distance": _ask_distance,
    "value": _ask_value,
    "value-colour": _ask_value_colour,
    "value-is": _ask_value_is,
    "extreme": _ask_extreme,
    "taller": _ask_taller,
    "end": _ask_end,
    "at": _ask_at,
    "beside": _ask_beside,
    "read": _ask_read,
    "describe": _ask_describe,
    "code": _ask_code,
}
_TEXT_MAKERS: dict[str, Callable[[], Iterator[Question]]] = {
    **_fact_makers(),
    "claim": _ask_claim,
    "statement": _ask_statement,
    "sum": _ask_sum,
    "sum-steps": _ask_sum_steps,
    "larger": _ask_larger,
    "program": _ask_program,
}
QUESTION_KINDS = (*_MAKERS, *_TEXT_MAKERS)
