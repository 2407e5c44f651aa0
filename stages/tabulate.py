"""Tabulate: every table of the paper with three faces, and a verdict for each of its claims."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.report.config import BackboneMeaning, ReportConfig, read_tables_config
from cambrian.report.tabulate import tabulate
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Tabulate the results of all runs."""
    args = parse_arguments(__doc__, results=Path, data=Path, output=Path)
    files = ParamsFiles()
    tabulate(
        files.block("report", ReportConfig),
        runs=list(files.rows("runs")),
        backbones={
            row.backbone: files.meaning("backbones", row.backbone, BackboneMeaning)
            for row in read_tables_config().backbones
        },
        samples_per_record=files.count("samples_per_record"),
        scale=files.scale,
        results=args.results,
        data=args.data,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
