"""LDPv2, the lightweight downsample projector of MobileVLM V2."""

from collections.abc import Sequence

from einops import rearrange, reduce
from jaxtyping import Int
from torch import Tensor, nn

from cambrian.models.connector import Connector, FeatureShape, Visual, check_pooling
from cambrian.models.joined_maps import JoinedLinear


class LDPv2Connector(Connector):
    """Two point-wise layers, average pooling to the grid of visual tokens, and a residual depth-wise convolution.

    The pooling stands before the second layer here, with which it commutes: the same numbers but for rounding, for a
    fraction of that layer's cost.

    Source: MobileVLM V2, section 3.3: feature transformation, token reduction, positional information enhancement.
    """

    def __init__(self, shapes: Sequence[FeatureShape], *, input_side: int, side: int, llm_dim: int) -> None:
        super().__init__()
        check_pooling(input_side=input_side, side=side)
        self.input_side = input_side
        self.side = side
        self.num_tokens = side**2
        self.inputs = JoinedLinear(sum(shape.channels for shape in shapes), llm_dim)
        self.activation = nn.GELU()
        self.output = nn.Linear(llm_dim, llm_dim)
        self.neighbours = nn.Conv2d(llm_dim, llm_dim, kernel_size=3, padding=1, groups=llm_dim)

    def forward(self, features: list[Tensor], sizes: Int[Tensor, "images 2"]) -> Visual:
        """Return one visual token per cell of the grid."""
        hidden = self.activation(self.inputs(features, self.input_side))
        cell = self.input_side // self.side
        pooled = reduce(
            hidden,
            "images (row a column b) dim -> images row column dim",
            "mean",
            row=self.side,
            column=self.side,
            a=cell,
        )
        grid = rearrange(self.output(pooled), "images row column dim -> images dim row column")
        return Visual(rearrange(grid + self.neighbours(grid), "images dim row column -> images (row column) dim"), None)
