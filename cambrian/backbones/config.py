"""What a backbone's name can mean: an empty slot, something trained here, or a checkpoint from elsewhere."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from cambrian.backbones.objectives.config import ObjectiveConfig
from cambrian.backbones.optimization import OptimizationConfig
from cambrian.models.encoders import EncoderSpec
from cambrian.params import Params


class NoBackbone(Params):
    """An empty slot among a run's encoders: a folder with only its manifest."""

    kind: Literal["none"]


class LanguageModelShape(Params):
    """A Llama-like LLM (transformers' LlamaForCausalLM)."""

    hidden_dim: int = Field(gt=0)
    num_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    feed_forward_dim: int = Field(gt=0)
    max_num_tokens: int = Field(gt=0)
    """The longest sequence that the checkpoint declares itself made for."""
    rope_theta: float = Field(gt=0)
    initializer_range: float = Field(gt=0)
    """Standard deviation of every initial weight."""
    query_key_std: float = Field(gt=0)
    """Standard deviation of the initial query and key projections, which start equal: attention then begins as
    likeness, a word finds the position that holds it, and retrieval forms within a few hundred steps. Ours."""
    value_output_std: float = Field(gt=0)
    """Standard deviation of the initial value projections; the output projections start as their transpose, so that
    attention begins by copying what it finds. Ours, as above."""
    tie_embeddings: bool


class TrainedLanguageModel(Params):
    """An LLM pretrained here on the text of the corpora, from nothing."""

    kind: Literal["trained-language-model"]
    shape: LanguageModelShape
    reading_share: float = Field(ge=0, le=1)
    """Share of the documents on which the loss is on every word; on the others only on what the assistant says."""
    optimization: OptimizationConfig


class TrainedEncoder(Params):
    """A vision encoder trained here on the images of the corpora, from nothing.

    `architecture` and `model_args` are `timm.create_model`'s: the name of the published architecture, and what makes it
    small.
    """

    kind: Literal["trained-encoder"]
    architecture: str
    model_args: dict[str, Any]
    spec: EncoderSpec
    objective: ObjectiveConfig


class HubSource(Params):
    """A repository of the model hub at one commit."""

    kind: Literal["hub"]
    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """A full commit id: a branch or a tag can move."""


class FolderSource(Params):
    """A folder on this machine, in the same layout."""

    kind: Literal["folder"]
    path: str


SourceConfig = Annotated[HubSource | FolderSource, Field(discriminator="kind")]


class PretrainedEncoder(Params):
    """A published vision encoder, in timm's layout (`config.json` and `model.safetensors`)."""

    kind: Literal["pretrained-encoder"]
    source: SourceConfig
    model_args: dict[str, Any]
    """What is changed about the published model (`num_classes: 0`, another `img_size`)."""
    spec: EncoderSpec


class PublishedSource(Params):
    """Where the row says, at the revision that it pins."""

    kind: Literal["published"]


class RandomSource(Params):
    """Nowhere: fresh weights from the seed."""

    kind: Literal["random"]


class PublishedEncoder(Params):
    """A vision encoder of the paper: a row of cambrian/release/encoders.yaml, in its publisher's own layout."""

    kind: Literal["published-encoder"]
    row: str
    side: int | None = Field(gt=0)
    """Pixels of the images' side; null is the row's."""
    source: Annotated[PublishedSource | RandomSource | HubSource | FolderSource, Field(discriminator="kind")]
    dtype: Literal["float32", "bfloat16", "float16"]
    """What the weights are stored as."""


class PretrainedLanguageModel(Params):
    """A published LLM, in transformers' layout."""

    kind: Literal["pretrained-language-model"]
    source: SourceConfig
    dtype: Literal["float32", "bfloat16", "float16"]
    """What the weights are stored as."""


class PublishedLanguageModel(Params):
    """An LLM of the paper, or a small one: a row of cambrian/release/language_models.yaml."""

    kind: Literal["published-language-model"]
    row: str
    source: Annotated[PublishedSource | HubSource | FolderSource, Field(discriminator="kind")]
    dtype: Literal["float32", "bfloat16", "float16"]
    """What the weights are stored as."""


class BackboneConfig(
    pydantic.RootModel[
        Annotated[
            NoBackbone
            | TrainedLanguageModel
            | TrainedEncoder
            | PretrainedEncoder
            | PublishedEncoder
            | PretrainedLanguageModel
            | PublishedLanguageModel,
            Field(discriminator="kind"),
        ]
    ]
):
    """One entry of `backbones` in scales/<scale>.yaml."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)
