"""Evaluate: ask a run's model every benchmark item, with and without the image, and score its replies."""

from __future__ import annotations

from pathlib import Path

from cambrian.evaluation.config import EvaluatedRun, EvaluationConfig
from cambrian.evaluation.runner import evaluate_run
from cambrian.evaluation.subjects import OwnModel
from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig, parse_arguments, run_stage


def main() -> None:
    """Evaluate one run."""
    args = parse_arguments(__doc__, run=str, model=Path, backbones=Path, benchmarks=Path, replies=Path, scores=Path)
    files = ParamsFiles()
    evaluate_run(
        OwnModel(args.model, args.backbones),
        benchmarks=args.benchmarks,
        config=files.block("evaluation", EvaluationConfig),
        runtime=files.block("runtime", RuntimeConfig),
        use_images=files.row("runs", args.run, EvaluatedRun).use_images,
        replies_path=args.replies,
        scores_path=args.scores,
        run=args.run,
        scale=files.scale,
    )


if __name__ == "__main__":
    run_stage(main)
