"""Bar charts: a few coloured bars of whole heights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cambrian.data.world.scenes import Rendering
from cambrian.data.world.words import CLASS_IDS, COLOURS, GRID_SIDE, NUMBERS

if TYPE_CHECKING:
    from cambrian.data.world.config import ChartConfig

SHEET_DEPTH = 4.0
"""How far away cards and charts are."""
_FLOOR = 0.94
_HEAD_ROOM = 0.08
_BAR_WIDTH = 0.6
_AXIS_GREY = 60


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart."""

    colour: str
    value: int
    column: int

    @property
    def number(self) -> str:
        """The value in words."""
        return NUMBERS[self.value]

    @property
    def class_name(self) -> str:
        """The name of the bar's class in segmentations and labels."""
        return f"{self.colour} bar"


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars of different colours and values, from left to right."""

    bars: tuple[Bar, ...]
    max_value: int
    ground: int
    """The background's grey, 0 to 255."""
    grain: int
    """The seed of the picture's grain."""


def sample_chart(rng: np.random.Generator, config: ChartConfig, num_bars: int | None = None) -> Chart:
    """Draw a chart with this many bars, or with any number that the config allows."""
    least, most = config.num_bars
    number = num_bars if num_bars is not None else int(rng.integers(least, most + 1))
    columns = sorted(rng.permutation(GRID_SIDE)[:number].tolist())
    colours = rng.permutation(len(COLOURS))[:number].tolist()
    values = (rng.permutation(config.max_value)[:number] + 1).tolist()
    names = tuple(COLOURS)
    bars = tuple(
        Bar(names[colour], value, column) for colour, value, column in zip(colours, values, columns, strict=True)
    )
    return Chart(bars, config.max_value, ground=int(rng.integers(215, 256)), grain=int(rng.integers(2**32)))


def render_chart(chart: Chart, side: int) -> Rendering:
    """Draw the bars on a line, one in each column of cells that has one."""
    pixels = np.full((side, side, 3), chart.ground, dtype=np.uint8)
    segmentation = np.zeros((side, side), dtype=np.uint8)
    floor = round(side * _FLOOR)
    unit = (floor - side * _HEAD_ROOM) / chart.max_value
    pixels[floor] = _AXIS_GREY
    pixels[:, 0] = _AXIS_GREY
    for bar in chart.bars:
        centre = (bar.column + 0.5) / GRID_SIDE
        half = _BAR_WIDTH / GRID_SIDE / 2
        left, right = round((centre - half) * side), round((centre + half) * side)
        top = floor - round(unit * bar.value)
        pixels[top:floor, left:right] = COLOURS[bar.colour]
        segmentation[top:floor, left:right] = CLASS_IDS[bar.class_name]
    return Rendering(pixels, segmentation, np.full((side, side), SHEET_DEPTH, dtype=np.float32))
