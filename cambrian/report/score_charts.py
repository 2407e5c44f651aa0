"""Figures of scores and losses."""

from __future__ import annotations

from cambrian.report.drawing import (
    ENCODER_SCALE,
    FACE_SCALE,
    GROUP_SCALE,
    INK,
    MUTED,
    POINTS,
    Drawing,
    make_chart,
    make_scale,
    make_tooltip,
    sort_by,
)


def draw_image_panel() -> Drawing:
    """Figure 3, left."""
    import altair as alt

    order = alt.EncodingSortField(field="order", op="min", order="descending")
    y = alt.Y("benchmark:N", sort=order, title=None)
    scale = (["with image", "without image", "chance"], ["#1a7fc1", "#e69f00", MUTED])
    colour = alt.Color("condition:N", scale=make_scale(scale), title=None)
    bars = (
        make_chart(width=260, height=300)
        .mark_rule()
        .encode(y=y, x=alt.X("low:Q", title=POINTS), x2="high:Q", color=colour)
    )
    points = (
        make_chart()
        .mark_point(filled=True, size=55, opacity=1)
        .encode(
            y=y,
            x=alt.X("score:Q", title=POINTS),
            color=colour,
            shape=alt.Shape("condition:N", scale=make_scale((scale[0], ["circle", "diamond", "square"])), title=None),
            tooltip=make_tooltip("face", "benchmark", "condition", "score"),
        )
    )
    return Drawing([bars, points], facet="face")


def draw_benchmark_map() -> Drawing:
    """Figure 3, right."""
    import altair as alt

    x, y = alt.X("pc1:Q", title="first component"), alt.Y("pc2:Q", title="second component")
    colour = alt.Color("category:N", scale=make_scale(GROUP_SCALE), title=None)
    points = make_chart(width=320, height=300).mark_point(filled=True, size=60, opacity=1)
    points = points.encode(x=x, y=y, color=colour, tooltip=make_tooltip("face", "benchmark", "category", "pc1", "pc2"))
    labels = make_chart().mark_text(dy=-9, fontSize=10).encode(x=x, y=y, text="benchmark:N")
    return Drawing([points, labels], facet="face", resolve={"x": "independent", "y": "independent"})


def draw_correlations() -> Drawing:
    """Figure 10."""
    import altair as alt

    x = alt.X("benchmark:N", sort=sort_by("place"), title=None, axis=alt.Axis(labelAngle=-60))
    y = alt.Y("other:N", sort=sort_by("other_place"), title=None)
    colour = alt.Color(
        "correlation:Q",
        scale=alt.Scale(domain=[-1, 0, 1], range=["#d55e00", "#f6f8fa", "#1a7fc1"], interpolate="rgb"),
        legend=alt.Legend(title="correlation", orient="right"),
    )
    cells = make_chart(width=360, height=360).mark_rect().encode(x=x, y=y, color=colour)
    cells = cells.encode(tooltip=make_tooltip("face", "benchmark", "other", "correlation"))
    dark = alt.condition("abs(datum.correlation) > 0.6", alt.value("#ffffff"), alt.value("#24292e"))
    numbers = (
        make_chart().mark_text(fontSize=8).encode(x=x, y=y, text=alt.Text("correlation:Q", format=".2f"), color=dark)
    )
    return Drawing([cells, numbers], facet="face")


def draw_recipes() -> Drawing:
    """Figure 4."""
    import altair as alt

    x = alt.X("recipe:N", sort=["0M", "0.5M", "1.2M", "1.2M trained"], title=None, axis=alt.Axis(labelAngle=-30))
    offset = alt.XOffset("group:N", sort=ENCODER_SCALE[0])
    colour = alt.Color("group:N", scale=make_scale(ENCODER_SCALE), title=None)
    base = make_chart(width=230, height=240).encode(x=x, xOffset=offset, color=colour)
    scores = {"title": POINTS}
    whiskers = base.mark_rule(opacity=0.6).encode(y=alt.Y("low:Q", **scores), y2="high:Q")
    boxes = base.mark_bar(size=11, opacity=0.35).encode(y=alt.Y("first:Q", **scores), y2="third:Q")
    medians = base.mark_tick(thickness=2, size=11).encode(y=alt.Y("median:Q", **scores))
    points = base.mark_point(filled=True, shape="diamond", size=65, opacity=1, stroke=INK, strokeWidth=0.8)
    points = points.encode(y=alt.Y("score:Q", **scores), tooltip=make_tooltip("run", "group", "recipe", "score"))
    return Drawing([whiskers, boxes, medians, points], facet="category", facet_sort=GROUP_SCALE[0])


def draw_encoders() -> Drawing:
    """Figure 5."""
    import altair as alt

    y = alt.Y("encoder:N", sort=sort_by("order"), title=None)
    x = alt.X("score:Q", title=POINTS, scale=alt.Scale(zero=False))
    groups = (["floor", *ENCODER_SCALE[0]], [MUTED, *ENCODER_SCALE[1]])
    points = (
        make_chart(width=170, height=330)
        .mark_point(filled=True, size=60, opacity=1)
        .encode(
            y=y,
            x=x,
            color=alt.Color("group:N", scale=make_scale(groups), title=None),
            shape=alt.Shape("face:N", scale=make_scale((FACE_SCALE[0], ["triangle-up", "circle"])), title=None),
            tooltip=make_tooltip("face", "encoder", "category", "score"),
        )
    )
    return Drawing([points], facet="category", facet_sort=GROUP_SCALE[0])


def draw_gap() -> Drawing:
    """Figure 6."""
    import altair as alt

    x = alt.X("setting:N", sort=sort_by("place"), title=None, axis=alt.Axis(labelAngle=-30))
    y = alt.Y("score:Q", title=POINTS, scale=alt.Scale(zero=False))
    colour = alt.Color("model:N", scale=make_scale((["OpenAI CLIP", "DINOv2"], ["#1a7fc1", "#d55e00"])), title=None)
    dash = alt.StrokeDash("face:N", scale=make_scale((FACE_SCALE[0], [[4, 3], [1, 0]])), title=None)
    base = make_chart(width=200, height=230).encode(x=x, y=y, color=colour)
    lines = base.mark_line(strokeWidth=1.8).encode(strokeDash=dash)
    points = base.mark_point(filled=True, size=45, opacity=1).encode(
        shape=alt.Shape("face:N", scale=make_scale((FACE_SCALE[0], ["triangle-up", "circle"])), title=None),
        tooltip=make_tooltip("face", "model", "setting", "category", "score"),
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
    y = alt.Y("score:Q", title=POINTS, scale=alt.Scale(zero=False))
    base = make_chart(width=160, height=200).encode(
        x=x, y=y, color=alt.Color("face:N", scale=make_scale(FACE_SCALE), title=None)
    )
    lines = base.mark_line(strokeWidth=1.8)
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        tooltip=make_tooltip("face", "cap", "measure", "score")
    )
    return Drawing([lines, points], facet="measure", facet_sort=["Average", *GROUP_SCALE[0]])


def draw_final() -> Drawing:
    """Figure 18."""
    import altair as alt

    y = alt.Y("model:N", sort=sort_by("order"), title=None)
    x = alt.X("score:Q", title=POINTS, scale=alt.Scale(domain=[0, 112]), axis=alt.Axis(values=[0, 25, 50, 75, 100]))
    kinds = ["published", "reproduced, with image", "reproduced, without image"]
    bars = make_chart(width=190, height=170).mark_bar()
    bars = bars.encode(
        y=y,
        x=x,
        color=alt.Color("kind:N", scale=make_scale((kinds, [MUTED, "#1a7fc1", "#e69f00"])), title=None),
        tooltip=make_tooltip("model", "kind", "category", "score"),
    )
    labels = (
        make_chart().mark_text(align="left", dx=3, fontSize=10).encode(y=y, x=x, text=alt.Text("score:Q", format=".1f"))
    )
    return Drawing([bars, labels], facet="category", facet_sort=GROUP_SCALE[0])


def draw_unfreezing() -> Drawing:
    """Figure 13."""
    import altair as alt

    x = alt.X("measure:N", sort=sort_by("place"), title=None, axis=alt.Axis(labelAngle=-60))
    y = alt.Y("model:N", sort=sort_by("order"), title=None)
    colour = alt.Color(
        "change:Q",
        scale=alt.Scale(domain=[-20, 0, 20], range=["#d55e00", "#f6f8fa", "#1a7fc1"], interpolate="rgb", clamp=True),
        legend=alt.Legend(title="percent", orient="right"),
    )
    cells = make_chart(width=420, height=320).mark_rect().encode(x=x, y=y, color=colour)
    cells = cells.encode(tooltip=make_tooltip("face", "model", "measure", "change"))
    dark = alt.condition("abs(datum.change) > 12", alt.value("#ffffff"), alt.value("#24292e"))
    numbers = make_chart().mark_text(fontSize=7).encode(x=x, y=y, text=alt.Text("change:Q", format=".1f"), color=dark)
    return Drawing([cells, numbers], facet="face")


def draw_losses() -> Drawing:
    """The loss of every run's second phase."""
    import altair as alt

    kinds = ["other runs", "final model", "no images", "random encoder"]
    legend = alt.Legend(title=None, symbolOpacity=1, symbolStrokeWidth=3)
    base = make_chart(width=640, height=260).encode(
        x=alt.X("step:Q", title="step"),
        y=alt.Y("loss:Q", title="loss", scale=alt.Scale(zero=False)),
        detail="run:N",
        color=alt.Color("kind:N", scale=make_scale((kinds, [MUTED, "#1a7fc1", "#e69f00", "#d55e00"])), legend=legend),
        tooltip=make_tooltip("run", "step", "loss"),
    )
    others = base.transform_filter("datum.kind === 'other runs'").mark_line(strokeWidth=0.8, opacity=0.5)
    named = base.transform_filter("datum.kind !== 'other runs'").mark_line(strokeWidth=2.2)
    return Drawing([others, named], facet=None)
