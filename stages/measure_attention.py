"""Measure attention: the share that a run's aggregators give to each encoder (paper, NeurIPS table 22)."""

from __future__ import annotations

from pathlib import Path

from cambrian.evaluation.attending import measure_attention
from cambrian.evaluation.config import AttentionConfig, EvaluationConfig
from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig, parse_arguments, run_stage


def main() -> None:
    """Measure one run."""
    args = parse_arguments(__doc__, run=str, model=Path, backbones=Path, benchmarks=Path, output=Path)
    files = ParamsFiles()
    measure_attention(
        files.block("attention", AttentionConfig),
        files.block("evaluation", EvaluationConfig).prompts,
        model=args.model,
        backbones=args.backbones,
        benchmarks=args.benchmarks,
        runtime=files.block("runtime", RuntimeConfig),
        run=args.run,
        scale=files.scale,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
