"""The gate's report: one page without scripts, fonts or pictures from elsewhere, the same bytes in every run.

Great Expectations' own pages hold clocks and random names and load their looks from the network.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_MAX_LEAKED_ROWS = 200
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0 0 2rem; width: 100%; }
th, td { border-bottom: 1px solid #8885; padding: .3rem .6rem; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.met { color: #18794e; } .failed { color: #c2282d; font-weight: 600; }
"""


def write_report(folder: Path, summary: dict[str, Any], title: str) -> None:
    """Write index.html from a gate's verdict; `title` leaves a place for whether it is fit."""
    leakage = summary["leakage"]
    expectations = [
        (
            "failed" if not outcome["success"] else "met",
            outcome["name"],
            outcome["table"],
            outcome["kind"],
            outcome["expected"],
            outcome["observed"],
        )
        for outcome in summary["expectations"]
    ]
    num_met = sum(outcome["success"] for outcome in summary["expectations"])
    sources = [(name, facts["category"], facts["records"]) for name, facts in summary["sources"].items()]
    benchmarks = [
        (name, facts["images"], facts["found"], f"{facts['found'] / max(facts['images'], 1):.1%}")
        for name, facts in leakage["benchmarks"].items()
    ]
    leaked = [(row["id"], row["source"], ", ".join(row["benchmarks"])) for row in leakage["records"]]
    title = title.format("fit" if summary["success"] else "not fit")
    title = title[0].upper() + title[1:]
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{num_met} of {len(expectations)} expectations met; {summary['records']} records, "
        f"{summary['turns']} turns, {summary['images']} images.</p>",
        "<h2>Expectations</h2>",
        _table(["", "what should hold", "table", "Great Expectations' class", "expected", "found"], expectations),
        "<h2>Records per source</h2>",
        _table(["source", "category", "records"], sources),
        "<h2>Test images that look like a training image</h2>",
        f"<p>{leakage['found_share']:.2%} of all test images (difference hashing).</p>",
        _table(["benchmark", "test images", "found", "share"], benchmarks),
        f"<h2>Records with a test image: {len(leaked)}</h2>",
        f"<p>At most {_MAX_LEAKED_ROWS} are shown; all are in the verdict.</p>",
        _table(["record", "source", "benchmarks"], leaked[:_MAX_LEAKED_ROWS]),
    ]
    page = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        *body,
        "</body></html>",
        "",
    ]
    (folder / "index.html").write_text("\n".join(page), encoding="utf-8")


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    lines = ["".join(_cell(value) for value in row) for row in rows]
    return "\n".join([f"<table><tr>{head}</tr>", *(f"<tr>{line}</tr>" for line in lines), "</table>"])


def _cell(value: object) -> str:
    text = html.escape(str(value))
    if value in ("met", "failed"):
        return f'<td class="{text}">{text}</td>'
    return f'<td class="number">{text}</td>' if isinstance(value, int) else f"<td>{text}</td>"
