"""The report as a PDF, set by typst; the same bytes for the same content."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.report.page import TEMPLATES_DIR

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE_NAME = "report.typ"
CONTENT_NAME = "content.json"


def render_document(content: Mapping[str, Any]) -> bytes:
    """The PDF, without a date and with typst's own fonts, so that no machine shows through."""
    import typst

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shutil.copyfile(TEMPLATES_DIR / SOURCE_NAME, root / SOURCE_NAME)
        plain = json.loads(json.dumps(content))
        for section in plain["sections"]:
            for part in section["parts"]:
                if part["kind"] == "figure" and part["svg"] is not None:
                    (root / f"{part['id']}.svg").write_text(part["svg"], encoding="utf-8")
                    part["svg"] = f"{part['id']}.svg"
                part.pop("spec", None)
        (root / CONTENT_NAME).write_text(json.dumps(plain, sort_keys=True, ensure_ascii=False), encoding="utf-8")
        pdf: bytes = typst.compile(root / SOURCE_NAME, root=root, ignore_system_fonts=True)
    return pdf
