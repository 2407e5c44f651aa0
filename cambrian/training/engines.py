"""The engine that a scale's params name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian.interfaces import ParamsError
from cambrian.training.config import LocalEngineConfig, MuonAdamWConfig
from cambrian.training.engine import LocalEngine
from cambrian.training.optimizer import build_optimizers

if TYPE_CHECKING:
    import torch

    from cambrian.models.multimodal import MultimodalModel
    from cambrian.models.tensor_files import TensorFile
    from cambrian.training.config import DeepSpeedEngineConfig, Recipe
    from cambrian.training.engine import Engine
    from cambrian.training.processes import Processes


def check_processes(config: LocalEngineConfig | DeepSpeedEngineConfig, recipe: Recipe, processes: Processes) -> None:
    """Find out, before anything is read, whether this engine can train this recipe in so many processes.

    Raises:
        ParamsError: it cannot; says what to change.
    """
    if isinstance(config, LocalEngineConfig):
        if processes.count > 1:
            raise ParamsError(
                f"training.engine is local and {processes.count} processes were started, each of which would train a "
                "model of its own: choose {kind: deepspeed, ...}, or start one process"
            )
        return
    if isinstance(recipe.optimizer, MuonAdamWConfig):
        raise ParamsError(
            "training.engine is deepspeed and the recipe's optimizer is muon-adamw, whose matrices it would cut in "
            "pieces: choose {kind: adamw, ...} in the recipe, or the local engine"
        )
    count_accumulation_steps(recipe, processes.count)


def count_accumulation_steps(recipe: Recipe, num_processes: int) -> int:
    """Micro batches of one process in a step: what follows from the global batch and the number of processes.

    Raises:
        ParamsError: the global batch does not divide.
    """
    at_once = recipe.micro_batch_size * num_processes
    if recipe.global_batch_size % at_once:
        raise ParamsError(
            f"the recipe's global_batch_size {recipe.global_batch_size} does not divide among {num_processes} "
            f"processes with a micro_batch_size of {recipe.micro_batch_size}: choose a multiple of {at_once}, a "
            "smaller micro_batch_size, or another number of processes"
        )
    return recipe.global_batch_size // at_once


def divides_llm(config: LocalEngineConfig | DeepSpeedEngineConfig) -> bool:
    """Whether no process needs the whole LLM in its memory: it is built as an outline, and filled part by part."""
    return not isinstance(config, LocalEngineConfig) and config.zero_stage == 3


def build_engine(
    config: LocalEngineConfig | DeepSpeedEngineConfig,
    model: MultimodalModel,
    recipe: Recipe,
    *,
    processes: Processes,
    device: torch.device,
    llm_weights: TensorFile | None = None,
) -> Engine:
    """Make the engine of a model that is on its device, with the parts that learn set.

    Where the LLM is an outline (`outline_model`), `llm_weights` has its values, and the engine divides it
    (`divides_llm`).

    Raises:
        ParamsError: a part is to be trained at a rate of 0, or DeepSpeed is not installed.
    """
    optimizers = build_optimizers(
        model, model.parts(), recipe.optimizer, recipe.highest_rates, aggregators=model.aggregator_parameters()
    )
    if config.recompute_activations:
        model.recompute_activations()
    if isinstance(config, LocalEngineConfig):
        return LocalEngine(
            model,
            {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad},
            optimizers,
            max_gradient_norm=recipe.optimizer.max_gradient_norm,
            device=device,
        )
    from cambrian.training.deepspeed_engine import DeepSpeedEngine  # importing DeepSpeed takes seconds

    (adamw,) = optimizers
    return DeepSpeedEngine(
        model,
        adamw.param_groups,
        config,
        recipe,
        num_accumulation_steps=count_accumulation_steps(recipe, processes.count),
        processes=processes,
        device=device,
        llm_weights=llm_weights,
    )
