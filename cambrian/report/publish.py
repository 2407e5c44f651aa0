"""The report: one HTML page and one PDF from the tables and figures."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import write_folder
from cambrian.report.content import gather_content
from cambrian.report.document import render_document
from cambrian.report.page import render_page

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAGE_NAME, DOCUMENT_NAME = "report.html", "report.pdf"

_log = logging.getLogger("cambrian")


def publish(
    *,
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    scale: str,
    tables: Path,
    figures: Path,
    data: Path,
    deviations: Path,
    forecast: Path,
    actual: Path,
    difference: Path,
    output: Path,
) -> None:
    """Write report.html and report.pdf; equal inputs give equal bytes.

    `actual` and `difference` are what `python -m flows.timings --write` and `python -m flows diff --write` wrote.

    Raises:
        ArtifactError: an input is missing or incomplete.
    """
    content = gather_content(
        rows=rows,
        scale=scale,
        tables=tables,
        figures=figures,
        data=data,
        deviations=deviations,
        forecast=forecast,
        actual=actual,
        difference=difference,
    )
    with write_folder(output, scale=scale) as folder:
        (folder / PAGE_NAME).write_text(render_page(content), encoding="utf-8")
        (folder / DOCUMENT_NAME).write_bytes(render_document(content))
    _log.info("%s and %s in %s", PAGE_NAME, DOCUMENT_NAME, output)
