"""The spatial vision aggregator: queries that attend only to the features that lie in their own cell."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


@dataclass(slots=True)
class Evidence:
    """What a set of queries may look at, one row per query; the keys and values of every aggregator layer."""

    features: Tensor
    """Float[rows, features, dim]: the query's windows of all encoders in order, each row by row inside the cell."""
    mask: Tensor | None
    """Bool[rows, features]: True where a feature may be attended to; None where all may."""
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
        self.head_dim = dim // num_heads
        self.window_lengths = [side**2 for side in window_sides]
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
        """Attend to all windows at once, without ever projecting a feature.

        The key of a feature x is W (gamma * x' + beta), where x' is x normalised, so its score against a query q is
        (gamma * W^T q) . x' + q . W beta: the query is projected instead, once per encoder. Values likewise: the sum of
        attended x' is projected. Per query this costs two matrices per encoder, however many features its window has.
        """
        queries = self._split_heads(self.query(hidden)) * self.head_dim**-0.5
        features = self._normalise(evidence.features)
        windows = features.split_with_sizes(self.window_lengths, dim=1)
        matrix, offset = self._fold_norms(self.keys)
        projected = torch.einsum("rhx,hxk->rhk", queries, matrix).chunk(len(windows), dim=2)
        offsets = torch.einsum("rhx,ehx->rhe", queries, offset).chunk(len(windows), dim=2)
        scores = torch.cat(
            [
                query @ window.transpose(1, 2) + shift
                for query, window, shift in zip(projected, windows, offsets, strict=True)
            ],
            dim=2,
        )
        if evidence.mask is not None:
            scores = scores.masked_fill(~evidence.mask[:, None], -torch.inf)
        weights = scores.softmax(dim=-1).split_with_sizes(self.window_lengths, dim=-1)
        read = torch.cat([weight @ window for weight, window in zip(weights, windows, strict=True)], dim=2)
        shares = torch.stack([weight.sum(dim=-1) for weight in weights], dim=2)
        matrix, offset = self._fold_norms(self.values)
        attended = torch.einsum("rhk,hxk->rhx", read, matrix) + torch.einsum("rhe,ehx->rhx", shares, offset)
        output: Tensor = self.attention_output(attended.flatten(1))
        return output

    def _normalise(self, features: Float[Tensor, "rows features dim"]) -> Float[Tensor, "rows features dim"]:
        """Add the position tables and normalise; the norms' affine parts are folded into the projections."""
        if len(self.window_positions):
            no_position = features.new_zeros(1, features.shape[-1])
            names = [_position_name(index) for index in range(len(self.window_lengths))]
            features = features + torch.cat([self.window_positions.get(name, no_position) for name in names])
        return F.layer_norm(features, features.shape[-1:])

    def _fold_norms(
        self, projections: nn.ModuleList
    ) -> tuple[Float[Tensor, "heads head_dim joined"], Float[Tensor, "encoders heads head_dim"]]:
        """Return matrices (encoders side by side) and offsets that make keys or values of normalised features."""
        parameters = [dict(projection.named_parameters()) for projection in projections]
        scale, shift, weight = (
            torch.stack([named[name] for named in parameters]) for name in ("0.weight", "0.bias", "1.weight")
        )
        matrix = rearrange(weight * scale[:, None], "encoder (head x) dim -> head x (encoder dim)", head=self.num_heads)
        offset = torch.einsum("eoc,ec->eo", weight, shift)
        return matrix, offset.view(-1, self.num_heads, self.head_dim)

    def _split_heads(self, rows: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows heads head_dim"]:
        return rows.view(len(rows), self.num_heads, self.head_dim)


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


def _normed_linear(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim, bias=False))


def _position_name(encoder: int) -> str:
    return f"encoder_{encoder}"
