"""The figures as Vega-Lite, made with Altair: drawing only, no numbers.

A figure is a `Drawing` of rows that are named but not there. `render_template` puts DVC's anchor in their place and one
row of panels per revision, for `dvc plots`; `render_spec` puts the rows there, for the report. Both draw the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.interfaces import CATEGORIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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


def draw_image_panel() -> Drawing:
    """Figure 3, left."""
    import altair as alt

    order = alt.EncodingSortField(field="order", op="min", order="descending")
    y = alt.Y("benchmark:N", sort=order, title=None)
    scale = (["with image", "without image", "chance"], ["#1a7fc1", "#e69f00", MUTED])
    colour = alt.Color("condition:N", scale=_scale(scale), title=None)
    bars = (
        _chart(width=260, height=300)
        .mark_rule()
        .encode(y=y, x=alt.X("low:Q", title=_POINTS), x2="high:Q", color=colour)
    )
    points = (
        _chart()
        .mark_point(filled=True, size=55, opacity=1)
        .encode(
            y=y,
            x=alt.X("score:Q", title=_POINTS),
            color=colour,
            shape=alt.Shape("condition:N", scale=_scale((scale[0], ["circle", "diamond", "square"])), title=None),
            tooltip=_tooltip("face", "benchmark", "condition", "score"),
        )
    )
    return Drawing([bars, points], facet="face")


def draw_benchmark_map() -> Drawing:
    """Figure 3, right."""
    import altair as alt

    x, y = alt.X("pc1:Q", title="first component"), alt.Y("pc2:Q", title="second component")
    colour = alt.Color("category:N", scale=_scale(GROUP_SCALE), title=None)
    points = _chart(width=320, height=300).mark_point(filled=True, size=60, opacity=1)
    points = points.encode(x=x, y=y, color=colour, tooltip=_tooltip("face", "benchmark", "category", "pc1", "pc2"))
    labels = _chart().mark_text(dy=-9, fontSize=10).encode(x=x, y=y, text="benchmark:N")
    return Drawing([points, labels], facet="face", resolve={"x": "independent", "y": "independent"})


def draw_correlations() -> Drawing:
    """Figure 10."""
    import altair as alt

    x = alt.X("benchmark:N", sort=_by("place"), title=None, axis=alt.Axis(labelAngle=-60))
    y = alt.Y("other:N", sort=_by("other_place"), title=None)
    colour = alt.Color(
        "correlation:Q",
        scale=alt.Scale(domain=[-1, 0, 1], range=["#d55e00", "#f6f8fa", "#1a7fc1"], interpolate="rgb"),
        legend=alt.Legend(title="correlation", orient="right"),
    )
    cells = _chart(width=360, height=360).mark_rect().encode(x=x, y=y, color=colour)
    cells = cells.encode(tooltip=_tooltip("face", "benchmark", "other", "correlation"))
    dark = alt.condition("abs(datum.correlation) > 0.6", alt.value("#ffffff"), alt.value("#24292e"))
    numbers = _chart().mark_text(fontSize=8).encode(x=x, y=y, text=alt.Text("correlation:Q", format=".2f"), color=dark)
    return Drawing([cells, numbers], facet="face")


def draw_recipes() -> Drawing:
    """Figure 4."""
    import altair as alt

    x = alt.X("recipe:N", sort=["0M", "0.5M", "1.2M", "1.2M trained"], title=None, axis=alt.Axis(labelAngle=-30))
    offset = alt.XOffset("group:N", sort=ENCODER_SCALE[0])
    colour = alt.Color("group:N", scale=_scale(ENCODER_SCALE), title=None)
    base = _chart(width=230, height=240).encode(x=x, xOffset=offset, color=colour)
    scores = {"title": _POINTS}
    whiskers = base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", **scores), y2="high:Q")
    boxes = base.mark_bar(size=11, opacity=0.35).encode(y=alt.Y("first:Q", **scores), y2="third:Q")
    medians = base.mark_tick(thickness=2, size=11).encode(y=alt.Y("median:Q", **scores))
    points = base.mark_point(filled=True, shape="diamond", size=65, opacity=1, stroke=INK, strokeWidth=0.8)
    points = points.encode(y=alt.Y("score:Q", **scores), tooltip=_tooltip("run", "group", "recipe", "score"))
    return Drawing([whiskers, boxes, medians, points], facet="category", facet_sort=GROUP_SCALE[0])


def draw_encoders() -> Drawing:
    """Figure 5."""
    import altair as alt

    y = alt.Y("encoder:N", sort=_by("order"), title=None)
    x = alt.X("score:Q", title=_POINTS, scale=alt.Scale(zero=False))
    groups = (["floor", *ENCODER_SCALE[0]], [MUTED, *ENCODER_SCALE[1]])
    points = (
        _chart(width=170, height=330)
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            y=y,
            x=x,
            color=alt.Color("group:N", scale=_scale(groups), title=None),
            shape=alt.Shape("face:N", scale=_scale((FACE_SCALE[0], ["triangle-up", "circle"])), title=None),
            tooltip=_tooltip("face", "encoder", "category", "score"),
        )
    )
    return Drawing([points], facet="category", facet_sort=GROUP_SCALE[0])


def draw_gap() -> Drawing:
    """Figure 6."""
    import altair as alt

    x = alt.X("setting:N", sort=_by("place"), title=None, axis=alt.Axis(labelAngle=-30))
    y = alt.Y("score:Q", title=_POINTS, scale=alt.Scale(zero=False))
    colour = alt.Color("model:N", scale=_scale((["OpenAI CLIP", "DINOv2"], ["#1a7fc1", "#d55e00"])), title=None)
    dash = alt.StrokeDash("face:N", scale=_scale((FACE_SCALE[0], [[4, 3], [1, 0]])), title=None)
    base = _chart(width=200, height=230).encode(x=x, y=y, color=colour)
    lines = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash)
    points = base.mark_point(filled=True, size=45, opacity=1).encode(
        shape=alt.Shape("face:N", scale=_scale((FACE_SCALE[0], ["triangle-up", "circle"])), title=None),
        tooltip=_tooltip("face", "model", "setting", "category", "score"),
    )
    return Drawing([lines, points], facet="category", facet_sort=GROUP_SCALE[0])


def draw_caps() -> Drawing:
    """Table 2 as a curve."""
    import altair as alt

    x = alt.X(
        "cap:Q",
        title="cap per source, thousands",
        axis=alt.Axis(values=[150, 250, 350, 450]),
        scale=alt.Scale(domain=[120, 480]),
    )
    y = alt.Y("score:Q", title=_POINTS, scale=alt.Scale(zero=False))
    base = _chart(width=160, height=200).encode(
        x=x, y=y, color=alt.Color("face:N", scale=_scale(FACE_SCALE), title=None)
    )
    lines = base.mark_line(strokeWidth=1.8)
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        tooltip=_tooltip("face", "cap", "measure", "score")
    )
    return Drawing([lines, points], facet="measure", facet_sort=["Average", *GROUP_SCALE[0]])


def draw_ratios() -> Drawing:
    """Figure 9."""
    import altair as alt

    y = alt.Y("mixture:N", title=None)
    shares = _chart(width=380, height=150).mark_bar(stroke="#ffffff", strokeWidth=0.5)
    shares = shares.encode(
        y=y,
        x=alt.X("percent:Q", title="percent of the mixture; at the right its average score", stack="zero",
                scale=alt.Scale(domain=[0, 112]), axis=alt.Axis(values=[0, 20, 40, 60, 80, 100])),
        color=alt.Color("category:N", scale=_scale(DATA_SCALE), title=None),
        order=alt.Order("order:Q"),
        tooltip=_tooltip("face", "mixture", "category", "percent", "average"),
    )  # fmt: skip
    averages = _chart().mark_text(align="right", fontSize=11, fontWeight="bold")
    averages = averages.encode(y=y, x=alt.value(378), text="label:N")
    return Drawing([shares, averages], facet="face")


def draw_sources() -> Drawing:
    """Figure 8."""
    import altair as alt

    rings = []
    for ring, (inner, outer) in enumerate(((45, 85), (90, 135))):
        base = _chart(width=300, height=300).transform_filter(f"datum.ring === {ring}")
        theta = alt.Theta("percent:Q", stack="zero")
        order = alt.Order("order:Q")
        arcs = base.mark_arc(innerRadius=inner, outerRadius=outer, stroke="#ffffff", strokeWidth=1).encode(
            theta=theta,
            order=order,
            color=alt.Color("category:N", scale=_scale(DATA_SCALE), title=None),
            tooltip=_tooltip("face", "collection", "category", "thousands", "percent"),
        )
        names = base.transform_calculate(label="datum.percent < 5 ? '' : format(datum.percent, '.0f') + '%'")
        labels = names.mark_text(radius=(inner + outer) / 2, color="#ffffff", fontSize=10, fontWeight="bold")
        rings += [arcs, labels.encode(theta=theta, order=order, text="label:N")]
    return Drawing(rings, facet="face")


def draw_cumulative() -> Drawing:
    """Figure 17."""
    import altair as alt

    caps = (["no cap", "450k", "350k", "250k", "150k"], [INK, "#1a7fc1", "#009e73", "#e69f00", "#d55e00"])
    lines = (
        _chart(width=330, height=240)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("source:Q", title="sources, the largest first"),
            y=alt.Y("millions:Q", title="samples, millions"),
            color=alt.Color(
                "cap:N",
                scale=_scale(caps),
                title=None,
            ),
            tooltip=_tooltip("face", "cap", "source", "millions"),
        )
    )
    return Drawing([lines], facet="face")


def draw_final() -> Drawing:
    """Figure 18."""
    import altair as alt

    y = alt.Y("model:N", sort=_by("order"), title=None)
    x = alt.X("score:Q", title=_POINTS, scale=alt.Scale(domain=[0, 112]), axis=alt.Axis(values=[0, 25, 50, 75, 100]))
    kinds = ["published", "reproduced, with image", "reproduced, without image"]
    bars = _chart(width=190, height=170).mark_bar()
    bars = bars.encode(
        y=y,
        x=x,
        color=alt.Color("kind:N", scale=_scale((kinds, [MUTED, "#1a7fc1", "#e69f00"])), title=None),
        tooltip=_tooltip("model", "kind", "category", "score"),
    )
    labels = (
        _chart().mark_text(align="left", dx=3, fontSize=10).encode(y=y, x=x, text=alt.Text("score:Q", format=".1f"))
    )
    return Drawing([bars, labels], facet="category", facet_sort=GROUP_SCALE[0])


def draw_examples() -> Drawing:
    """Figure 11."""
    import altair as alt

    lines = (
        "'“' + datum.question + '”\\n' + datum.choices + '\\nanswer: ' + datum.answer + '\\nmodel: ' + datum.reply"
        " + '\\nwithout image: ' + datum.reply_without_image"
    )
    x, y = (
        alt.X("outcome:N", title=None, axis=alt.Axis(labelAngle=0, orient="top")),
        alt.Y("task:N", title=None, sort=_by("order")),
    )
    size = _chart(width=720, height=480)
    images = size.mark_image(width=96, height=96, align="left", xOffset=16).encode(x=x, y=y, url="image:N")
    texts = size.transform_calculate(text=lines).mark_text(
        align="left", baseline="middle", dx=-55, dy=-30, fontSize=11, lineBreak="\n", lineHeight=15
    )
    return Drawing([images, texts.encode(x=x, y=y, text="text:N")], facet=None)


def draw_prompt_examples() -> Drawing:
    """Figure 14."""
    return _draw_pictures(rows=3, columns=2, row_height=175)


def draw_engine_example() -> Drawing:
    """Figure 16."""
    return _draw_pictures(rows=1, columns=1, row_height=115)


def draw_dialogues() -> Drawing:
    """Figure 19."""
    return _draw_pictures(rows=3, columns=2, row_height=235)


def _draw_pictures(*, rows: int, columns: int, row_height: int) -> Drawing:
    """Pictures with lines of text to their right, on a grid of rows and columns."""
    import altair as alt

    width, side, gap = 370, 96, 8
    grid = [alt.Scale(domain=list(range(count)), paddingInner=0, paddingOuter=0) for count in (columns, rows)]
    place = {"x": alt.X("column:O", axis=None, scale=grid[0]), "y": alt.Y("row:O", axis=None, scale=grid[1])}
    size = _chart(width=width * columns, height=row_height * rows)
    # a picture's place is the upper left corner of its cell, a text's is the middle
    images = size.mark_image(width=side, height=side, align="left", baseline="top", xOffset=gap, yOffset=gap)
    texts = size.mark_text(
        align="left", baseline="top", dx=side + 2 * gap - width / 2, dy=gap - row_height / 2, fontSize=11,
        lineBreak="\n", lineHeight=14,
    )  # fmt: skip
    return Drawing([images.encode(**place, url="image:N"), texts.encode(**place, text="text:N")], facet=None)


def draw_unfreezing() -> Drawing:
    """Figure 13."""
    import altair as alt

    x = alt.X("measure:N", sort=_by("place"), title=None, axis=alt.Axis(labelAngle=-60))
    y = alt.Y("model:N", sort=_by("order"), title=None)
    colour = alt.Color(
        "change:Q",
        scale=alt.Scale(domain=[-20, 0, 20], range=["#d55e00", "#f6f8fa", "#1a7fc1"], interpolate="rgb", clamp=True),
        legend=alt.Legend(title="percent", orient="right"),
    )
    cells = _chart(width=420, height=320).mark_rect().encode(x=x, y=y, color=colour)
    cells = cells.encode(tooltip=_tooltip("face", "model", "measure", "change"))
    dark = alt.condition("abs(datum.change) > 12", alt.value("#ffffff"), alt.value("#24292e"))
    numbers = _chart().mark_text(fontSize=7).encode(x=x, y=y, text=alt.Text("change:Q", format=".1f"), color=dark)
    return Drawing([cells, numbers], facet="face")


def draw_losses() -> Drawing:
    """The loss of every run's second phase."""
    import altair as alt

    kinds = ["other runs", "final model", "no images", "random encoder"]
    legend = alt.Legend(title=None, symbolOpacity=1, symbolStrokeWidth=3)
    base = _chart(width=640, height=260).encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False)),
        detail="run:N",
        color=alt.Color("kind:N", scale=_scale((kinds, [MUTED, "#1a7fc1", "#e69f00", "#d55e00"])), legend=legend),
        tooltip=_tooltip("run", "step", "loss"),
    )
    others = base.transform_filter("datum.kind === 'other runs'").mark_line(strokeWidth=0.8, opacity=0.5)
    named = base.transform_filter("datum.kind !== 'other runs'").mark_line(strokeWidth=2.2)
    return Drawing([others, named], facet=None)


_POINTS = "score, out of 100"
_NUMERIC_FIELDS = frozenset(
    {"score", "pc1", "pc2", "correlation", "percent", "thousands", "millions", "average", "loss", "step", "change"}
)

DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "images": draw_image_panel,
    "benchmark_map": draw_benchmark_map,
    "correlations": draw_correlations,
    "recipes": draw_recipes,
    "encoders": draw_encoders,
    "gap": draw_gap,
    "caps": draw_caps,
    "ratios": draw_ratios,
    "sources": draw_sources,
    "cumulative": draw_cumulative,
    "final": draw_final,
    "examples": draw_examples,
    "unfreezing": draw_unfreezing,
    "prompt_examples": draw_prompt_examples,
    "engine_example": draw_engine_example,
    "dialogues": draw_dialogues,
    "losses": draw_losses,
}


def _chart(**size: int) -> Any:
    import altair as alt

    return alt.Chart(alt.NamedData("rows")).properties(**size)


def _scale(domain_and_range: tuple[Sequence[Any], Sequence[Any]]) -> Any:
    import altair as alt

    domain, values = domain_and_range
    return alt.Scale(domain=list(domain), range=list(values))


def _by(field: str) -> Any:
    import altair as alt

    return alt.EncodingSortField(field=field, op="min", order="ascending")


def _tooltip(*fields: str) -> list[Any]:
    import altair as alt

    numeric = {
        "score",
        "pc1",
        "pc2",
        "correlation",
        "percent",
        "thousands",
        "millions",
        "average",
        "loss",
        "cap",
        "step",
    }
    return [alt.Tooltip(f"{field}:{'Q' if field in numeric else 'N'}") for field in fields]


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
