"""The report as one HTML file that needs neither a server nor the network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.report.drawing import GRID, INK, VEGALITE_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATES_DIR = Path(__file__).with_name("templates")
FACES = {
    "both": "Both",
    "published": "Published",
    "reproduced": "Reproduced",
    "difference": "Difference",
}
PAGE_COLOURS = {INK: "var(--ink)", GRID: "var(--grid)"}
"""What a page replaces in the drawings, so that they follow its background."""


def render_page(content: Mapping[str, Any]) -> str:
    """The whole page, scripts and styles included."""
    import jinja2
    import vl_convert

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    specs = {
        part["id"]: part["spec"]
        for section in content["sections"]
        for part in section["parts"]
        if part["kind"] == "figure" and part["spec"] is not None
    }
    return environment.get_template("report.html").render(
        **content,
        faces=FACES,
        style=_read("report.css"),
        script=_read("report.js"),
        vega=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGALITE_VERSION).replace(
            "</script", "<\\/script"
        ),
        specs=_script_json(specs),
        page_colours=_script_json(PAGE_COLOURS),
        page_svg=page_svg,
    )


def page_svg(name: str, svg: str) -> str:
    """A drawing for use inside the page: colours follow the page, and ids are the drawing's own."""
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(f'"{colour}"', f'"{variable}"')
    return svg.replace('id="', f'id="{name}-').replace("url(#", f"url(#{name}-")


def _script_json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")


def _read(name: str) -> str:
    return (TEMPLATES_DIR / name).read_text(encoding="utf-8")
