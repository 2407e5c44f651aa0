"""The params of the two training phases: rows of adapters and of runs, and recipes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, RootModel, field_validator, model_validator

from cambrian.data.conversation import find_template
from cambrian.models.config import ConnectorConfig  # pydantic reads it
from cambrian.params import Params

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
    """The highest learning rate of each part, reached at the end of the warm-up; only trained parts use theirs.

    The connector's part includes its aggregators inside the LLM.
    """

    connector: float = Field(ge=0)
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
    max_unusable_share: float = Field(ge=0, lt=1)
    """Share of the records that may be left out, because they cannot be decoded or encoded, before the run fails."""
    image_cache_mib: int = Field(ge=0)
    """Memory for images that are decoded and resized once instead of every epoch; does not change results."""
    feature_cache_mib: int = Field(ge=0)
    """Memory for feature maps of frozen encoders, computed at an image's first use instead of every epoch; 0 encodes
    every time. Pays where a phase has several epochs.
    """
    checkpoints: CheckpointsConfig

    @model_validator(mode="after")
    def _check_batch(self) -> Recipe:
        if self.global_batch_size % self.micro_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} does not divide into micro batches of "
                f"{self.micro_batch_size}"
            )
        return self


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
    """A conversation template (cambrian/data/conversation.py)."""

    @field_validator("template")
    @classmethod
    def _check_template(cls, name: str) -> str:
        find_template(name)
        return name


class ConnectorMeaning(RootModel[ConnectorConfig]):
    """What a scale says about a connector: one of the kinds of cambrian/models/config.py."""
