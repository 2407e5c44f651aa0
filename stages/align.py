"""Align: train only the connector, on the adapter data (paper, the first of the two training phases)."""

from __future__ import annotations

from pathlib import Path

from cambrian.models.config import ModelConfig
from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig, parse_arguments, run_stage
from cambrian.training.config import AdapterRow, ConnectorMeaning, LLMMeaning, Recipe, TrainingConfig
from cambrian.training.launch import launch


def main() -> None:
    """Train and write the connector of one row of `adapters`."""
    args = parse_arguments(__doc__, adapter=str, backbones=Path, data=Path, pool=Path, output=Path, metrics=Path)
    files = ParamsFiles()
    row = files.row("adapters", args.adapter, AdapterRow)
    connector = files.meaning("connectors", row.connector, ConnectorMeaning).root
    template = files.meaning("llms", row.llm, LLMMeaning).template
    recipe = files.meaning("recipes", row.recipe, Recipe)
    runtime = files.block("runtime", RuntimeConfig)
    training = files.block("training", TrainingConfig)
    launch(training.launch, "stages.align")

    from cambrian.training.phases import Phase, Places, train_phase  # after the params: importing torch takes seconds

    train_phase(
        Phase(f"adapters.{args.adapter}", frozenset({"connector"}), initial=None, use_images=True, seed=files.seed),
        ModelConfig(encoders=row.encoder_names, connector=connector, llm=row.llm, template=template),
        recipe,
        runtime,
        training,
        Places(args.backbones, args.data, args.pool, args.output, args.metrics, curve=None),
    )


if __name__ == "__main__":
    run_stage(main)
