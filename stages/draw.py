"""Draw: the figures, as rows, as Vega-Lite for the report and for `dvc plots`, and as pictures."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.report.config import BackboneMeaning
from cambrian.report.diagrams import ConnectorFacts
from cambrian.report.draw import draw
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Draw all figures."""
    args = parse_arguments(__doc__, results=Path, analyses=Path, data=Path, output=Path)
    files = ParamsFiles()
    rows = {"runs": files.rows("runs"), "adapters": files.rows("adapters")}
    connectors = {row["connector"] for row in rows["adapters"].values()}
    backbones = {name for row in rows["runs"].values() for name in [*row["encoders"], row["llm"]]}
    draw(
        rows=rows,
        samples_per_record=files.count("samples_per_record"),
        scale=files.scale,
        results=args.results,
        analyses=args.analyses,
        data=args.data,
        connectors={name: files.meaning("connectors", name, ConnectorFacts) for name in sorted(connectors)},
        backbones={name: files.meaning("backbones", name, BackboneMeaning) for name in sorted(backbones)},
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
