"""What each kind of supervision of a vision encoder needs to be told."""

from typing import Annotated, Literal

from pydantic import Field

from cambrian.backbones.optimization import OptimizationConfig
from cambrian.params import Params


class NoObjectiveConfig(Params):
    """No training at all: random weights, the floor."""

    kind: Literal["none"]


class LanguageContrastiveConfig(Params):
    """An image's embedding shall meet its caption's and no other's (CLIP, SigLIP)."""

    kind: Literal["language-contrastive"]
    loss: Literal["softmax", "sigmoid"]
    """`softmax` over the batch is CLIP's and OpenCLIP's, `sigmoid` per pair SigLIP's."""
    embedding_dim: int = Field(gt=0)
    text_num_layers: int = Field(gt=0)
    text_num_heads: int = Field(gt=0)
    one_kind_share: float = Field(ge=0, le=1)
    """Share of the batches whose images are all of one kind, so that telling the kinds apart is not enough."""
    optimization: OptimizationConfig


class TwoViewConfig(Params):
    """Two crops of one image shall be told from all others', as wholes and point by point (for DINOv2)."""

    kind: Literal["two-view"]
    projection_dim: int = Field(gt=0)
    temperature: float = Field(gt=0)
    min_crop_side: float = Field(gt=0, le=1)
    """Shortest side of a crop over the image's."""
    max_colour_change: float = Field(ge=0)
    """Half the range of a view's random brightness and contrast."""
    num_points: int = Field(gt=0)
    """Points per image, inside both crops, at which the two feature maps are compared."""
    point_weight: float = Field(ge=0)
    """Weight of the comparison of points; that of whole images has 1."""
    optimization: OptimizationConfig


class MaskedAutoencoderConfig(Params):
    """Pixels of hidden patches from the visible ones (MAE)."""

    kind: Literal["masked-autoencoder"]
    masked_share: float = Field(gt=0, lt=1)
    decoder_dim: int = Field(gt=0)
    decoder_num_layers: int = Field(gt=0)
    decoder_num_heads: int = Field(gt=0)
    optimization: OptimizationConfig


class JointEmbeddingConfig(Params):
    """A slow copy's features of hidden blocks from the visible rest (I-JEPA)."""

    kind: Literal["joint-embedding"]
    num_blocks: int = Field(gt=0)
    min_block_side: int = Field(gt=0)
    """In patches."""
    max_block_side: int = Field(gt=0)
    predictor_dim: int = Field(gt=0)
    predictor_num_layers: int = Field(gt=0)
    predictor_num_heads: int = Field(gt=0)
    momentum: float = Field(gt=0, lt=1)
    """How much of itself the slow copy keeps in a step."""
    optimization: OptimizationConfig


class SegmentationConfig(Params):
    """The class of every pixel (SAM)."""

    kind: Literal["segmentation"]
    target_stride: int = Field(gt=0)
    """Every so many pixels along each axis the class is asked for."""
    optimization: OptimizationConfig


class DepthConfig(Params):
    """The inverse depth of every pixel (MiDaS)."""

    kind: Literal["depth"]
    target_stride: int = Field(gt=0)
    optimization: OptimizationConfig


class ClassLabelsConfig(Params):
    """Which classes an image shows (a supervised ViT)."""

    kind: Literal["class-labels"]
    optimization: OptimizationConfig


class DiffusionConfig(Params):
    """The clean image from a noisy one, at all noise levels (Stable Diffusion)."""

    kind: Literal["diffusion"]
    max_noise: float = Field(gt=0, le=1)
    """Highest share of noise in an image's variance; the lowest is 0."""
    optimization: OptimizationConfig


ObjectiveConfig = Annotated[
    NoObjectiveConfig
    | LanguageContrastiveConfig
    | TwoViewConfig
    | MaskedAutoencoderConfig
    | JointEmbeddingConfig
    | SegmentationConfig
    | DepthConfig
    | ClassLabelsConfig
    | DiffusionConfig,
    Field(discriminator="kind"),
]
