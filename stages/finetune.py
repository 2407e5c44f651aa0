"""Finetune: train connector and LLM on instruction data (paper, the second of the two training phases)."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig, parse_arguments, run_stage
from cambrian.training.config import LLMMeaning, Recipe, RunRow, TrainingConfig
from cambrian.training.launch import launch


def main() -> None:
    """Train and write the model of one row of `runs`."""
    args = parse_arguments(
        __doc__, run=str, backbones=Path, adapter=Path, data=Path, pool=Path, output=Path, metrics=Path, curve=Path
    )
    files = ParamsFiles()
    row = files.row("runs", args.run, RunRow)
    template = files.meaning("llms", row.llm, LLMMeaning).template
    recipe = files.meaning("recipes", row.recipe, Recipe)
    runtime = files.block("runtime", RuntimeConfig)
    training = files.block("training", TrainingConfig)
    launch(training.launch, "stages.finetune")

    from cambrian.training.phases import Phase, Places, check_adapter, train_phase  # late: torch takes seconds

    train_phase(
        Phase(f"runs.{args.run}", row.trained_parts, initial=args.adapter, use_images=row.use_images, seed=row.seed),
        check_adapter(args.adapter, args.run, row, template),
        recipe,
        runtime,
        training,
        Places(args.backbones, args.data, args.pool, args.output, args.metrics, args.curve),
    )


if __name__ == "__main__":
    run_stage(main)
