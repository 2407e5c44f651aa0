"""Questions that a picture answers, of every kind."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from cambrian.data.world.cards import Card
from cambrian.data.world.charts import Chart
from cambrian.data.world.pictures import Picture, caption, count_things, kind_of
from cambrian.data.world.question_forms import (
    ANSWERS,
    NOUNS,
    TEMPLATES,
    UNKNOWN,
    Question,
    make_open,
    make_which,
    make_yes_no,
)
from cambrian.data.world.scenes import Scene, Solid, distance
from cambrian.data.world.words import COLOURS, COLUMNS, DEPTHS, GLYPHS, GRID_SIDE, NUMBERS, ROWS, SHAPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cambrian.data.world.config import SceneConfig


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


def _ask_colour(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for name, solid in _names(picture):
            if name == solid.shape:
                yield make_open("colour", TEMPLATES["colour"].format(name), solid.colour, tuple(COLOURS))


def _ask_shape(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for solid in picture.solids:
            yield make_open("shape", TEMPLATES["shape"].format(solid.colour), solid.shape, SHAPES)


def _ask_absent(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    """Questions about what is not there."""
    if isinstance(picture, Scene):
        shown = {word for solid in picture.solids for word in (solid.colour, solid.shape)}
        for template, names in (("shape", COLOURS), ("colour", SHAPES)):
            for name in names:
                if name not in shown:
                    yield make_open("absent", TEMPLATES[template].format(name), UNKNOWN, ())


def _ask_exists(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    shown = (
        {word for solid in picture.solids for word in (solid.colour, solid.shape)}
        if isinstance(picture, Scene)
        else {name for name, _, _ in _things(picture)}
    )
    for name in _possible(picture):
        yield make_yes_no("exists", TEMPLATES["exists"].format(name), name in shown)


def _ask_attribute(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for name, solid in _names(picture):
            if name == solid.shape:
                for colour in COLOURS:
                    yield make_yes_no("attribute", TEMPLATES["attribute"].format(name, colour), colour == solid.colour)


def _most(picture: Picture, config: SceneConfig) -> int:
    return config.max_solids if isinstance(picture, Scene) else GRID_SIDE


def _ask_count(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    numbers = NUMBERS[1 : _most(picture, config) + 1]
    yield make_open(
        "count", TEMPLATES["count"].format(NOUNS[kind_of(picture)]), NUMBERS[count_things(picture)], numbers
    )


def _ask_count_shape(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        shapes = [solid.shape for solid in picture.solids]
        for shape in SHAPES:
            number = NUMBERS[shapes.count(shape)]
            text = TEMPLATES["count-shape"].format(shape)
            yield make_open("count-shape", text, number, NUMBERS[: config.max_solids + 1])


def _ask_number_is(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for number in range(1, _most(picture, config) + 1):
        text = TEMPLATES["number-is"].format(NOUNS[kind_of(picture)], NUMBERS[number])
        yield make_yes_no("number-is", text, number == count_things(picture))


def _ask_column(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, column, _ in _things(picture):
        yield make_open("column", TEMPLATES["column"].format(name), column, COLUMNS)


def _ask_row(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if not isinstance(picture, Chart):
        for name, _, row in _things(picture):
            yield make_open("row", TEMPLATES["row"].format(name), row, ROWS)


def _ask_depth_level(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for name, solid in _names(picture):
            yield make_open("depth-level", TEMPLATES["depth-level"].format(name), solid.depth, DEPTHS)


def _pairs(picture: Picture) -> Iterator[tuple[str, Solid, str, Solid]]:
    if isinstance(picture, Scene):
        for (name, solid), (other_name, other) in permutations(_names(picture), 2):
            if solid is not other:
                yield name, solid, other_name, other


def _ask_horizontal(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, solid, other_name, other in _pairs(picture):
        if solid.column != other.column:
            answer = "left" if solid.screen[0] < other.screen[0] else "right"
            yield make_open("horizontal", TEMPLATES["horizontal"].format(name, other_name), answer, ("left", "right"))


def _ask_vertical(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, solid, other_name, other in _pairs(picture):
        if solid.row != other.row:
            answer = "above" if solid.screen[1] < other.screen[1] else "below"
            yield make_open("vertical", TEMPLATES["vertical"].format(name, other_name), answer, ("above", "below"))


def _ask_side(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    """Whether one solid is on a given side of another."""
    for name, solid, other_name, other in _pairs(picture):
        if solid.column != other.column:
            is_left = solid.screen[0] < other.screen[0]
            yield make_yes_no("side", TEMPLATES["left"].format(name, other_name), is_left)
            yield make_yes_no("side", TEMPLATES["right"].format(name, other_name), not is_left)
        if solid.row != other.row:
            is_above = solid.screen[1] < other.screen[1]
            yield make_yes_no("side", TEMPLATES["above"].format(name, other_name), is_above)
            yield make_yes_no("side", TEMPLATES["below"].format(name, other_name), not is_above)


def _ask_depth(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    for name, solid, other_name, other in _pairs(picture):
        if DEPTHS.index(solid.depth) < DEPTHS.index(other.depth):
            yield make_which("depth", TEMPLATES["closer"], name, other_name)
            yield make_which("depth", TEMPLATES["farther"], other_name, name)


def _ask_distance(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Scene):
        for (anchor_name, anchor), (name, solid), (other_name, other) in permutations(_names(picture), 3):
            if solid is anchor or other is anchor or solid is other:
                continue
            if distance(solid, anchor) * config.min_distance_ratio <= distance(other, anchor):
                yield make_which("distance", TEMPLATES["distance"].format(anchor_name), name, other_name)


def _ask_value(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar in picture.bars:
            text = TEMPLATES["value"].format(bar.colour)
            yield make_open("value", text, bar.number, NUMBERS[1 : picture.max_value + 1])


def _ask_value_colour(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar in picture.bars:
            yield make_open("value-colour", TEMPLATES["value-colour"].format(bar.number), bar.colour, tuple(COLOURS))


def _ask_value_is(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar in picture.bars:
            for value in range(1, picture.max_value + 1):
                text = TEMPLATES["value-is"].format(bar.colour, NUMBERS[value])
                yield make_yes_no("value-is", text, value == bar.value)


def _ask_extreme(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        bars = sorted(picture.bars, key=lambda bar: bar.value)
        yield make_open("extreme", TEMPLATES["tallest"], bars[-1].colour, tuple(COLOURS))
        yield make_open("extreme", TEMPLATES["shortest"], bars[0].colour, tuple(COLOURS))


def _ask_taller(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Chart):
        for bar, other in permutations(picture.bars, 2):
            if bar.value > other.value:
                yield make_which("taller", TEMPLATES["taller"], bar.colour, other.colour)


def _ask_end(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        for template, sign in (("first", picture.signs[0]), ("last", picture.signs[-1])):
            yield make_open("end", TEMPLATES[template].format(picture.noun), sign.word, _possible(picture))


def _ask_at(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        for sign in picture.signs:
            text = TEMPLATES["at"].format(picture.noun, COLUMNS[sign.column])
            yield make_open("at", text, sign.word, _possible(picture))


def _ask_beside(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        for sign, following in zip(picture.signs, picture.signs[1:], strict=False):
            text = TEMPLATES["after"].format(picture.noun, sign.word)
            yield make_open("beside", text, following.word, _possible(picture))
            text = TEMPLATES["before"].format(picture.noun, following.word)
            yield make_open("beside", text, sign.word, _possible(picture))


def _ask_read(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    if isinstance(picture, Card):
        words = " ".join(sign.word for sign in picture.signs)
        yield make_open("read", TEMPLATES["read"].format(NOUNS[picture.kind]), words, ())


def _ask_describe(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    yield make_open("describe", TEMPLATES["describe"], caption(picture), ())


def _ask_code(picture: Picture, config: SceneConfig) -> Iterator[Question]:
    match picture:
        case Scene():
            words = [word for solid in picture.solids for word in (solid.colour, solid.shape)]
        case Chart():
            words = [word for bar in picture.bars for word in (bar.colour, bar.number)]
        case Card():
            words = [sign.word for sign in picture.signs]
    answer = ANSWERS[f"code-{kind_of(picture)}"].format(" ".join(words))
    yield make_open("code", TEMPLATES["code"], answer, ())


PICTURE_QUESTIONS: dict[str, Callable[[Picture, SceneConfig], Iterator[Question]]] = {
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
"""By kind: every question of it that a picture has an answer to."""
