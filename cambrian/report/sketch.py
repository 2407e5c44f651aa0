"""Boxes, arrows and labels as SVG: what a diagram is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from cambrian.report.drawing import INK, MUTED

if TYPE_CHECKING:
    from collections.abc import Sequence

FONT_SIZE, LINE_HEIGHT = 12, 16
FILLS = {"plain": "none", "data": "#56b4e940", "trained": "#009e7340", "frozen": "#8b949e30", "judge": "#e69f0040"}
"""By what a box stands for: half transparent, so that a dark page shows through."""


@dataclass(frozen=True, slots=True)
class Box:
    """A placed rectangle; its sides are where arrows end."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> tuple[float, float]:
        """Middle of the right side."""
        return self.x + self.width, self.y + self.height / 2

    @property
    def left(self) -> tuple[float, float]:
        """Middle of the left side."""
        return self.x, self.y + self.height / 2

    @property
    def top(self) -> tuple[float, float]:
        """Middle of the upper side."""
        return self.x + self.width / 2, self.y

    @property
    def bottom(self) -> tuple[float, float]:
        """Middle of the lower side."""
        return self.x + self.width / 2, self.y + self.height


@dataclass(slots=True)
class Sketch:
    """A drawing in pixels, written as one SVG."""

    width: float
    height: float
    label: str
    """What a screen reader says."""
    _parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, lines: Sequence[str], *, kind: str = "plain") -> Box:
        """A rectangle with centred lines, the first in bold, as high as they need."""
        height = LINE_HEIGHT * len(lines) + 14
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{FILLS[kind]}" '
            f'stroke="{MUTED}"/>'
        )
        for place, line in enumerate(lines):
            self.text(x + width / 2, y + 19 + LINE_HEIGHT * place, line, anchor="middle", bold=place == 0)
        return Box(x, y, width, height)

    def cell(self, x: float, y: float, side: float, *, fill: str) -> None:
        """A square of a grid."""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}" fill="{fill}" stroke="{MUTED}" '
            'stroke-width="0.6"/>'
        )

    def text(self, x: float, y: float, line: str, *, anchor: str = "start", bold: bool = False) -> None:
        """One line of text on its baseline."""
        weight = ' font-weight="bold"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{INK}"{weight}>{escape(line)}</text>'
        )

    def arrow(self, start: tuple[float, float], end: tuple[float, float], *, dashed: bool = False) -> None:
        """A straight arrow."""
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(
            f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" stroke="{MUTED}" '
            f'stroke-width="1.4" marker-end="url(#head)"{dash}/>'
        )

    def to_svg(self) -> str:
        """The whole drawing."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:g}" height="{self.height:g}" '
            f'viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{escape(self.label)}" '
            f'font-family="Liberation Sans, Arial, sans-serif" font-size="{FONT_SIZE}">'
            f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="{MUTED}"/></marker></defs>'
        )
        return head + "".join(self._parts) + "</svg>\n"
