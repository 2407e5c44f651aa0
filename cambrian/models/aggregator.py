"""The spatial vision aggregator: queries that attend only to the features that lie in their own cell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass(slots=True)
class Evidence:
    """What a set of queries may look at, one row per query; the keys and values of every aggregator layer."""

    windows: list[Tensor]
    """Per encoder, Float[rows, window, dim]: the features in the query's cell, row by row inside the cell."""
    mask: Tensor | None
    """Bool[rows, sum of windows]: True where a feature may be attended to; None where all may."""
    context: Tensor
    """Float[rows, context_dim]: the image's global feature."""


def rearrange_windows(
    features: Float[Tensor, "images height width dim"], queries_per_side: int
) -> Float[Tensor, "windows window dim"]:
    """Group a feature map into the window that each query attends to.

    Windows run image by image and row by row; a window holds its features row by row.

    Raises:
        ValueError: the map does not divide into the query grid; resize before, never pad here.

    Source: paper, section on the spatial vision aggregator.
    """
    height, width = features.shape[1:3]
    if height != width or height % queries_per_side:
        raise ValueError(
            f"a {height} x {width} map does not divide into {queries_per_side} x {queries_per_side} windows: "
            "interpolate the map to a multiple first"
        )
    return rearrange(
        features,
        "images (row a) (column b) dim -> (images row column) (a b) dim",
        row=queries_per_side,
        column=queries_per_side,
    )


class AggregatorLayer(nn.Module):
    """One layer: every query is updated from the features of all encoders in its cell, in one attention.

    Keys and values have their own norm and projection per encoder; windows of more than one feature get a learned
    position table. Linear layers have no bias.

    Source: release, `vision_sampler.py`, joint layer; paper, equations of section 3.2.
    """

    def __init__(
        self, *, query_dim: int, dim: int, context_dim: int, window_sides: Sequence[int], num_heads: int
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide into {num_heads} heads: change dim or num_heads")
        self.num_heads = num_heads
        self.context_projection = nn.Linear(context_dim, dim, bias=False)
        self.input_projection = nn.Linear(query_dim + dim, dim, bias=False)
        self.query = _normed_linear(dim)
        self.keys = nn.ModuleList(_normed_linear(dim) for _ in window_sides)
        self.values = nn.ModuleList(_normed_linear(dim) for _ in window_sides)
        self.window_positions = nn.ParameterDict(
            {
                _position_name(index): nn.Parameter(torch.randn(side**2, dim))
                for index, side in enumerate(window_sides)
                if side > 1
            }
        )
        self.attention_output = nn.Linear(dim, dim, bias=False)
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.GELU(), nn.Linear(dim, query_dim, bias=False))

    def forward(self, queries: Float[Tensor, "rows query_dim"], evidence: Evidence) -> Float[Tensor, "rows query_dim"]:
        """Return the updated queries; the residual connection is inside."""
        context = self.context_projection(evidence.context)
        hidden = self.input_projection(torch.cat([queries, context], dim=-1))
        hidden = self.norm(hidden + self._attend(hidden, evidence))
        updated: Tensor = queries + self.output(hidden)
        return updated

    def _attend(self, hidden: Float[Tensor, "rows dim"], evidence: Evidence) -> Float[Tensor, "rows dim"]:
        keys, values = [], []
        for index, window in enumerate(evidence.windows):
            name = _position_name(index)
            if name in self.window_positions:
                window = window + self.window_positions[name]
            keys.append(self.keys[index](window))
            values.append(self.values[index](window))
        attended = F.scaled_dot_product_attention(
            self._split_heads(self.query(hidden)[:, None]),
            self._split_heads(torch.cat(keys, dim=1)),
            self._split_heads(torch.cat(values, dim=1)),
            attn_mask=None if evidence.mask is None else evidence.mask[:, None, None],
        )
        output: Tensor = self.attention_output(attended.flatten(1))
        return output

    def _split_heads(self, tokens: Float[Tensor, "rows tokens dim"]) -> Float[Tensor, "rows heads tokens head_dim"]:
        return tokens.view(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)


class Aggregator(nn.Module):
    """A stack of layers: only the queries change from layer to layer."""

    def __init__(
        self,
        *,
        depth: int,
        query_dim: int,
        dim: int,
        context_dim: int,
        window_sides: Sequence[int],
        num_heads: int,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            AggregatorLayer(
                query_dim=query_dim, dim=dim, context_dim=context_dim, window_sides=window_sides, num_heads=num_heads
            )
            for _ in range(depth)
        )

    def forward(self, queries: Float[Tensor, "rows query_dim"], evidence: Evidence) -> Float[Tensor, "rows query_dim"]:
        """Return the queries after all layers."""
        for layer in self.layers:
            queries = layer(queries, evidence)
        return queries


def join_masks(masks: Sequence[Bool[Tensor, "rows _"]]) -> Bool[Tensor, "rows features"]:
    """Return the encoders' masks as one over all features, in the encoders' order."""
    return torch.cat(list(masks), dim=1)


def _normed_linear(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim, bias=False))


def _position_name(encoder: int) -> str:
    return f"encoder_{encoder}"
