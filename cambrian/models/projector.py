"""LLaVA's projectors: one linear layer, or an MLP, over the joined features of every place."""

from collections.abc import Sequence

from jaxtyping import Int
from torch import Tensor, nn

from cambrian.models.connector import Connector, FeatureShape, Visual
from cambrian.models.joined_maps import JoinedLinear


class ProjectorConnector(Connector):
    """Interpolates every map to one grid, joins channels, and applies linear layers with GELU between them.

    Source: LLaVA (one layer) and LLaVA-1.5 (two); release, `multimodal_projector/builder.py`, `linear` and
    `mlp{n}x_gelu`. Every hidden layer has the LLM's width, as there.
    """

    def __init__(self, shapes: Sequence[FeatureShape], *, side: int, num_layers: int, llm_dim: int) -> None:
        super().__init__()
        self.side = side
        self.num_tokens = side**2
        self.inputs = JoinedLinear(sum(shape.channels for shape in shapes), llm_dim)
        self.layers = nn.Sequential(
            *(layer for _ in range(num_layers - 1) for layer in (nn.GELU(), nn.Linear(llm_dim, llm_dim)))
        )

    def forward(self, features: list[Tensor], sizes: Int[Tensor, "images 2"]) -> Visual:
        """Return one visual token per cell of the grid."""
        return Visual(self.layers(self.inputs(features, self.side)), None)
