"""What every connector is, and the last steps that they share: norm, positions and newlines of visual tokens."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cambrian.models.aggregator import Evidence
from cambrian.models.config import GridLayout, Layout
from cambrian.models.padding import are_all_square, visible_cells


@dataclass(frozen=True, slots=True)
class FeatureShape:
    """The shape of an encoder's feature map."""

    channels: int
    """Of all its maps together."""
    grid: int
    """Of the finest of them."""
    num_maps: int = 1
    """Layers that come on a grid of their own each."""


def group_maps(features: Sequence[Tensor], shapes: Sequence[FeatureShape]) -> list[list[Tensor]]:
    """Return the maps of every encoder.

    Raises:
        ValueError: there are more or fewer maps than the encoders have.
    """
    counts = [shape.num_maps for shape in shapes]
    if len(features) != sum(counts):
        raise ValueError(
            f"{len(features)} feature maps, expected {' + '.join(map(str, counts))}, one per layer of every encoder: "
            "the connector was built for other encoders"
        )
    ends = list(accumulate(counts))
    return [list(features[end - count : end]) for end, count in zip(ends, counts, strict=True)]


@dataclass  # without slots: DeepSpeed looks for tensors in the `vars` of what a module returns
class Visual:
    """What a connector makes of a batch's images."""

    tokens: Tensor
    """Float[images, tokens, llm_dim], row by row where they form a grid; newlines not yet among them."""
    evidence: Evidence | None
    """What aggregators inside the LLM attend to, one row per token; None where there are none."""


class Connector(nn.Module, ABC):
    """Turns the encoders' feature maps into visual tokens of the LLM's width.

    `features` has one map for every layer of every encoder, in their order (`FeatureShape.num_maps`).
    """

    num_tokens: int
    """Visual tokens per image, without newlines."""

    @abstractmethod
    def forward(self, features: list[Tensor], sizes: Int[Tensor, "images 2"]) -> Visual:
        """Return the visual tokens; `features[k]` is Float[images, channels_k, grid_k, grid_k] of layer k."""


def check_pooling(*, input_side: int, side: int) -> None:
    """Check that average pooling gives each visual token a cell of its own, the same size for all.

    Raises:
        ValueError: the grid of visual tokens does not divide the grid of features.
    """
    if input_side % side:
        below = input_side - input_side % side
        near = " or ".join(str(value) for value in (below, below + side) if value)
        raise ValueError(
            f"side {side} does not divide input_side {input_side}, so cells would overlap; expected a multiple of "
            f"{side}: set input_side to {near}, or change side"
        )


class TokenLayout(nn.Module):
    """Norms visual tokens, gives them positions, and closes each row of a grid with a newline."""

    token_index: Tensor
    """Int[tokens]: where the visual tokens stand among the image's positions."""

    def __init__(self, config: Layout, *, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity()
        if config.output_rms is not None:
            self.norm = nn.LayerNorm(dim)
            nn.init.constant_(self.norm.weight, config.output_rms)
        self.positions = None
        if config.position_rms is not None:
            self.positions = nn.Parameter(torch.randn(num_tokens, dim) * config.position_rms)
        self.side = config.side if isinstance(config, GridLayout) else None
        has_newline = isinstance(config, GridLayout) and config.newline
        self.hides_padding = isinstance(config, GridLayout) and config.hide_padding
        self.newline = nn.Parameter(torch.randn(dim) * dim**-0.5) if has_newline else None
        index = torch.arange(num_tokens)
        if self.newline is not None and self.side is not None:
            index = index + index // self.side
            num_tokens += self.side
        self.num_positions = num_tokens
        self.register_buffer("token_index", index, persistent=False)

    def forward(self, tokens: Float[Tensor, "images tokens dim"]) -> Float[Tensor, "images positions dim"]:
        """Return what fills the positions of every image."""
        tokens = self.norm(tokens)
        if self.positions is not None:
            tokens = tokens + self.positions
        if self.newline is None or self.side is None:
            return tokens
        rows = rearrange(tokens, "images (row column) dim -> images row column dim", row=self.side)
        newlines = self.newline.expand(rows.shape[0], self.side, 1, -1)
        return torch.cat([rows, newlines], dim=2).flatten(1, 2)

    def visible(self, sizes: Int[Tensor, "images 2"]) -> Bool[Tensor, "images positions"] | None:
        """Return which positions the LLM may see; None where it may see all.

        A hidden row is hidden with its newline; where columns are hidden, the newlines stay visible.

        Source: release, the collator's mask of the image slots.
        """
        if not self.hides_padding or self.side is None or are_all_square(sizes):
            return None
        cells = visible_cells(sizes, self.side)
        if self.newline is not None:
            cells = torch.cat([cells, cells.any(dim=2, keepdim=True)], dim=2)
        return cells.flatten(1)
