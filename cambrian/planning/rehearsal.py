"""Every phase of an experiment built without memory: parameters, optimizer groups, tokens, steps and operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cambrian.interfaces import ParamsError
from cambrian.planning.flops import NOTHING, Cost, count_connector, count_encoder, count_llm
from cambrian.planning.meta import MetaModels
from cambrian.training.config import LocalEngineConfig, MuonAdamWConfig
from cambrian.training.deepspeed_engine import deepspeed_config
from cambrian.training.engines import count_accumulation_steps
from cambrian.training.optimizer import build_optimizers
from cambrian.training.sampler import count_steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.models.config import ModelConfig
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.planning.experiment import Experiment, PhasePlan

CAUSAL_SHARE = 0.5
"""Of an attention matrix: GPU kernels skip what the causal mask hides."""


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """One group of an optimizer."""

    optimizer: str
    name: str
    parameters: int
    rate: float
    weight_decay: float


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model is, whatever it is trained on."""

    parameters: dict[str, int]
    """By part."""
    num_image_positions: int
    vocabulary: int
    max_positions: int
    """The longest sequence that the LLM declares itself made for."""
    num_layers: int
    hidden_dim: int


@dataclass(frozen=True, slots=True)
class Amount:
    """What a phase goes through, over all epochs."""

    samples: int
    """Conversations."""
    images: float
    tokens: float
    """Positions of the LLM: text and visible cells."""
    squares: float
    """The sum of the squares of the samples' tokens, which attention grows with."""
    labels: float
    """Tokens that the loss is on."""


@dataclass(frozen=True, slots=True)
class PhaseFacts:
    """What training one row means; costs are those of all epochs."""

    plan: PhasePlan
    model: ModelFacts
    trained: dict[str, int]
    """Parameters that learn, by part."""
    groups: tuple[GroupFacts, ...]
    steps: int
    engine: str
    """What matters of the engine's configuration for this recipe."""
    amount: Amount
    encoders: Cost
    connector: Cost
    llm: Cost

    @property
    def flops(self) -> float:
        """Operations of the whole phase that the model needs; nothing is counted for activations computed again."""
        return self.encoders.flops + self.connector.flops + self.llm.flops


class Rehearsal:
    """Rehearses phases; models that are alike are built once."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._models = MetaModels(experiment)
        self._built: dict[str, MultimodalModel] = {}
        self._facts: dict[str, ModelFacts] = {}
        self._encoder_costs: dict[tuple[str, bool], Cost] = {}
        self._connector_costs: dict[tuple[str, bool], Cost] = {}

    def rehearse(self, plan: PhasePlan) -> PhaseFacts:
        """Build the phase's model and its optimizers, and count what its training takes.

        Raises:
            ParamsError: the model cannot be built, a learning rate is missing, or samples do not fit the LLM.
        """
        model, recipe = self._build(plan.model), plan.recipe
        facts = self._facts[_key(plan.model)]
        _check_lengths(plan, facts)
        engine = describe_engine(plan, self._experiment)
        model.set_trainable(set(plan.trained))
        parts = model.parts()
        amount = self._amount(plan, facts)
        learns = "encoders" in plan.trained
        is_encoded_once = recipe.feature_cache_mib > 0 and not learns
        return PhaseFacts(
            plan=plan,
            model=facts,
            trained={part: sum(p.numel() for p in members if p.requires_grad) for part, members in parts.items()},
            groups=_list_groups(
                build_optimizers(
                    model, parts, recipe.optimizer, recipe.highest_rates, aggregators=model.aggregator_parameters()
                )
            ),
            steps=count_steps(plan.num_records, recipe.global_batch_size, recipe.epochs),
            engine=engine,
            amount=amount,
            encoders=self._cost_of_encoders(plan.model, learns=learns)
            * (amount.images / recipe.epochs if is_encoded_once else amount.images),
            connector=self._cost_of_connector(plan.model, model, learns=learns) * amount.images,
            llm=count_llm(model.llm, learns="llm" in plan.trained).cost(
                tokens=amount.tokens, squares=amount.squares, labels=amount.labels, causal_share=CAUSAL_SHARE
            ),
        )

    def _amount(self, plan: PhasePlan, facts: ModelFacts) -> Amount:
        about = self._experiment.forecast.samples[plan.pool]
        samples = plan.num_records * plan.recipe.epochs
        image_share = about.image_share if plan.use_images else 0.0
        length = about.text_tokens + facts.num_image_positions * about.visible_share * image_share
        length = min(length, float(plan.recipe.max_length))
        return Amount(
            samples=samples,
            images=samples * image_share,
            tokens=samples * length,
            squares=samples * length**2 * (1 + about.variation**2),
            labels=samples * about.text_tokens * about.labelled_share,
        )

    def _build(self, config: ModelConfig) -> MultimodalModel:
        key = _key(config)
        if key not in self._built:
            model = self._models.build(config)
            self._built[key] = model
            self._facts[key] = _describe(model)
        return self._built[key]

    def _cost_of_encoders(self, config: ModelConfig, *, learns: bool) -> Cost:
        total = NOTHING
        for name in config.encoders:
            if (name, learns) not in self._encoder_costs:
                self._encoder_costs[name, learns] = count_encoder(self._models.encoder(name), learns=learns)
            total += self._encoder_costs[name, learns]
        return total

    def _cost_of_connector(self, config: ModelConfig, model: MultimodalModel, *, learns: bool) -> Cost:
        key = (_key(config), learns)
        if key not in self._connector_costs:
            self._connector_costs[key] = count_connector(model, encoders_learn=learns)
        return self._connector_costs[key]


def _key(config: ModelConfig) -> str:
    return config.model_dump_json(exclude={"template"})


def _describe(model: MultimodalModel) -> ModelFacts:
    parts = model.parts()
    config = model.llm.config
    return ModelFacts(
        parameters={part: sum(parameter.numel() for parameter in members) for part, members in parts.items()},
        num_image_positions=model.num_image_positions,
        vocabulary=config.vocab_size,
        max_positions=config.max_position_embeddings,
        num_layers=config.num_hidden_layers,
        hidden_dim=config.hidden_size,
    )


def describe_engine(plan: PhasePlan, experiment: Experiment) -> str:
    """Make the engine's configuration for a phase, as the training stage will, and say what matters of it.

    Raises:
        ParamsError: the engine cannot train this recipe on so many devices.
    """
    engine, num_devices = experiment.training.engine, experiment.forecast.hardware.num_devices
    if isinstance(engine, LocalEngineConfig):
        return f"local, recomputes {engine.recompute_activations}"
    if isinstance(plan.recipe.optimizer, MuonAdamWConfig):
        raise ParamsError(
            f"{plan.key}: its recipe's optimizer is muon-adamw, which training.engine deepspeed cannot cut"
        )
    try:
        steps = count_accumulation_steps(plan.recipe, num_devices)
    except ParamsError as error:
        raise ParamsError(f"{plan.key}: {error}") from error
    values = deepspeed_config(engine, plan.recipe, steps, torch.device(experiment.runtime.device))
    return f"deepspeed stage {values['zero_optimization']['stage']}, {engine.precision}, {steps} steps of gradients"


def _list_groups(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[GroupFacts, ...]:
    return tuple(
        GroupFacts(
            optimizer=type(optimizer).__name__,
            name=group["name"],
            parameters=sum(parameter.numel() for parameter in group["params"]),
            rate=group["highest_rate"],
            weight_decay=group["weight_decay"],
        )
        for optimizer in optimizers
        for group in optimizer.param_groups
    )


def _check_lengths(plan: PhasePlan, facts: ModelFacts) -> None:
    if plan.recipe.max_length > facts.max_positions:
        raise ParamsError(
            f"{plan.key}: its recipe's max_length is {plan.recipe.max_length}, the LLM {plan.model.llm} was made for "
            f"{facts.max_positions} positions: lower max_length, or choose another LLM"
        )
    if plan.use_images and plan.recipe.max_length <= facts.num_image_positions:
        raise ParamsError(
            f"{plan.key}: its recipe's max_length is {plan.recipe.max_length}, and an image alone fills "
            f"{facts.num_image_positions} positions: raise max_length"
        )
