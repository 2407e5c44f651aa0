"""The params of the two training phases: rows of adapters and of runs, and recipes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, RootModel, field_validator, model_validator

from cambrian.data.loading import LoadingConfig  # pydantic reads it
from cambrian.models.config import ConnectorConfig  # pydantic reads it
from cambrian.params import Params
from cambrian.release.templates import find_template

EMPTY_SLOT = "none"
"""Stands in a row's `encoders` where there is no encoder."""


class AdamWConfig(Params):
    """AdamW for everything that trains."""

    kind: Literal["adamw"]
    beta1: float = Field(ge=0, lt=1)
    beta2: float = Field(ge=0, lt=1)
    epsilon: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    """On matrices and convolutions; norms, biases and embeddings have none."""
    max_gradient_norm: float = Field(gt=0)


class MuonAdamWConfig(AdamWConfig):
    """Muon for matrices between hidden layers, AdamW for embeddings, head, norms, biases and convolutions."""

    kind: Literal["muon-adamw"]  # type: ignore[assignment]  # the tag of the other member of the union
    momentum: float = Field(ge=0, lt=1)
    """Muon's, with Nesterov's correction."""
    matrix_scale: Literal["original", "match_rms_adamw"]
    """What Muon's rate is multiplied by for a matrix of A x B: `original` sqrt(max(1, A / B)); `match_rms_adamw`
    0.2 sqrt(max(A, B)), which moves a matrix about as far as AdamW would at this rate.
    """
    adamw_ratio: float = Field(gt=0)
    """AdamW's learning rate over Muon's: the rates of `learning_rates` are Muon's."""


OptimizerConfig = Annotated[AdamWConfig | MuonAdamWConfig, Field(discriminator="kind")]


class LearningRates(Params):
    """The highest learning rate of each part, reached at the end of the warm-up; only trained parts use theirs."""

    connector: float = Field(ge=0)
    """Projections, and what else is in the connector beside its aggregators."""
    aggregators: float = Field(ge=0)
    """Spatial vision aggregators, in the connector and inside the LLM, with their queries (the release has a rate for
    them); they learn when the connector does.
    """
    llm: float = Field(ge=0)
    encoders: float = Field(ge=0)


class CheckpointsConfig(Params):
    """Where and how often a phase under way is saved; changes no result."""

    folder: str
    """Outside the pipeline's outputs; machines that may take over from each other share it."""
    every_steps: int = Field(gt=0)
    num_kept: int = Field(gt=0)
    """The newest ones; a damaged one is passed over for the one before it."""


class Recipe(Params):
    """How a phase trains."""

    epochs: int = Field(gt=0)
    global_batch_size: int = Field(gt=0)
    """Conversations of one step."""
    micro_batch_size: int = Field(gt=0)
    """Conversations that are in memory at once; gradients of a step are those of its whole batch."""
    max_length: int = Field(gt=0)
    """Positions of one conversation, image included; what lies beyond is cut and counted."""
    schedule: Literal["cosine", "linear"]
    """How the rate falls to zero after the warm-up."""
    warmup_ratio: float = Field(ge=0, lt=1)
    optimizer: OptimizerConfig
    learning_rates: LearningRates
    """Those of a batch of `rates_for_batch_size`."""
    rates_for_batch_size: int = Field(gt=0)
    """The batch that the rates were published for. For another one they are scaled with the root of the ratio.

    Source: release, README.
    """
    max_unusable_share: float = Field(ge=0, lt=1)
    """Share of the records that may be left out, because they cannot be decoded or encoded, before the run fails."""
    image_cache_mib: int = Field(ge=0)
    """Memory for images that are decoded and resized once instead of every epoch; does not change results."""
    feature_cache_mib: int = Field(ge=0)
    """Memory for feature maps of frozen encoders, computed at an image's first use instead of every epoch; 0 encodes
    every time. Pays where a phase has several epochs.
    """
    checkpoints: CheckpointsConfig

    @property
    def highest_rates(self) -> LearningRates:
        """The learning rates for this recipe's batch."""
        factor = math.sqrt(self.global_batch_size / self.rates_for_batch_size)
        return LearningRates(**{part: rate * factor for part, rate in self.learning_rates.model_dump().items()})

    @model_validator(mode="after")
    def _check_batch(self) -> Recipe:
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} does not divide into micro batches of "
                f"{self.micro_batch_size}"
            )
        return self


class LocalEngineConfig(Params):
    """One process, one device, float32."""

    kind: Literal["local"]
    recompute_activations: bool
    """Keep only each LLM layer's input for the backward pass and compute the rest again: less memory, a third more
    time, equal results.
    """


class DeepSpeedEngineConfig(Params):
    """Any number of processes under DeepSpeed; the LLM and the optimizer's state are divided among them."""

    kind: Literal["deepspeed"]
    recompute_activations: bool
    """As for the local engine."""
    zero_stage: int = Field(ge=0, le=3)
    """What is divided: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 parameters too."""
    precision: Literal["float32", "bfloat16"]
    """Of weights and activations; the optimizer's own weights, sums of gradients and moments are float32."""
    offload: Literal["none", "optimizer", "optimizer-and-parameters"]
    """What lies in the processor's memory instead of the device's."""
    adam: Literal["torch", "deepspeed-cpu"]
    """Whose AdamW computes the step. DeepSpeed's is many times faster where the optimizer is offloaded; it is compiled
    at its first start, which needs a C++ compiler.
    """
    persistent_elements: int = Field(ge=0)
    """At ZeRO stage 3, parameters of the LLM with at most so many elements stay whole on every process."""

    @model_validator(mode="after")
    def _check_stage(self) -> DeepSpeedEngineConfig:
        needed = {"none": 0, "optimizer": 1, "optimizer-and-parameters": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(f"offload {self.offload!r} needs zero_stage {needed} or more, found {self.zero_stage}")
        if self.precision == "bfloat16" and self.zero_stage == 0:
            raise ValueError("precision 'bfloat16' needs zero_stage 1 or more, which keeps float32 weights beside")
        if self.adam == "deepspeed-cpu" and self.offload == "none":
            raise ValueError("adam 'deepspeed-cpu' needs an offload: it computes where the optimizer's state lies")
        return self


class NoBoardConfig(Params):
    """No curves; the log has the numbers."""

    kind: Literal["none"]


class DVCLiveConfig(Params):
    """DVCLive: tables that `dvc plots` shows."""

    kind: Literal["dvclive"]
    folder: str
    """A folder of each phase is made in it."""


class TensorBoardConfig(Params):
    """TensorBoard, where it is installed."""

    kind: Literal["tensorboard"]
    folder: str


class WandbConfig(Params):
    """Weights & Biases, where it is installed and its key is in the environment."""

    kind: Literal["wandb"]
    project: str


class WatchConfig(Params):
    """What is said about a training under way; changes no result."""

    every_steps: int = Field(gt=0)
    peak_tflops: float | None = Field(gt=0)
    """Of one device, dense, at the engine's precision, which utilisation is measured against; null where unknown."""
    board: Annotated[NoBoardConfig | DVCLiveConfig | TensorBoardConfig | WandbConfig, Field(discriminator="kind")]


class TrainingConfig(Params):
    """How the training stages compute; what it changes in a result is rounding."""

    launch: list[str] = Field(min_length=1)
    """The command before a stage's name: `[python, -m]` for one process, or a launcher of many that ends on a module's
    name, as `[torchrun, --nproc-per-node, "8", -m]` or
    `[deepspeed, --no_local_rank, --hostfile, hosts, --module]`.
    """
    engine: Annotated[LocalEngineConfig | DeepSpeedEngineConfig, Field(discriminator="kind")]
    watch: WatchConfig
    loading: LoadingConfig
    """Where samples come from, and how far ahead they are made."""

    @field_validator("launch")
    @classmethod
    def _check_launch(cls, launch: list[str]) -> list[str]:
        if Path(launch[0]).name == "deepspeed" and "--no_local_rank" not in launch:
            raise ValueError(
                f"{launch} would start stages with a --local_rank that they do not take (they read the environment): "
                "write [deepspeed, --no_local_rank, ..., --module]"
            )
        return launch


class VisionRow(Params):
    """What rows of adapters and of runs share."""

    encoders: list[str]
    """Names of backbones in order; `none` is an empty slot."""
    llm: str

    @property
    def encoder_names(self) -> tuple[str, ...]:
        """The encoders without the empty slots."""
        return tuple(name for name in self.encoders if name != EMPTY_SLOT)

    @model_validator(mode="after")
    def _check_encoders(self) -> VisionRow:
        if not self.encoder_names:
            raise ValueError("all slots of encoders are empty, expected at least one encoder")
        return self


class AdapterRow(VisionRow):
    """A row of `adapters`: the first phase, in which only the connector trains."""

    connector: str
    mix: str
    recipe: str


class RunRow(VisionRow):
    """A row of `runs`: the second phase, in which connector and LLM train."""

    adapter: str
    mix: str
    recipe: str
    train_encoders: bool
    use_images: bool
    """False trains without images: the same conversations, blind."""
    seed: int = Field(ge=0)

    @property
    def trained_parts(self) -> frozenset[str]:
        """Parts that learn in this run."""
        return frozenset({"connector", "llm", "encoders"} if self.train_encoders else {"connector", "llm"})


class LLMMeaning(Params):
    """What a scale says about an LLM beside its backbone."""

    template: str
    """A conversation template (cambrian/release/templates.py)."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, name: str) -> str:
        find_template(name)
        return name


class ConnectorMeaning(RootModel[ConnectorConfig]):
    """What a scale says about a connector: one of the kinds of cambrian/models/config.py."""
