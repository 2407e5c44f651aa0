"""A Perceiver-style resampler: a few learned queries read the tokens of all encoders, wherever they lie."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.models.connector import Connector, FeatureShape, Visual, group_maps
from cambrian.models.joined_maps import join_maps
from cambrian.models.padding import are_all_square, visible_cells


class ResamplerLayer(nn.Module):
    """Cross-attention of the queries to themselves and the tokens, then an MLP; both residual, norms first."""

    def __init__(self, *, dim: int, num_heads: int) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide into {num_heads} heads: change dim or num_heads")
        self.num_heads = num_heads
        self.query_norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.attention_output = nn.Linear(dim, dim, bias=False)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(
        self,
        queries: Float[Tensor, "images queries dim"],
        tokens: Float[Tensor, "images tokens dim"],
        mask: Bool[Tensor, "images tokens"] | None,
    ) -> Float[Tensor, "images queries dim"]:
        """Return the updated queries; `mask` is True where a token may be attended to."""
        normed = self.query_norm(queries)
        keys, values = self.key_value(torch.cat([normed, self.token_norm(tokens)], dim=1)).chunk(2, dim=-1)
        if mask is not None:
            mask = F.pad(mask, (queries.shape[1], 0), value=True)[:, None, None]
        attended = F.scaled_dot_product_attention(
            self._split_heads(self.query(normed)), self._split_heads(keys), self._split_heads(values), attn_mask=mask
        )
        queries = queries + self.attention_output(attended.transpose(1, 2).flatten(2))
        updated: Tensor = queries + self.mlp(queries)
        return updated

    def _split_heads(self, tokens: Float[Tensor, "images tokens dim"]) -> Float[Tensor, "images heads tokens head_dim"]:
        return tokens.view(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)


class ResamplerConnector(Connector):
    """Learned queries through resampler layers, then one projection to the LLM's width.

    Source: the paper names it (table 1) and not its sizes; the form is Flamingo's Perceiver resampler. Ours: a learned
    position per token of every encoder, since a feature map of a ConvNet carries none.
    """

    def __init__(
        self,
        shapes: Sequence[FeatureShape],
        *,
        num_queries: int,
        depth: int,
        dim: int,
        num_heads: int,
        max_input_side: int,
        llm_dim: int,
    ) -> None:
        super().__init__()
        self.num_tokens = num_queries
        self.shapes = list(shapes)
        self.input_sides = [min(shape.grid, max_input_side) for shape in shapes]
        self.inputs = nn.ModuleList(nn.Linear(shape.channels, dim) for shape in shapes)
        self.input_positions = nn.ParameterList(
            nn.Parameter(torch.randn(side**2, dim) * dim**-0.5) for side in self.input_sides
        )
        self.queries = nn.Parameter(torch.randn(num_queries, dim) * dim**-0.5)
        self.layers = nn.ModuleList(ResamplerLayer(dim=dim, num_heads=num_heads) for _ in range(depth))
        self.output = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, llm_dim))

    def forward(self, features: list[Tensor], sizes: Int[Tensor, "images 2"]) -> Visual:
        """Return the queries' tokens; they have no spatial order. Padding is never attended to."""
        tokens = []
        grouped = group_maps(features, self.shapes)
        for index, side in enumerate(self.input_sides):
            sequence = rearrange(
                join_maps(grouped[index], side), "images channels row column -> images (row column) channels"
            )
            tokens.append(self.inputs[index](sequence) + self.input_positions[index])
        mask = None
        if not are_all_square(sizes):
            mask = torch.cat([visible_cells(sizes, side).flatten(1) for side in self.input_sides], dim=1)
        joined = torch.cat(tokens, dim=1)
        queries = self.queries.expand(joined.shape[0], -1, -1)
        for layer in self.layers:
            queries = layer(queries, joined, mask)
        return Visual(self.output(queries), None)
