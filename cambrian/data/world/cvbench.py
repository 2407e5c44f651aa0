"""CV-Bench from annotations: which questions of its four tasks a scene's ground truth allows, and their answers.

Positions, sizes and distances are the annotations; a margin keeps out what a person could not tell.

Source: paper, section and appendix on CV-Bench, and the data set's card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Literal

from cambrian.data.world.question_forms import NOUNS, TEMPLATES
from cambrian.data.world.scenes import distance
from cambrian.data.world.words import NUMBERS, SHAPES
from cambrian.params import Params

if TYPE_CHECKING:
    import numpy as np

    from cambrian.data.world.scenes import Scene, Solid

Task = Literal["Relation", "Count", "Depth", "Distance"]


class CVBenchConfig(Params):
    """Where the four tasks draw their lines, and what their sources are like."""

    sources_2d: dict[str, list[int]]
    """The number of solids in scenes of each source of the 2D tasks, as the least and the most."""
    sources_3d: dict[str, list[int]]
    relation_margin: float
    """How much farther to one side than its anchor a solid lies, in picture sides."""
    depth_margin: float
    """Room between the farthest point of the nearer solid and the nearest point of the other, in the world's units."""
    distance_margin: float
    """The same room between two solids' distances from an anchor."""
    num_count_options: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A question that a scene allows."""

    task: Task
    text: str
    answer: str
    others: tuple[str, ...]
    """The wrong options."""
    marked: tuple[Solid, ...]
    """The solids that the question is about, the anchor first, as the published set marks them by boxes."""


def find_candidates(scene: Scene, task: Task, config: CVBenchConfig, rng: np.random.Generator) -> list[Candidate]:
    """Every question of one task; the generator draws the windows of count options only."""
    match task:
        case "Relation":
            return _relations(scene, config)
        case "Count":
            return _counts(scene, config, rng)
        case "Depth":
            return _depth_orders(scene, config)
        case "Distance":
            return _distance_orders(scene, config)


def count_options(truth: int, num_options: int, rng: np.random.Generator) -> list[int]:
    """Neighbouring whole numbers, the truth among them, none below 0.

    The window is drawn among those that hold the truth, so that its middle does not give the truth away.
    """
    start = int(rng.integers(max(truth - num_options + 1, 0), truth + 1))
    return list(range(start, start + num_options))


def _relations(scene: Scene, config: CVBenchConfig) -> list[Candidate]:
    """Where one solid lies relative to another: left or right, above or below."""
    found = []
    for anchor, solid in permutations(scene.solids, 2):
        for axis, template, words in ((0, "horizontal", ("left", "right")), (1, "vertical", ("above", "below"))):
            gap = solid.screen[axis] - anchor.screen[axis]
            if abs(gap) >= config.relation_margin:
                answer, other = words if gap < 0 else words[::-1]
                text = TEMPLATES[template].format(solid.colour, anchor.colour)
                found.append(Candidate("Relation", text, answer, (other,), (anchor, solid)))
    return found


def _counts(scene: Scene, config: CVBenchConfig, rng: np.random.Generator) -> list[Candidate]:
    """How many solids there are, and how many of each shape; none is a possible answer."""
    categories = {TEMPLATES["count"].format(NOUNS["scene"]): scene.solids}
    for shape in SHAPES:
        members = tuple(solid for solid in scene.solids if solid.shape == shape)
        categories[TEMPLATES["count-shape"].format(shape)] = members
    found = []
    for text, members in categories.items():
        options = count_options(len(members), config.num_count_options, rng)
        others = tuple(NUMBERS[option] for option in options if option != len(members))
        found.append(Candidate("Count", text, NUMBERS[len(members)], others, members))
    return found


def _depth_orders(scene: Scene, config: CVBenchConfig) -> list[Candidate]:
    """Which of two is closer to the camera: its farthest point is nearer than the other's nearest, by the margin."""
    return [
        Candidate("Depth", TEMPLATES["closer"], nearer.colour, (farther.colour,), (nearer, farther))
        for nearer, farther in permutations(scene.solids, 2)
        if math.hypot(*nearer.position) + nearer.radius + config.depth_margin
        <= math.hypot(*farther.position) - farther.radius
    ]


def _distance_orders(scene: Scene, config: CVBenchConfig) -> list[Candidate]:
    """Which of two is closer to an anchor, in space, by the same rule."""
    return [
        Candidate(
            "Distance",
            TEMPLATES["distance"].format(anchor.colour),
            nearer.colour,
            (farther.colour,),
            (anchor, nearer, farther),
        )
        for anchor, nearer, farther in permutations(scene.solids, 3)
        if distance(anchor, nearer) + nearer.radius + config.distance_margin
        <= distance(anchor, farther) - farther.radius
    ]
