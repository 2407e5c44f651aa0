"""What the report says, as plain values: the page and the PDF are two renderings of this."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json, read_manifest
from cambrian.interfaces import ArtifactError
from cambrian.params import look_up, read_yaml
from cambrian.report.config import read_tables_config
from cambrian.report.costs import compare_costs
from cambrian.report.draw import SPEC_SUFFIX, SVG_SUFFIX, read_figures_config
from cambrian.report.published import AVERAGE, read_published
from cambrian.report.tabulate import CONTRADICTIONS_NAME, FINDINGS_NAME, INDEX_NAME, RUNS_NAME, SUMMARY_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

LAYOUT_PATH = Path(__file__).with_name("layout.yaml")
SMALL = 0.005
"""A learning rate, not a score: rounded to its digits, not to places."""

CORRELATION = "correlation"
VERDICTS = ("supported", "not supported", "inconclusive", "not attempted")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def gather_content(
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
) -> dict[str, Any]:
    """Everything that the report shows. `rows` are the tables `runs` and `adapters` of params.yaml.

    Raises:
        ArtifactError: tables or figures are missing or incomplete, or the deviations hold no table.
    """
    read_manifest(tables)
    read_manifest(figures)
    index, findings = read_json(tables / INDEX_NAME), read_json(tables / FINDINGS_NAME)
    described = {
        table_id: _describe_table(read_json(tables / f"{table_id}.json"), index["cells_by_table"].get(table_id))
        for table_id in index["tables"]
    }
    drawn = {name: _describe_figure(name, figures) for name in read_figures_config()}
    sections = [
        {**section, "parts": [_find_part(part, described, drawn) for part in section["parts"]]}
        for section in read_yaml(LAYOUT_PATH)["sections"]
    ]
    return {
        "scale": scale,
        "summary": read_json(tables / SUMMARY_NAME),
        "findings": [_describe_finding(finding) for finding in findings["findings"]],
        "min_standard_errors": findings["min_standard_errors"],
        "seeds": _describe_seeds(findings),
        "verdicts": list(VERDICTS),
        "sections": sections,
        "contradictions": read_json(tables / CONTRADICTIONS_NAME),
        "coverage": _list_coverage(described, drawn),
        "funnel": _list_funnel(data),
        "gates": _list_gates(data / "validated"),
        "deviations": read_markdown_table(deviations),
        "runs": _list_runs(rows, index, tables / RUNS_NAME),
        "costs": compare_costs(forecast, actual),
        "changes": _order_changes(read_json(difference)),
    }


def _order_changes(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The scores by how many standard errors they moved; then those of unknown noise; what is new or gone last."""

    def place(score: Mapping[str, Any]) -> tuple[int, float]:
        if score["before"] is None or score["after"] is None:
            return 2, 0.0
        errors, _, unit = score["verdict"].partition(" ")
        return (0, -float(errors)) if unit == "standard errors" else (1, 0.0)

    return {**changes, "scores": sorted(changes["scores"], key=place)}


def read_markdown_table(path: Path) -> dict[str, Any]:
    """The first table of a Markdown file, as heads and rows of plain text.

    Raises:
        ArtifactError: the file is missing or has no table.
    """
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: the report shows its table; restore it from the repository")
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip().startswith("|")]
    if len(lines) < 2:
        raise ArtifactError(f"{path} has no Markdown table, expected one with a head and a line of dashes")
    heads, _, *rows = [_split_line(line) for line in lines]
    return {"heads": heads, "rows": rows}


def format_number(value: Any, *, digits: int, signed: bool = False) -> str:
    """A cell as a reader sees it: rounded, a minus sign instead of a hyphen, nothing for nothing."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and digits and 0 < abs(value) < SMALL and not signed:
        return f"{value:.3g}".replace("-", "−")
    if isinstance(value, int | float):
        text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
        return text.replace("-", "−")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _describe_table(table: Mapping[str, Any], counts: Mapping[str, int] | None) -> dict[str, Any]:
    rows = []
    for row in table["rows"]:
        cells = []
        for column in table["columns"]:
            printed, ours = row["published"].get(column), row["reproduced"].get(column)
            cells.append(
                {
                    "published": format_number(printed, digits=_printed_digits(printed)),
                    "reproduced": format_number(ours, digits=1 if isinstance(ours, float) else 0),
                    "error": format_number(row["standard_error"].get(column), digits=1),
                    "difference": format_number(row["difference"].get(column), digits=1, signed=True),
                }
            )
        keys = [format_number(key, digits=0) for key in row["keys"]]
        rows.append({**{name: row[name] for name in ("run", "status", "image")}, "keys": keys, "cells": cells})
    return {
        **{name: table[name] for name in ("id", "number", "title", "scale", "keys", "columns", "own_notes", "notes")},
        "rows": rows,
        "kind": "table",
        "cells": counts,
        "num_reproduced": sum(row["status"] in ("reproduced", "added") for row in table["rows"]),
    }


def _printed_digits(value: Any) -> int:
    """As many digits as were printed, two at most."""
    if not isinstance(value, float):
        return 0
    return next(digits for digits in (1, 2) if digits == 2 or round(value, digits) == value)


def _describe_figure(name: str, figures: Path) -> dict[str, Any]:
    config = read_figures_config()[name]
    svg, spec = figures / f"{name}{SVG_SUFFIX}", figures / f"{name}{SPEC_SUFFIX}"
    return {
        "kind": "figure",
        "id": name,
        "number": config.number,
        "part": config.part,
        "published": config.published,
        "title": config.title,
        "caption": config.caption,
        "svg": svg.read_text(encoding="utf-8") if svg.is_file() else None,
        "spec": read_json(spec) if spec.is_file() else None,
    }


def _find_part(part: Mapping[str, str], tables: Mapping[str, Any], figures: Mapping[str, Any]) -> Any:
    ((kind, name),) = part.items()
    return look_up(tables if kind == "table" else figures, name, where=f"{LAYOUT_PATH.name}: {kind}")


def _describe_seeds(findings: Mapping[str, Any]) -> str:
    """How far seeds lie apart, and how that is known."""
    measured = findings["measured_seed_deviations"].get(AVERAGE)
    if measured is None:
        return f"taken to be {findings['seed_standard_deviation']} points a run"
    return f"measured on runs with several: {measured:.1f} points on {AVERAGE}, and so for every measure"


def _describe_finding(finding: Mapping[str, Any]) -> dict[str, Any]:
    signs = {"above": ">", "below": "<", "within": "±"}
    return {
        **finding,
        "effect_text": format_number(finding["effect"], digits=_finding_digits(finding), signed=True),
        "error_text": format_number(finding["standard_error"], digits=_finding_digits(finding)),
        "interval_text": _describe_interval(finding),
        "published_text": format_number(finding["published_effect"], digits=_finding_digits(finding), signed=True),
        "expected_text": f"{signs[finding['expect']]} {format_number(finding['limit'], digits=0)}",
    }


def _describe_interval(finding: Mapping[str, Any]) -> str:
    if finding["low"] is None:
        return ""
    ends = [format_number(finding[end], digits=_finding_digits(finding), signed=True) for end in ("low", "high")]
    return " to ".join(ends)


def _finding_digits(finding: Mapping[str, Any]) -> int:
    """Points have one digit; a correlation two."""
    return 2 if finding["measure"] == CORRELATION else 1


def _list_coverage(tables: Mapping[str, Any], figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of every numbered table and figure of the paper."""
    published, config = read_published(), read_tables_config()
    drawn: dict[str, list[str]] = {}
    for name, figure in figures.items():
        if figure["published"] and figure["svg"]:
            drawn.setdefault(figure["published"], []).append(name)
    lines = []
    for table in published.tables.values():
        if table.number is not None:
            own = tables.get(table.id)
            reproduced, rows = (own["num_reproduced"], len(own["rows"])) if own else (0, 0)
            absent = "not possible" if table.id in config.not_possible else "not attempted"
            lines.append(
                {
                    "what": f"Table {table.number}",
                    "order": [0, table.number],
                    "title": table.title,
                    "anchor": f"table-{table.id}" if own else None,
                    "state": f"{reproduced} of {rows} rows" if own else absent,
                    "why": "" if own else (config.not_possible | config.not_attempted)[table.id],
                }
            )
    for figure in published.figures.values():
        names = drawn.get(figure["id"], [])
        lines.append(
            {
                "what": f"Figure {figure['neurips_number']}",
                "order": [1, figure["neurips_number"]],
                "title": figure["title"],
                "anchor": f"figure-{names[0]}" if names else None,
                "state": "drawn" if names else "not attempted",
                "why": "" if names else config.not_attempted.get(figure["id"], "its data is not there yet"),
            }
        )
    return sorted(lines, key=lambda line: line["order"])


def _list_funnel(data: Path) -> list[dict[str, Any]]:
    """What cleaning kept and dropped, pool by pool."""
    steps = []
    for path in sorted((data / "clean").glob("*/ledger.json")):
        for step in read_json(path)["steps"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(step["dropped"].items()))
            steps.append(
                {"pool": path.parent.name, "step": step["step"], "in": step["in"], "out": step["out"], "why": reasons}
            )
    return steps


def _list_gates(validated: Path) -> list[dict[str, Any]]:
    """What every gate found: of the pools, then of the mixes."""
    gates = []
    for path in [*sorted(validated.glob("pools/*.json")), *sorted(validated.glob("*.json"))]:
        verdict = read_json(path)
        met = sum(outcome["success"] for outcome in verdict["expectations"])
        gates.append(
            {
                "name": f"pool {verdict['pool']}" if "pool" in verdict else verdict["mix"],
                "success": verdict["success"],
                "met": f"{met} of {len(verdict['expectations'])}",
                "records": verdict["records"],
                "images": verdict["images"],
                "leaked": f"{100 * verdict['leakage']['found_share']:.2f}",
            }
        )
    return gates


def _list_runs(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], index: Mapping[str, Any], path: Path
) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        scores = {(line["run"], line["reading"]): line for line in csv.DictReader(file)}
    runs = []
    for name, row in rows["runs"].items():
        adapter = rows["adapters"][row["adapter"]]
        averages = {
            reading: scores[name, reading]["Average"] if (name, reading) in scores else ""
            for reading in ("with_image", "without_image")
        }
        runs.append(
            {
                "name": name,
                "evaluated": index["runs"][name],
                "encoders": [encoder for encoder in row["encoders"] if encoder != "none"],
                "llm": row["llm"],
                "connector": adapter["connector"],
                "adapter": row["adapter"],
                "adapter_mix": adapter["mix"],
                "mix": row["mix"],
                "recipe": row["recipe"],
                "train_encoders": row["train_encoders"],
                "use_images": row["use_images"],
                "seed": row["seed"],
                "commit": index["origins"].get(name, {}).get("commit", ""),
                "artefact": index["origins"].get(name, {}).get("artefact", ""),
                "folder": f"results/{index['scale']}/runs/{name}",
                "tables": index["tables_by_run"].get(name, []),
                **{key: format_number(float(text), digits=1) if text else "" for key, text in averages.items()},
            }
        )
    return runs


def _split_line(line: str) -> list[str]:
    cells = line.strip("|").replace("\\|", "\0").split("|")
    return [_LINK.sub(r"\1", cell).replace("\0", "|").replace("`", "").strip() for cell in cells]
