"""Cards: a row of letters, drawn from bitmaps, or of real handwritten digits."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from cambrian.data.world.charts import SHEET_DEPTH
from cambrian.data.world.scenes import Rendering
from cambrian.data.world.words import CLASS_IDS, GLYPHS, GRID_SIDE, NUMBERS
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    import numpy.typing as npt

    from cambrian.data.world.config import CardConfig

_DIGITS_PACKAGE = "sklearn"
_DIGITS_PATH = Path("datasets/data/digits.csv.gz")
_DIGITS_SIDE = 8
_DIGITS_MAX = 16
_MARGIN = 1
"""Cell pixels that a sign leaves free on each side before it is shifted."""

_BITMAPS = {
    "e": "#####|#....|#....|####.|#....|#....|#####",
    "h": "#...#|#...#|#...#|#####|#...#|#...#|#...#",
    "k": "#...#|#..#.|#.#..|##...|#.#..|#..#.|#...#",
    "l": "#....|#....|#....|#....|#....|#....|#####",
    "n": "#...#|##..#|##..#|#.#.#|#..##|#..##|#...#",
    "o": ".###.|#...#|#...#|#...#|#...#|#...#|.###.",
    "s": ".####|#....|#....|.###.|....#|....#|####.",
    "t": "#####|..#..|..#..|..#..|..#..|..#..|..#..",
    "u": "#...#|#...#|#...#|#...#|#...#|#...#|#####",
    "v": "#...#|#...#|#...#|.#.#.|.#.#.|..#..|..#..",
    "x": "#...#|#...#|.#.#.|..#..|.#.#.|#...#|#...#",
    "z": "#####|....#|...#.|..#..|.#...|#....|#####",
}


@dataclass(frozen=True, slots=True)
class Sign:
    """One letter or digit of a card."""

    word: str
    column: int
    offset: tuple[int, int]
    """Pixels to the right and down from the cell's middle."""
    drawing: int
    """Which of the handwritten drawings of this digit; 0 for a letter."""


@dataclass(frozen=True, slots=True)
class Card:
    """Different letters or different digits in one row of cells, from left to right."""

    kind: Literal["card", "digits"]
    signs: tuple[Sign, ...]
    row: int
    ground: int
    """The background's grey, 0 to 255."""
    ink: int
    """The signs' grey, 0 to 255."""
    grain: int
    """The seed of the picture's grain."""

    @property
    def noun(self) -> str:
        """What its signs are."""
        return "letter" if self.kind == "card" else "digit"

    def class_name(self, sign: Sign) -> str:
        """The name of a sign's class in segmentations and labels."""
        return f"{self.noun} {sign.word}"


def sample_card(
    rng: np.random.Generator, config: CardConfig, kind: Literal["card", "digits"], num_signs: int | None = None
) -> Card:
    """Draw a card with this many letters or digits, or with any number that the config allows."""
    least, most = config.num_signs
    number = num_signs if num_signs is not None else int(rng.integers(least, most + 1))
    words = GLYPHS if kind == "card" else NUMBERS[:10]
    columns = sorted(rng.permutation(GRID_SIDE)[:number].tolist())
    chosen = rng.permutation(len(words))[:number].tolist()
    offsets = rng.integers(-config.max_offset_pixels, config.max_offset_pixels + 1, (number, 2)).tolist()
    drawings = rng.integers(0, 2**16, number).tolist() if kind == "digits" else [0] * number
    signs = tuple(
        Sign(words[word], column, (offset[0], offset[1]), drawing)
        for word, column, offset, drawing in zip(chosen, columns, offsets, drawings, strict=True)
    )
    return Card(
        kind,
        signs,
        row=int(rng.integers(GRID_SIDE)),
        ground=int(rng.integers(190, 256)),
        ink=int(rng.integers(0, 70)),
        grain=int(rng.integers(2**32)),
    )


def render_card(card: Card, side: int) -> Rendering:
    """Draw the signs in ink, each in its cell."""
    pixels = np.full((side, side), card.ground, dtype=np.float32)
    segmentation = np.zeros((side, side), dtype=np.uint8)
    cell = side // GRID_SIDE
    for sign in card.signs:
        drawing = _letter(sign.word, cell) if card.kind == "card" else _digit(sign.word, sign.drawing, cell)
        height, width = drawing.shape
        top = min(max(card.row * cell + (cell - height) // 2 + sign.offset[1], 0), side - height)
        left = min(max(sign.column * cell + (cell - width) // 2 + sign.offset[0], 0), side - width)
        here = np.s_[top : top + height, left : left + width]
        pixels[here] += drawing * (card.ink - card.ground)
        segmentation[here][drawing > 0.5] = CLASS_IDS[card.class_name(sign)]
    grey = pixels.clip(0, 255).astype(np.uint8)
    return Rendering(
        np.repeat(grey[..., None], 3, axis=2), segmentation, np.full((side, side), SHEET_DEPTH, dtype=np.float32)
    )


@functools.lru_cache(maxsize=256)
def _letter(word: str, cell: int) -> npt.NDArray[np.float32]:
    """A letter's ink, 0 to 1, as large as whole pixels allow within a cell."""
    rows = _BITMAPS[word].split("|")
    bits = np.array([[mark == "#" for mark in row] for row in rows], dtype=np.float32)
    return bits.repeat(max((cell - 2 * _MARGIN) // len(rows), 1), axis=0).repeat(
        max((cell - 2 * _MARGIN) // len(rows), 1), axis=1
    )


def _digit(word: str, drawing: int, cell: int) -> npt.NDArray[np.float32]:
    """A handwritten digit's ink, 0 to 1, enlarged to a cell less its margin."""
    drawings = _handwritten_digits()[NUMBERS.index(word)]
    size = cell - 2 * _MARGIN
    return _enlarge(drawings[drawing % len(drawings)], size)


def _enlarge(drawing: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Resample a square drawing linearly to another side."""
    place = (np.arange(size, dtype=np.float32) + 0.5) * len(drawing) / size - 0.5
    low = np.floor(place).astype(np.int64)
    share = (place - low).astype(np.float32)
    before, after = low.clip(0, len(drawing) - 1), (low + 1).clip(0, len(drawing) - 1)
    rows = drawing[before] * (1 - share)[:, None] + drawing[after] * share[:, None]
    enlarged: npt.NDArray[np.float32] = rows[:, before] * (1 - share) + rows[:, after] * share
    return enlarged


@functools.lru_cache(maxsize=1)
def _handwritten_digits() -> tuple[npt.NDArray[np.float32], ...]:
    """The drawings of each digit that scikit-learn ships, 0 to 1; its import would cost more than the whole read.

    Raises:
        ArtifactError: the installed scikit-learn has no such file.

    Source: scikit-learn, `load_digits` (UCI, optical recognition of handwritten digits, test set).
    """
    package = importlib.util.find_spec(_DIGITS_PACKAGE)
    path = Path(package.origin).parent / _DIGITS_PATH if package and package.origin else _DIGITS_PATH
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: the installed scikit-learn ships no digits; run the set-up again")
    table = np.loadtxt(path, delimiter=",", dtype=np.float32)
    drawings, digits = table[:, :-1].reshape(-1, _DIGITS_SIDE, _DIGITS_SIDE) / _DIGITS_MAX, table[:, -1]
    return tuple(drawings[digits == digit] for digit in range(10))
