"""Concatenation and an MLP: the paper's connector for single encoders, ensembles and interpolated maps."""

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from cambrian.models.connector import Connector, FeatureShape, Visual, group_maps
from cambrian.models.joined_maps import join_maps


class MLPConnector(Connector):
    """Delivers every map to one grid, joins channels, and applies a two-layer GELU MLP.

    `delivery="interpolate"` resizes each map (paper). `delivery="unshuffle"` moves the features of a cell into
    channels, so that nothing is dropped; a map that does not divide into the grid is first interpolated up to the
    next side that does.
    """

    def __init__(
        self,
        shapes: Sequence[FeatureShape],
        *,
        side: int,
        delivery: Literal["unshuffle", "interpolate"],
        hidden_dim: int,
        llm_dim: int,
    ) -> None:
        super().__init__()
        self.side = side
        self.num_tokens = side**2
        self.shapes = list(shapes)
        self.cell_sides = [1 if delivery == "interpolate" else -(-shape.grid // side) for shape in shapes]
        joined_dim = sum(shape.channels * cell**2 for shape, cell in zip(shapes, self.cell_sides, strict=True))
        self.layers = nn.Sequential(nn.Linear(joined_dim, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, llm_dim))

    def forward(self, features: list[Tensor], sizes: Int[Tensor, "images 2"]) -> Visual:
        """Return one visual token per cell of the grid."""
        grouped = group_maps(features, self.shapes)
        cells = [self._deliver(maps, cell) for maps, cell in zip(grouped, self.cell_sides, strict=True)]
        return Visual(self.layers(torch.cat(cells, dim=-1)), None)

    def _deliver(self, maps: list[Tensor], cell: int) -> Float[Tensor, "images tokens joined"]:
        return rearrange(
            join_maps(maps, self.side * cell),
            "images channels (row a) (column b) -> images (row column) (a b channels)",
            a=cell,
            b=cell,
        )
