"""CV-Bench's four tasks on annotated pictures: which questions the ground truth allows, with options and answer.

Source: paper, section and appendix on CV-Bench. Its offsets and shares are not published: they are values of Rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from cambrian.data.cvbench.annotations import Annotated, Box, Point, Thing

Task = Literal["Relation", "Count", "Depth", "Distance"]
COLOURS = ("red", "blue", "green")
"""Of the boxes: the anchor's first, then the candidates'."""


class Rules(Params):
    """Where the four tasks draw their lines."""

    min_box_share: float = Field(ge=0, le=1)
    """Share of the picture below which a thing is too small to be asked about."""
    relation_margin: float = Field(ge=0, le=1)
    """How far two boxes must lie apart along an axis, as a share of the picture's side."""
    depth_offset_m: float = Field(ge=0)
    """Between the farthest corner of the nearer thing and the nearest corner of the other."""
    distance_offset_m: float = Field(ge=0)
    """The same between their distances from an anchor."""
    num_count_options: int = Field(ge=2)
    items: dict[Task, int]
    """How many of each task and source to propose."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question that a picture allows."""

    task: Task
    text: str
    answer: str
    others: tuple[str, ...]
    """The wrong options."""
    boxes: tuple[Box, ...]
    """What is asked about; drawn in the order of COLOURS where `is_drawn`."""
    is_drawn: bool
    target: str
    """The category asked about."""


def find_candidates(
    picture: Annotated, task: Task, rules: Rules, *, categories: Sequence[str], rng: np.random.Generator
) -> list[Candidate]:
    """Every question of a task that a picture allows; `categories` are those of its source, for counts of none."""
    area = picture.width * picture.height
    large = [thing for thing in picture.things if _area(thing.box) >= rules.min_box_share * area]
    match task:
        case "Relation":
            return _relations(picture, large, rules)
        case "Count":
            return _counts(picture, rules, categories, rng)
        case "Depth":
            return _depth_orders([thing for thing in large if thing.corners], rules)
        case "Distance":
            return _distance_orders([thing for thing in large if thing.corners], rules)


def _relations(picture: Annotated, things: Sequence[Thing], rules: Rules) -> list[Candidate]:
    """Where one thing lies relative to another; boxes are drawn where a category has several instances."""
    names = [thing.category for thing in picture.things]
    found = []
    for anchor, thing in permutations(things, 2):
        if anchor.category == thing.category:
            continue
        is_drawn = names.count(anchor.category) > 1 or names.count(thing.category) > 1
        for axis, side, words in ((0, picture.width, ("left", "right")), (1, picture.height, ("above", "below"))):
            gap = _middle(thing.box, axis) - _middle(anchor.box, axis)
            if abs(gap) < rules.relation_margin * side or _overlap(thing.box, anchor.box, axis):
                continue
            answer, other = words if gap < 0 else words[::-1]
            marks = (f" ({COLOURS[1]} box)", f" ({COLOURS[0]} box)") if is_drawn else ("", "")
            text = (
                f"Considering the relative positions of the {thing.category}{marks[0]} and the {anchor.category}"
                f"{marks[1]}, where is the {thing.category} with respect to the {anchor.category}?"
            )
            boxes = (anchor.box, thing.box)
            found.append(Candidate("Relation", text, answer, (other,), boxes, is_drawn, thing.category))
    return found


def _counts(picture: Annotated, rules: Rules, categories: Sequence[str], rng: np.random.Generator) -> list[Candidate]:
    """How many things of a category there are; for one that is not there the answer is 0."""
    found = []
    for category in sorted({thing.category for thing in picture.things} | {_absent(picture, categories, rng)}):
        boxes = tuple(thing.box for thing in picture.things if thing.category == category)
        start = int(rng.integers(max(len(boxes) - rules.num_count_options + 1, 0), len(boxes) + 1))
        options = [str(number) for number in range(start, start + rules.num_count_options)]
        others = tuple(option for option in options if option != str(len(boxes)))
        text = f"How many instances of the category {category} are in the image?"
        found.append(Candidate("Count", text, str(len(boxes)), others, boxes, False, category))
    return found


def _absent(picture: Annotated, categories: Sequence[str], rng: np.random.Generator) -> str:
    present = {thing.category for thing in picture.things}
    absent = [category for category in categories if category not in present]
    return absent[int(rng.integers(len(absent)))] if absent else categories[0]


def _depth_orders(things: Sequence[Thing], rules: Rules) -> list[Candidate]:
    """Which of two is closer to the camera: its farthest corner is nearer than the other's nearest, by the offset."""
    camera = (0.0, 0.0, 0.0)
    found = []
    for nearer, farther in permutations(things, 2):
        if nearer.category == farther.category:
            continue
        if _farthest(camera, nearer) + rules.depth_offset_m <= _nearest(camera, farther):
            first, second = _in_order(things, nearer, farther)
            text = (
                f"Which object is closer to the camera, the {first.category} ({COLOURS[0]} box) or the "
                f"{second.category} ({COLOURS[1]} box)?"
            )
            boxes = (first.box, second.box)
            found.append(Candidate("Depth", text, nearer.category, (farther.category,), boxes, True, nearer.category))
    return found


def _distance_orders(things: Sequence[Thing], rules: Rules) -> list[Candidate]:
    """Which of two is closer to an anchor, by the same rule from the anchor's middle."""
    found = []
    for anchor, nearer, farther in permutations(things, 3):
        if len({anchor.category, nearer.category, farther.category}) < 3:
            continue
        middle = _mean(anchor.corners)
        if _farthest(middle, nearer) + rules.distance_offset_m <= _nearest(middle, farther):
            first, second = _in_order(things, nearer, farther)
            text = (
                f"Which object is closer to the {anchor.category} ({COLOURS[0]} box), the {first.category} "
                f"({COLOURS[1]} box) or the {second.category} ({COLOURS[2]} box)?"
            )
            boxes = (anchor.box, first.box, second.box)
            found.append(
                Candidate("Distance", text, nearer.category, (farther.category,), boxes, True, nearer.category)
            )
    return found


def _in_order(things: Sequence[Thing], one: Thing, two: Thing) -> tuple[Thing, Thing]:
    """Both in the order of the annotations, so that neither the text nor a colour gives the answer away."""
    return (one, two) if things.index(one) < things.index(two) else (two, one)


def _area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _middle(box: Box, axis: int) -> float:
    return (box[axis] + box[axis + 2]) / 2


def _overlap(one: Box, two: Box, axis: int) -> bool:
    return one[axis] < two[axis + 2] and two[axis] < one[axis + 2]


def _mean(points: Sequence[Point]) -> Point:
    x, y, z = (math.fsum(values) / len(points) for values in zip(*points, strict=True))
    return x, y, z


def _farthest(origin: Point, thing: Thing) -> float:
    return max(math.dist(origin, corner) for corner in thing.corners)


def _nearest(origin: Point, thing: Thing) -> float:
    return min(math.dist(origin, corner) for corner in thing.corners)
