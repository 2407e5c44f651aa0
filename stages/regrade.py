"""Regrade: a run's stored replies by the paper's rules and by a grader, and on the clean part of the items."""

from __future__ import annotations

from pathlib import Path

from cambrian.evaluation.config import EvaluatedRun, EvaluationConfig
from cambrian.evaluation.readings import GradingBlock, write_readings
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Regrade one run."""
    args = parse_arguments(__doc__, run=str, replies=Path, benchmarks=Path, leakage=Path, output=Path)
    files = ParamsFiles()
    write_readings(
        files.block("grading", GradingBlock),
        files.block("evaluation", EvaluationConfig),
        replies=args.replies,
        benchmarks=args.benchmarks,
        leakage=args.leakage,
        run=args.run,
        use_images=files.row("runs", args.run, EvaluatedRun).use_images,
        scale=files.scale,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
