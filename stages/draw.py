"""Draw: the figures, as rows, as Vega-Lite for the report and for `dvc plots`, and as pictures."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.report.draw import draw
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Draw all figures."""
    args = parse_arguments(__doc__, results=Path, data=Path, output=Path)
    files = ParamsFiles()
    draw(
        runs=list(files.rows("runs")),
        samples_per_record=files.count("samples_per_record"),
        scale=files.scale,
        results=args.results,
        data=args.data,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
