"""Build an analysis set: labelled pictures to probe encoders on, or dialogues to hold with models."""

from __future__ import annotations

from pathlib import Path

from cambrian.data.analysis_sets import AnalysisSet, write_analysis_set
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Build one set."""
    args = parse_arguments(__doc__, name=str, output=Path)
    files = ParamsFiles()
    write_analysis_set(
        files.meaning("analysis_sets", args.name, AnalysisSet), name=args.name, seed=files.seed, output=args.output
    )


if __name__ == "__main__":
    run_stage(main)
