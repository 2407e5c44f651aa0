"""The release's other aggregator: every encoder is read by itself, and the results are weighed.

No released model has it (its model code always builds the joint form, `cambrian.models.aggregator`). Parameters have
the release's own names here, because reading its files is what this is for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.models.aggregator import Evidence


class _Mixer(nn.Module):
    """Two linear layers without bias and a GELU between them."""

    def __init__(self, input_dim: int, dim: int, output_dim: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(input_dim, dim, bias=False)
        self.linear_2 = nn.Linear(dim, output_dim, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        mixed: Tensor = self.linear_2(F.gelu(self.linear_1(rows)))
        return mixed


class _WindowAttention(nn.Module):
    """One query per row attends to the window of one encoder."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim, bias=False)) for _ in range(3)
        )
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, hidden: Tensor, window: Tensor, mask: Tensor | None) -> Tensor:
        query, keys, values = (
            rearrange(rows, "rows keys (heads dim) -> rows heads keys dim", heads=self.num_heads)
            for rows in (self.q_proj(hidden[:, None]), self.k_proj(window), self.v_proj(window))
        )
        visible = None if mask is None else mask[:, None, None]
        attended = F.scaled_dot_product_attention(query, keys, values, attn_mask=visible)
        output: Tensor = self.o_proj(attended.flatten(1))
        return output


class _Reader(nn.Module):
    """Holds how one encoder is read, under the release's name for it."""

    def __init__(self, attention_layer: nn.Module) -> None:
        super().__init__()
        self.attention_layer = attention_layer


class SeparateAggregatorLayer(nn.Module):
    """One layer: windows of several features by attention, single features by an MLP, weighed per query.

    Source: release, `vision_sampler.py`, separate layer.
    """

    def __init__(
        self, *, query_dim: int, dim: int, context_dim: int, window_sides: Sequence[int], num_heads: int
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim {dim} does not divide into {num_heads} heads: change dim or num_heads")
        self.window_lengths = [side**2 for side in window_sides]
        self.proj_context = nn.Linear(context_dim, dim, bias=False)
        self.proj_in = nn.Linear(query_dim + dim, dim, bias=False)
        self.proj_out = _Mixer(dim, dim, query_dim)
        self.norm = nn.LayerNorm(dim)
        self.weight_mlp = _Mixer(query_dim + dim, dim, len(window_sides)) if len(window_sides) > 1 else None
        for index, side in enumerate(window_sides):
            if side > 1:
                self.register_parameter(f"pos_embed_{index}", nn.Parameter(torch.randn(side**2, dim)))
            reader = _WindowAttention(dim, num_heads) if side > 1 else _Mixer(dim, dim, dim)
            self.add_module(f"aggregate_{index}", _Reader(reader))

    def forward(self, queries: Tensor, evidence: Evidence) -> Tensor:
        """Return the updated queries, Float[rows, query_dim]; the residual connection is inside."""
        joined = torch.cat([queries, self.proj_context(evidence.context)], dim=-1)
        hidden = self.proj_in(joined)
        read = torch.stack(self._read(hidden, evidence), dim=1)
        if self.weight_mlp is not None:
            read = read * self.weight_mlp(joined).softmax(dim=-1)[..., None]
        hidden = self.norm(hidden + read.sum(dim=1))
        updated: Tensor = queries + self.proj_out(hidden)
        return updated

    def _read(self, hidden: Tensor, evidence: Evidence) -> list[Tensor]:
        windows = evidence.features.split_with_sizes(self.window_lengths, dim=1)
        masks = (
            [None] * len(windows)
            if evidence.mask is None
            else evidence.mask.split_with_sizes(self.window_lengths, dim=1)
        )
        results = []
        for index, (window, mask) in enumerate(zip(windows, masks, strict=True)):
            reader = self.get_submodule(f"aggregate_{index}.attention_layer")
            if isinstance(reader, _WindowAttention):
                results.append(reader(hidden, window + self.get_parameter(f"pos_embed_{index}"), mask))
            else:
                results.append(reader(window[:, 0]))
        return results
