"""Figures of what data is made of."""

from __future__ import annotations

from cambrian.report.drawing import DATA_SCALE, INK, Drawing, make_chart, make_scale, make_tooltip


def draw_ratios() -> Drawing:
    """Figure 9."""
    import altair as alt

    y = alt.Y("mixture:N", title=None)
    shares = make_chart(width=380, height=150).mark_bar(stroke="#ffffff", strokeWidth=0.5)
    shares = shares.encode(
        y=y,
        x=alt.X("percent:Q", title="percent of the mixture; at the right its average score", stack="zero",
                scale=alt.Scale(domain=[0, 112]), axis=alt.Axis(values=[0, 20, 40, 60, 80, 100])),
        color=alt.Color("category:N", scale=make_scale(DATA_SCALE), title=None),
        order=alt.Order("order:Q"),
        tooltip=make_tooltip("face", "mixture", "category", "percent", "average"),
    )  # fmt: skip
    averages = make_chart().mark_text(align="right", fontSize=11, fontWeight="bold")
    averages = averages.encode(y=y, x=alt.value(378), text="label:N")
    return Drawing([shares, averages], facet="face")


def draw_sources() -> Drawing:
    """Figure 8."""
    import altair as alt

    rings = []
    for ring, (inner, outer) in enumerate(((45, 85), (90, 135))):
        base = make_chart(width=300, height=300).transform_filter(f"datum.ring === {ring}")
        theta = alt.Theta("percent:Q", stack="zero")
        order = alt.Order("order:Q")
        arcs = base.mark_arc(innerRadius=inner, outerRadius=outer, stroke="#ffffff", strokeWidth=1).encode(
            theta=theta,
            order=order,
            color=alt.Color("category:N", scale=make_scale(DATA_SCALE), title=None),
            tooltip=make_tooltip("face", "collection", "category", "thousands", "percent"),
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
        make_chart(width=330, height=240)
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X("source:Q", title="sources, the largest first"),
            y=alt.Y("millions:Q", title="samples, millions"),
            color=alt.Color(
                "cap:N",
                scale=make_scale(caps),
                title=None,
            ),
            tooltip=make_tooltip("face", "cap", "source", "millions"),
        )
    )
    return Drawing([lines], facet="face")
