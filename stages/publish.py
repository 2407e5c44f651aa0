"""Publish: the report as one HTML page and one PDF."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.report.publish import publish
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Write the report."""
    inputs = ("tables", "figures", "data", "deviations", "forecast", "actual", "difference", "output")
    args = parse_arguments(__doc__, **dict.fromkeys(inputs, Path))
    files = ParamsFiles()
    publish(
        rows={
            "runs": files.rows("runs"),
            "adapters": files.rows("adapters"),
        },
        scale=files.scale,
        tables=args.tables,
        figures=args.figures,
        data=args.data,
        deviations=args.deviations,
        forecast=args.forecast,
        actual=args.actual,
        difference=args.difference,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
