"""A figure as Vega-Lite, made with Altair, and what its parts share: drawing only, no numbers.

A figure is a `Drawing` of rows that are named but not there. `render_template` puts DVC's anchor in their place and one
row of panels per revision, for `dvc plots`; `render_spec` puts the rows there, for the report. Both draw the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.interfaces import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DATA_ANCHOR = "<DVC_METRIC_DATA>"
REVISION_FIELD = "rev"
SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
VEGALITE_VERSION = "5.21"
"""The version that draws the report; templates keep to what `dvc plots`, with an older one, can draw."""

INK, GRID, MUTED = "#24292f", "#d0d7de", "#8b949e"
"""Colours of text, lines and what stands behind; a page may replace them by its own for a dark background."""

PUBLISHED_COLOUR, REPRODUCED_COLOUR = MUTED, "#1a7fc1"
FACE_SCALE = (["published", "reproduced"], [PUBLISHED_COLOUR, REPRODUCED_COLOUR])
GROUP_SCALE = (
    ["General", "Knowledge", "OCR & Chart", "Vision-Centric"],
    ["#1a7fc1", "#e69f00", "#009e73", "#cc79a7"],
)
DATA_SCALE = (list(CATEGORIES), ["#56b4e9", "#1a7fc1", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#b3a300"])
ENCODER_SCALE = (["language-supervised", "self-supervised", "other"], ["#1a7fc1", "#d55e00", "#009e73"])

CONFIG: dict[str, Any] = {
    "background": "transparent",
    "font": "Liberation Sans, Arial, sans-serif",
    "view": {"stroke": GRID},
    "axis": {
        "labelColor": INK, "titleColor": INK, "gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED,
        "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal", "labelLimit": 220,
    },
    "header": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "labelFontWeight": "bold"},
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 11, "orient": "bottom", "title": None},
    "text": {"color": INK, "fontSize": 10},
}  # fmt: skip

POINTS = "score, out of 100"
"""The title of an axis of scores."""

_NUMERIC_FIELDS = frozenset(
    {
        "score", "pc1", "pc2", "correlation", "percent", "thousands", "millions", "average", "loss", "cap", "step",
        "change",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawing:
    """Layers of one panel, and the field by which panels stand side by side."""

    layers: Sequence[Any]
    facet: str | None
    facet_sort: Sequence[str] | None = None
    resolve: Mapping[str, str] | None = None


def render_spec(drawing: Drawing, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figure with its rows, as Vega-Lite."""
    return _with_data(_compose(drawing, by_revision=False), list(rows))


def render_template(drawing: Drawing) -> dict[str, Any]:
    """The same figure as a template of `dvc plots`: its rows are filled in by DVC, one line of panels per revision."""
    return _with_data(_compose(drawing, by_revision=True), DATA_ANCHOR)


def make_chart(**size: int) -> Any:
    """A chart of the figure's rows; width and height in pixels."""
    import altair as alt

    return alt.Chart(alt.NamedData("rows")).properties(**size)


def make_scale(domain_and_range: tuple[Sequence[Any], Sequence[Any]]) -> Any:
    """Values and what stands for each."""
    import altair as alt

    domain, values = domain_and_range
    return alt.Scale(domain=list(domain), range=list(values))


def sort_by(field: str) -> Any:
    """The order of another field's values."""
    import altair as alt

    return alt.EncodingSortField(field=field, op="min", order="ascending")


def make_tooltip(*fields: str) -> list[Any]:
    """What a mark says under the pointer: these fields of its row."""
    import altair as alt

    return [alt.Tooltip(f"{field}:{'Q' if field in _NUMERIC_FIELDS else 'N'}") for field in fields]


def _compose(drawing: Drawing, *, by_revision: bool) -> dict[str, Any]:
    import altair as alt

    panels: dict[str, Any] = {}
    if drawing.facet is not None:
        sort = list(drawing.facet_sort) if drawing.facet_sort else "ascending"
        panels["column"] = alt.Column(f"{drawing.facet}:N", title=None, sort=sort)
    if by_revision:
        panels["row"] = alt.Row(f"{REVISION_FIELD}:N", title=None, sort=None)
    chart = alt.layer(*drawing.layers)
    if panels:
        chart = chart.facet(data=alt.NamedData("rows"), **panels)
        if drawing.resolve:
            chart = chart.resolve_scale(**drawing.resolve)
    spec: dict[str, Any] = chart.to_dict(validate=False)
    return spec


def _with_data(spec: Mapping[str, Any], values: Any) -> dict[str, Any]:
    filled = _without_inner_data(copy.deepcopy(dict(spec)))
    return {**filled, "$schema": SCHEMA, "config": CONFIG, "data": {"values": values}}


def _without_inner_data(value: Any) -> Any:
    """The same spec without the parts' own mention of the rows: they inherit the figure's."""
    if isinstance(value, dict):
        return {key: _without_inner_data(part) for key, part in value.items() if key != "data"}
    if isinstance(value, list):
        return [_without_inner_data(part) for part in value]
    return value
