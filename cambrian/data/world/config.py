"""What the generated world looks like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cambrian.params import Params

Range = Annotated[tuple[float, float], Field(strict=False)]
"""The least and the largest value; YAML has lists and no tuples."""
CountRange = Annotated[tuple[int, int], Field(strict=False)]


class SceneConfig(Params):
    """How solids are placed before the camera."""

    max_solids: int = Field(ge=1, le=6)
    """At most as many as there are colours, because no two solids of a scene share one."""
    max_offset: float
    """How far a solid's centre may lie from its cell's centre, in picture sides."""
    min_centre_distance: float
    """How far apart the centres of two solids are on the screen, in picture sides."""
    depths: dict[str, Range]
    """The range of distances from the camera that each depth word stands for, nearest first."""
    radius: Range
    """The range of solids' radii, in the units of the depths."""
    fog: float
    """Share of the background's colour that the farthest solids take on."""
    min_distance_ratio: float
    """How many times farther the wrong answer to a question of distance is."""


class ChartConfig(Params):
    """How tall and how many bars are."""

    num_bars: CountRange
    max_value: int


class CardConfig(Params):
    """How many signs a card has and how they sit in their cells."""

    num_signs: CountRange
    max_offset_pixels: int


class WorldConfig(Params):
    """The world that pools, corpora and benchmarks are drawn from."""

    image_side: int
    scene: SceneConfig
    chart: ChartConfig
    card: CardConfig
