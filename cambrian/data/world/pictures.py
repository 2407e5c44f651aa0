"""Pictures of every kind behind one set of functions: draw one, render it, say what is on it."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cambrian.data.world.cards import Card, render_card, sample_card
from cambrian.data.world.charts import Chart, render_chart, sample_chart
from cambrian.data.world.scenes import Rendering, Scene, render_scene, sample_scene
from cambrian.data.world.words import CLASS_IDS, CLASSES, COLUMNS, GRID_SIDE, ROWS

if TYPE_CHECKING:
    import numpy.typing as npt

    from cambrian.data.world.config import WorldConfig
    from cambrian.data.world.words import Kind

Picture = Scene | Card | Chart
_PNG_COMPRESSION = 1
_GRAIN = 4
"""The largest change of a pixel by grain, in grey levels."""


def sample_picture(rng: np.random.Generator, config: WorldConfig, kind: Kind) -> Picture:
    """Draw a picture of this kind."""
    match kind:
        case "scene":
            return sample_scene(rng, config.scene)
        case "chart":
            return sample_chart(rng, config.chart)
        case "card" | "digits":
            return sample_card(rng, config.card, kind)


def kind_of(picture: Picture) -> Kind:
    """The kind of a picture."""
    match picture:
        case Scene():
            return "scene"
        case Chart():
            return "chart"
        case Card():
            return picture.kind


def render(picture: Picture, side: int) -> Rendering:
    """Draw a picture as a square of this many pixels a side, with its grain.

    The grain makes two pictures of the same things differ, as two photographs do.
    """
    match picture:
        case Scene():
            drawn = render_scene(picture, side)
        case Chart():
            drawn = render_chart(picture, side)
        case Card():
            drawn = render_card(picture, side)
    grain = np.random.default_rng(picture.grain).integers(-_GRAIN, _GRAIN + 1, (side, side, 1), dtype=np.int16)
    return replace(drawn, pixels=(drawn.pixels + grain).clip(0, 255).astype(np.uint8))


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """The picture as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", compress_level=_PNG_COMPRESSION)
    return file.getvalue()


def draw_png(picture: Picture, side: int) -> bytes:
    """Render a picture and encode it."""
    return encode_png(render(picture, side).pixels)


def phrases(picture: Picture) -> list[list[str]]:
    """The words of what lies in each cell, row by row: the cell's row and column, then the thing; [] for nothing.

    A bar lies in the cell of its foot.
    """
    cells: list[list[str]] = [[] for _ in range(GRID_SIDE**2)]
    match picture:
        case Scene():
            for solid in picture.solids:
                cells[solid.cell] = [solid.row, solid.column, solid.colour, solid.shape, solid.depth]
        case Chart():
            for bar in picture.bars:
                words = [ROWS[-1], COLUMNS[bar.column], bar.colour, "bar", bar.number]
                cells[(GRID_SIDE - 1) * GRID_SIDE + bar.column] = words
        case Card():
            for sign in picture.signs:
                words = [ROWS[picture.row], COLUMNS[sign.column], picture.noun, sign.word]
                cells[picture.row * GRID_SIDE + sign.column] = words
    return cells


def caption(picture: Picture) -> str:
    """What is on the picture, cell by cell, in one order of words for each kind."""
    match picture:
        case Scene():
            return " and ".join(
                f"{solid.colour} {solid.shape} {solid.depth} {solid.row} {solid.column}" for solid in picture.solids
            )
        case Chart():
            return " and ".join(f"{bar.colour} bar {bar.number} {COLUMNS[bar.column]}" for bar in picture.bars)
        case Card():
            return " and ".join(
                f"{picture.noun} {sign.word} {ROWS[picture.row]} {COLUMNS[sign.column]}" for sign in picture.signs
            )


def count_things(picture: Picture) -> int:
    """How many solids, bars or signs a picture shows."""
    return len(classes(picture))


def classes(picture: Picture) -> list[str]:
    """The names of the classes that a picture shows."""
    match picture:
        case Scene():
            return [solid.class_name for solid in picture.solids]
        case Chart():
            return [bar.class_name for bar in picture.bars]
        case Card():
            return [picture.class_name(sign) for sign in picture.signs]


def labels(picture: Picture) -> npt.NDArray[np.uint8]:
    """Which of CLASSES a picture shows, 0 or 1 each."""
    shown = np.zeros(len(CLASSES), dtype=np.uint8)
    shown[[CLASS_IDS[name] - 1 for name in classes(picture)]] = 1
    return shown
