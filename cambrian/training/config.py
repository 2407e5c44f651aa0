"""The params of the two training phases: rows of adapters and of runs, and recipes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cambrian.params import Params

EMPTY_SLOT = "none"
"""Stands in a row's `encoders` where there is no encoder."""

PARTS = ("connector", "llm", "encoders")
"""What a learning rate is given to; the connector's part includes its aggregators inside the LLM."""


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
    adamw_ratio: float = Field(gt=0)
    """AdamW's learning rate over Muon's: a part's rate is Muon's, since the two are not on one scale."""


OptimizerConfig = Annotated[AdamWConfig | MuonAdamWConfig, Field(discriminator="kind")]


class LearningRates(Params):
    """The highest learning rate of each part, reached at the end of the warm-up; only trained parts use theirs."""

    connector: float = Field(ge=0)
    llm: float = Field(ge=0)
    encoders: float = Field(ge=0)


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


class LLMMeaning(Params):
    """What a scale says about an LLM beside its backbone."""

    template: str
    """A conversation template (cambrian/data/conversation.py)."""
