"""The spatial vision aggregator as the release computes it: every feature is projected to a key and a value.

Written from the description of the release (`official_implementation.md`, section 5), as what the project's own form is
measured against. It reads the parameters of the project's modules, so that both forms are the same function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.checkpoint import checkpoint

from cambrian.models.aggregator import Aggregator, AggregatorLayer, Evidence

if TYPE_CHECKING:
    from jaxtyping import Float


class PlainAggregator(nn.Module):
    """Computes what an aggregator computes, in the release's way."""

    def __init__(self, aggregator: Aggregator, *, is_checkpointed: bool) -> None:
        super().__init__()
        self.aggregator = aggregator
        self.is_checkpointed = is_checkpointed
        """Whether a layer keeps only its inputs for the backward pass and runs again there (the release's scripts)."""

    def forward(self, queries: Float[Tensor, "rows query_dim"], evidence: Evidence) -> Float[Tensor, "rows query_dim"]:
        """Return the queries after all layers."""
        queries = queries[:, None]
        for layer in self.aggregator.layers:
            assert isinstance(layer, AggregatorLayer)
            if self.is_checkpointed:
                queries = checkpoint(plain_layer, layer, queries, evidence, use_reentrant=False)
            else:
                queries = plain_layer(layer, queries, evidence)
        return queries[:, 0]


def plain_layer(
    layer: AggregatorLayer, queries: Float[Tensor, "rows 1 query_dim"], evidence: Evidence
) -> Float[Tensor, "rows 1 query_dim"]:
    """Return the queries after one layer; the arguments are the project's, the computation is the release's."""
    context = layer.context_projection(evidence.context[:, None])
    hidden = layer.input_projection(torch.cat([queries, context], dim=-1))
    windows = list(evidence.features.split_with_sizes(layer.window_lengths, dim=1))
    for index, length in enumerate(layer.window_lengths):
        if length > 1:
            windows[index] = windows[index] + layer.window_positions[f"encoder_{index}"]
    keys = torch.cat([project(window) for project, window in zip(layer.keys, windows, strict=True)], dim=1)
    values = torch.cat([project(window) for project, window in zip(layer.values, windows, strict=True)], dim=1)
    query, key, value = (_split_heads(rows, layer.num_heads) for rows in (layer.query(hidden), keys, values))
    mask = None if evidence.mask is None else evidence.mask[:, None, None]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    hidden = layer.norm(hidden + layer.attention_output(attended.transpose(1, 2).flatten(2)))
    updated: Tensor = queries + layer.output(hidden)
    return updated


def _split_heads(rows: Float[Tensor, "rows keys dim"], num_heads: int) -> Float[Tensor, "rows heads keys head_dim"]:
    return rearrange(rows, "rows keys (heads dim) -> rows heads keys dim", heads=num_heads)
