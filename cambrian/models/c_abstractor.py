"""C-Abstractor, the convolutional abstractor of Honeybee."""

from collections.abc import Sequence
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.models.connector import Connector, FeatureShape, Visual, check_pooling
from cambrian.models.joined_maps import join_maps
from cambrian.models.torchvision_shim import declare_missing_operators

_POSITIONS_STD = 0.02
"""Standard deviation of fresh positions (Honeybee)."""


class CAbstractorConnector(Connector):
    """ResNet blocks, average pooling to the grid of visual tokens, as many blocks again, and an MLP.

    The blocks are timm's, of RegNet's kind: 1 x 1, depth-wise 3 x 3, squeeze-and-excitation, 1 x 1, each with a
    LayerNorm over channels and SiLU, and a residual connection. A block sees over a cell's border, and its
    squeeze-and-excitation sees the whole map, padding included.

    Source: Honeybee (2312.06742), section 4.1 and its appendix on the projector.
    """

    def __init__(
        self,
        shapes: Sequence[FeatureShape],
        *,
        input_side: int,
        side: int,
        depth: int,
        dim: int,
        num_mlp_layers: int,
        input_positions: Literal["none", "learned"],
        llm_dim: int,
    ) -> None:
        super().__init__()
        check_pooling(input_side=input_side, side=side)
        self.input_side = input_side
        self.side = side
        self.num_tokens = side**2
        joined_dim = sum(shape.channels for shape in shapes)
        self.input_positions = (
            nn.Parameter(torch.randn(joined_dim, input_side, input_side) * _POSITIONS_STD)
            if input_positions == "learned"
            else None
        )
        self.blocks = _build_blocks(joined_dim, dim, depth)
        self.pooled_blocks = _build_blocks(dim, dim, depth)
        self.output = nn.Sequential(
            nn.Linear(dim, llm_dim),
            *(layer for _ in range(num_mlp_layers - 1) for layer in (nn.SiLU(), nn.Linear(llm_dim, llm_dim))),
        )

    def forward(self, features: list[Tensor], sizes: Int[Tensor, "images 2"]) -> Visual:
        """Return one visual token per cell of the grid."""
        joined = join_maps(features, self.input_side)
        if self.input_positions is not None:
            joined = joined + self.input_positions
        pooled = self._pool(self.blocks(joined))
        tokens = rearrange(self.pooled_blocks(pooled), "images dim row column -> images (row column) dim")
        return Visual(self.output(tokens), None)

    def _pool(self, hidden: Float[Tensor, "images dim input_side input_side"]) -> Float[Tensor, "images dim side side"]:
        """Average each cell; adaptive pooling, whose sums have another order, has no repeatable gradient on CUDA."""
        if hidden.is_cuda:
            return F.avg_pool2d(hidden, self.input_side // self.side)
        return F.adaptive_avg_pool2d(hidden, self.side)


def _build_blocks(in_dim: int, dim: int, depth: int) -> nn.Sequential:
    declare_missing_operators()
    from timm.layers import LayerNorm2d
    from timm.models.regnet import Bottleneck

    widths = [in_dim, *[dim] * (depth - 1)]
    return nn.Sequential(*(Bottleneck(width, dim, act_layer=nn.SiLU, norm_layer=LayerNorm2d) for width in widths))
