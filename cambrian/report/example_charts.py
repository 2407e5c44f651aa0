"""Figures of pictures with what was asked and answered."""

from __future__ import annotations

from cambrian.report.drawing import Drawing, make_chart, sort_by


def draw_examples() -> Drawing:
    """Figure 11."""
    import altair as alt

    lines = (
        "'“' + datum.question + '”\\n' + datum.choices + '\\nanswer: ' + datum.answer + '\\nmodel: ' + datum.reply"
        " + '\\nwithout image: ' + datum.reply_without_image"
    )
    x, y = (
        alt.X("outcome:N", title=None, axis=alt.Axis(labelAngle=0, orient="top")),
        alt.Y("task:N", title=None, sort=sort_by("order")),
    )
    size = make_chart(width=720, height=480)
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
    size = make_chart(width=width * columns, height=row_height * rows)
    # a picture's place is the upper left corner of its cell, a text's is the middle
    images = size.mark_image(width=side, height=side, align="left", baseline="top", xOffset=gap, yOffset=gap)
    texts = size.mark_text(
        align="left", baseline="top", dx=side + 2 * gap - width / 2, dy=gap - row_height / 2, fontSize=11,
        lineBreak="\n", lineHeight=14,
    )  # fmt: skip
    return Drawing([images.encode(**place, url="image:N"), texts.encode(**place, text="text:N")], facet=None)
