"""What a model is made of: encoders and an LLM by name, and one of the connectors."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from cambrian.params import Params

EMPTY_SLOT = "none"
"""Stands where a run's row has no encoder (rows have four slots, so that one stage definition fits all)."""


def filled_slots(encoders: Sequence[str]) -> tuple[str, ...]:
    """Return the encoders of a row without its empty slots."""
    return tuple(name for name in encoders if name != EMPTY_SLOT)


class Layout(Params):
    """How visual tokens stand in the LLM's sequence; every connector has these values."""

    position_rms: float | None = Field(gt=0)
    """Root mean square at the start of one learned vector per visual token; null adds none, as the paper and the
    release, which rely on the encoders.
    """
    output_rms: float | None = Field(gt=0)
    """Root mean square of a visual token at the start, set by a LayerNorm on each; null has no norm, as the paper and
    the release.
    """


class GridLayout(Layout):
    """A layout of visual tokens that form a square grid over the padded image."""

    side: int = Field(gt=0)
    """Visual tokens per side of the grid (24 in the paper)."""
    newline: bool
    """Whether one learned vector closes each row of the grid (it does in the release)."""
    hide_padding: bool
    """Whether tokens that lie in the square's padding are masked from the LLM (they are in the release)."""


class MLPConfig(GridLayout):
    """Every encoder's map on one grid, joined along channels, through a two-layer MLP.

    Source: the paper's studies of single encoders and of ensembles; also its "Concat" and "Interpolate" connectors.
    """

    kind: Literal["mlp"]
    delivery: Literal["unshuffle", "interpolate"]
    """How a map comes to the grid: `interpolate` is the paper's; `unshuffle` (space to depth) drops nothing."""
    hidden_ratio: float = Field(gt=0)
    """Width of the MLP's hidden layer over the LLM's width (1 in the release)."""


class ProjectorConfig(GridLayout):
    """Every encoder's map interpolated to one grid, joined along channels, through linear layers of the LLM's width.

    Source: LLaVA; release, projector types `linear` and `mlp{n}x_gelu`.
    """

    kind: Literal["projector"]
    num_layers: int = Field(gt=0)
    """1 is `linear`, 2 is `mlp2x_gelu`: GELU stands between the layers."""


class PoolingLayout(GridLayout):
    """A grid of visual tokens that are pooled from a finer grid of features."""

    input_side: int = Field(gt=0)
    """Features per side that every encoder's map is interpolated to before pooling; a multiple of `side` (24 for 6 in
    the paper's study of 576 to 36 tokens)."""


class CAbstractorConfig(PoolingLayout):
    """Convolutional blocks before and after average pooling, then an MLP.

    Source: paper, table of spatial connectors; Honeybee, whose values are depth 3, width 1024, 2 layers and learned
    positions.
    """

    kind: Literal["c-abstractor"]
    depth: int = Field(gt=0)
    """Blocks before the pooling, and as many after it."""
    dim: int = Field(gt=0)
    num_mlp_layers: int = Field(gt=0)
    input_positions: Literal["none", "learned"]
    """`learned` adds one vector per feature before the first block; `positions` are those of the visual tokens."""


class LDPv2Config(PoolingLayout):
    """Two point-wise layers of the LLM's width, average pooling, and a depth-wise convolution with a residual.

    Source: paper, table of spatial connectors; MobileVLM V2.
    """

    kind: Literal["ldpv2"]


class ResamplerConfig(Layout):
    """Learned queries that attend to the tokens of all encoders (Perceiver), without spatial order."""

    kind: Literal["resampler"]
    num_queries: int = Field(gt=0)
    depth: int = Field(gt=0)
    dim: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    max_input_side: int = Field(gt=0)
    """Maps with a longer side are interpolated down to it, which bounds the cost of fine grids."""


class AggregatorsConfig(Params):
    """Aggregators inside the LLM: the first after decoder layer `start`, then after every `stride`-th."""

    start: int = Field(ge=0)
    stride: int = Field(gt=0)
    count: int = Field(gt=0)


class SVAConfig(GridLayout):
    """The spatial vision aggregator (paper, section 3.2)."""

    kind: Literal["sva"]
    depth: int = Field(gt=0)
    """Stacked layers before the LLM: the paper's D."""
    group_sides: Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
    """Queries per side for each query group; their number is the paper's G (one group of 24 in the paper)."""
    dim: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    max_window_side: int = Field(gt=0)
    """Features per side that one query sees of one encoder, at most (4 in the release).

    An encoder's map is interpolated to `side` times its window's side, which is the largest that the map fills; the
    release's numbers follow (27 to 24 for its ViTs, 256 to 96 for its ConvNeXt).
    """
    in_llm: AggregatorsConfig | None


ConnectorConfig = Annotated[
    MLPConfig | ProjectorConfig | CAbstractorConfig | LDPv2Config | ResamplerConfig | SVAConfig,
    Field(discriminator="kind"),
]


class ModelConfig(Params):
    """One model; the names are folders of backbones."""

    encoders: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    """In order; without the empty slots that a run's row may have."""
    connector: ConnectorConfig
    llm: str
    template: str
    """The conversation template that the model is trained with."""
