"""The words of the generated world: what its pictures show and what its texts say."""

from __future__ import annotations

from typing import Literal

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (240, 215, 40),
    "purple": (165, 50, 190),
    "cyan": (50, 205, 220),
}
"""Every colour that a solid or a bar can have, in RGB."""

SHAPES = ("cube", "ball", "cone")
COLUMNS = ("left", "centre", "right")
ROWS = ("top", "middle", "bottom")
DEPTHS = ("near", "mid", "far")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
GLYPHS = ("e", "h", "k", "l", "n", "o", "s", "t", "u", "v", "x", "z")
"""The letters on cards; none of them is an option letter."""
OPTION_LETTERS = ("a", "b", "c", "d")

GRID_SIDE = len(COLUMNS)
"""A picture divides into GRID_SIDE**2 cells, each of which has a phrase."""

Kind = Literal["scene", "card", "chart", "digits"]
KINDS: tuple[Kind, ...] = ("scene", "card", "chart", "digits")
"""What sorts of pictures there are, in the order of their numbers in the corpora."""

SOLID_CLASSES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
BAR_CLASSES = tuple(f"{colour} bar" for colour in COLOURS)
GLYPH_CLASSES = tuple(f"letter {glyph}" for glyph in GLYPHS)
DIGIT_CLASSES = tuple(f"digit {number}" for number in NUMBERS[:10])
CLASSES = (*SOLID_CLASSES, *BAR_CLASSES, *GLYPH_CLASSES, *DIGIT_CLASSES)
"""What a pixel can belong to; class i is i + 1 in a segmentation, where 0 is the background."""

CLASS_IDS = {name: number for number, name in enumerate(CLASSES, 1)}


def cell_words(cell: int) -> tuple[str, str]:
    """The row and column words of a cell, which are numbered row by row."""
    row, column = divmod(cell, GRID_SIDE)
    return ROWS[row], COLUMNS[column]
