"""The spatial vision aggregator: queries that attend only to the features that lie in their own cell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.models.window_products import project_normalised, read_windows, score_windows, standardise_windows

Scored = tuple[Tensor, Callable[[Tensor], Tensor]]
"""One encoder's Float[rows, heads, window] scores, and what reads its features by their shares of the attention."""


@dataclass(slots=True)
class Standardised:
    """Evidence as every layer reads it: what does not depend on a layer is computed once for all of them."""

    windows: list[Tensor]
    """Float[rows, window, dim] per encoder: each feature with mean 0 and variance 1 over its channels."""
    deviations: list[Tensor]
    """Float[rows, window] per encoder: what each feature was divided by."""
    contexts: Tensor
    """Float[images, context_dim]: the global feature, once for all rows of an image."""
    rows_per_context: Tensor | None
    """Int[images]: how many consecutive rows share each context; None where it is one."""

    def spread(self, contexts: Float[Tensor, "images dim"]) -> Float[Tensor, "rows dim"]:
        """Repeat what was computed once per image for each of its rows."""
        if self.rows_per_context is None:
            return contexts
        return contexts.repeat_interleave(self.rows_per_context, dim=0, output_size=len(self.windows[0]))


@dataclass(slots=True)
class Evidence:
    """What a set of queries may look at, one row per query; the keys and values of every aggregator layer."""

    features: Tensor
    """Float[rows, features, dim]: the query's windows of all encoders in order, each row by row inside the cell."""
    mask: Tensor | None
    """Bool[rows, features]: True where a feature may be attended to; None where all may."""
    context: Tensor
    """Float[rows, context_dim]: the image's global feature."""
    rows: Tensor | None = None
    """Int[rows]: which queries these rows are for; the others stay as they are. None where every query has a row."""
    standardised: Standardised | None = None
    """Made once by who gathers evidence for several aggregators; None lets each aggregator make its own."""

    def standardise(self, window_lengths: Sequence[int], *, rows_per_context: Tensor | None = None) -> Standardised:
        """Compute what all layers of the same windows share.

        `rows_per_context` says how many consecutive rows have the same context; None makes no such assumption.
        """
        windows, deviations = standardise_windows(self.features, window_lengths)
        contexts = self.context
        if rows_per_context is not None:
            contexts = contexts[rows_per_context.cumsum(0) - rows_per_context]
        return Standardised(windows, deviations, contexts, rows_per_context)


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


@dataclass(slots=True)
class _Folded:
    """A norm's affine part and the projection after it, by heads, as they act on features, positions and the shift."""

    weight: Float[Tensor, "heads head_dim dim"]
    table: Float[Tensor, "window heads head_dim"]
    shift: Float[Tensor, "heads head_dim"]

    @classmethod
    def of(cls, scale: Tensor, shift: Tensor, weight: Tensor, table: Tensor, *, num_heads: int) -> "_Folded":
        """Fold `weight (scale * x + shift)`."""
        folded = weight * scale
        return cls(
            rearrange(folded, "(head x) dim -> head x dim", head=num_heads),
            rearrange(table @ folded.T, "window (head x) -> window head x", head=num_heads),
            rearrange(weight @ shift, "(head x) -> head x", head=num_heads),
        )

    def table_scores(self, queries: Float[Tensor, "rows heads head_dim"]) -> Float[Tensor, "rows heads window"]:
        return torch.einsum("rhx,thx->rht", queries, self.table)

    def shift_scores(self, queries: Float[Tensor, "rows heads head_dim"]) -> Float[Tensor, "rows heads"]:
        return torch.einsum("rhx,hx->rh", queries, self.shift)

    def read_table(self, shares: Float[Tensor, "rows heads window"]) -> Float[Tensor, "rows heads head_dim"]:
        return torch.einsum("rht,thx->rhx", shares.to(self.table.dtype), self.table)

    def read_shift(self, shares: Float[Tensor, "rows heads window"]) -> Float[Tensor, "rows heads head_dim"]:
        return shares.sum(dim=-1, keepdim=True).to(self.shift.dtype) * self.shift


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
        self.is_fused = False
        """Whether scores, softmax and read-out run in one Triton kernel (a CUDA device; the same numbers)."""
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

    def forward(
        self,
        queries: Float[Tensor, "rows query_dim"],
        evidence: Standardised,
        mask: Bool[Tensor, "rows features"] | None,
    ) -> Float[Tensor, "rows query_dim"]:
        """Return the updated queries; the residual connection is inside."""
        # the projection of [query; context] in two parts, because all queries of an image have the same context
        from_query, from_context = self.input_projection.weight.split_with_sizes(
            [queries.shape[1], self.context_projection.out_features], dim=1
        )
        context = F.linear(self.context_projection(evidence.contexts), from_context)
        hidden = F.linear(queries, from_query) + evidence.spread(context)
        hidden = self.norm(hidden + self._attend(hidden, evidence, mask))
        updated: Tensor = queries + self.output(hidden)
        return updated

    def _attend(
        self, hidden: Float[Tensor, "rows dim"], evidence: Standardised, mask: Bool[Tensor, "rows features"] | None
    ) -> Float[Tensor, "rows dim"]:
        """Attend to the windows of all encoders at once."""
        queries = self._split_heads(self.query(hidden) * self.head_dim**-0.5)
        if self.is_fused:
            parts = self._read_fused(queries, evidence, mask)
        else:
            scored = [self._score(index, queries, evidence) for index in range(len(self.window_lengths))]
            scores = torch.cat([scores for scores, _ in scored], dim=2)
            if mask is not None:
                scores = scores.masked_fill(~mask[:, None], -torch.inf)
            shares = scores.softmax(dim=-1).to(queries.dtype).split_with_sizes(self.window_lengths, dim=2)
            parts = [read(share) for (_, read), share in zip(scored, shares, strict=True)]
        attended = sum(parts[1:], start=parts[0])
        output: Tensor = self.attention_output(attended.flatten(1))
        return output

    def _score(self, index: int, queries: Float[Tensor, "rows heads head_dim"], evidence: Standardised) -> "Scored":
        """Score one encoder's features, by the cheapest of three ways to the same numbers."""
        if self.window_lengths[index] == 1:
            return self._score_feature(queries, evidence.windows[index][:, 0], self.keys[index], self.values[index])
        if self.window_lengths[index] < self.num_heads:
            return self._score_features(queries, index, evidence)
        return self._score_window(queries, index, evidence)

    def _score_feature(
        self, queries: Tensor, features: Float[Tensor, "rows dim"], keys: nn.Module, values: nn.Module
    ) -> "Scored":
        """A window of one feature: project it, which costs as much as projecting the query and is a tenth as wide."""
        key, value = (
            self._split_heads(project_normalised(features, *_parameters(projection))) for projection in (keys, values)
        )
        return (queries * key).sum(dim=-1, keepdim=True), lambda share: share * value

    def _score_features(self, queries: Tensor, index: int, evidence: Standardised) -> "Scored":
        """A window of fewer features than there are heads: its projected features are narrower than projected queries.

        A projected query is as wide as the features for every head, so at small sizes this is half the time.
        """
        table = self.window_positions[_position_name(index)]
        features = evidence.windows[index] * evidence.deviations[index][..., None].to(table.dtype) + table
        key, value = (
            rearrange(stack[index](features), "rows window (head x) -> rows window head x", head=self.num_heads)
            for stack in (self.keys, self.values)
        )
        scores = torch.einsum("rhx,rthx->rht", queries, key)
        return scores, lambda share: torch.einsum("rht,rthx->rhx", share, value)

    def _score_window(self, queries: Tensor, index: int, evidence: Standardised) -> "Scored":
        """A window of several features, none of which is ever projected, or normalised again for its position.

        With x = a feature's standardised form, s its deviation, p its place's centred position and r the inverse
        deviation of the sum, the key is W (gamma * r (s x + p) + beta). So its score against a query q is
        r s (gamma * W^T q) . x + r (gamma * W^T q) . p + q . W beta: the query is projected, once for the window.
        Values likewise: the attended sum of r (s x + p) is projected. The variance of the sum, 1 / r**2, is
        s**2 + var(p) + 2 s cov(x, p), which needs one product per feature.
        """
        windows, deviations = evidence.windows[index], evidence.deviations[index]
        table, key, value = self._fold(index)
        products, covariances = score_windows(queries, key.weight, windows, table)
        variances = deviations**2 + table.square().mean(dim=1) + (2 / table.shape[1]) * deviations * covariances
        inverse = variances.rsqrt()[:, None]
        factors = inverse * deviations[:, None]
        scores = factors * products + inverse * key.table_scores(queries) + key.shift_scores(queries)[..., None]

        def read(share: Float[Tensor, "rows heads window"]) -> Float[Tensor, "rows heads head_dim"]:
            from_features = read_windows((share * factors).to(windows.dtype), windows, value.weight)
            return from_features + value.read_table(share * inverse) + value.read_shift(share)

        return scores, read

    def _read_fused(
        self, queries: Float[Tensor, "rows heads head_dim"], evidence: Standardised, mask: Tensor | None
    ) -> list[Tensor]:
        """Do what scoring, softmax and reading do, in one kernel: for one encoder with a window of several features.

        Raises:
            ValueError: another number of encoders has such windows.
        """
        from cambrian.models.aggregator_kernel import attend

        long = [index for index, length in enumerate(self.window_lengths) if length > 1]
        if len(long) != 1:
            raise ValueError(
                f"the fused attention takes one encoder with a window of several features, found {len(long)} in "
                f"windows of {self.window_lengths} features: leave `is_fused` False"
            )
        window = long[0]
        singles = [
            self._score(index, queries, evidence) for index in range(len(self.window_lengths)) if index != window
        ]
        others = torch.cat([queries.new_empty(*queries.shape[:2], 0), *(scores for scores, _ in singles)], dim=2)
        seen = None
        if mask is not None:
            masks = list(mask.split_with_sizes(self.window_lengths, dim=1))
            seen = masks.pop(window)
            others = others.masked_fill(~torch.cat([seen[:, :0], *masks], dim=1)[:, None], -torch.inf)
        table, key, value = self._fold(window)
        attention = attend(
            torch.einsum("rhx,hxd->rhd", queries, key.weight),
            evidence.windows[window],
            evidence.deviations[window],
            table,
            key.table_scores(queries),
            key.shift_scores(queries),
            others,
            seen,
        )
        shares = attention.window_shares
        from_features = torch.einsum("rhd,hxd->rhx", attention.carried, value.weight)
        from_shares = value.read_table(shares * attention.inverse[:, None]) + value.read_shift(shares)
        other_shares = attention.other_shares.to(queries.dtype).unbind(2)
        return [
            from_features + from_shares,
            *(read(share[:, :, None]) for (_, read), share in zip(singles, other_shares, strict=True)),
        ]

    def _fold(self, index: int) -> tuple[Float[Tensor, "window dim"], "_Folded", "_Folded"]:
        """Return an encoder's centred position table, and its keys' and values' projections."""
        table = self.window_positions[_position_name(index)]
        table = table - table.mean(dim=1, keepdim=True)
        key, value = (
            _Folded.of(*_parameters(stack[index]), table, num_heads=self.num_heads)
            for stack in (self.keys, self.values)
        )
        return table, key, value

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
        self.window_lengths = [side**2 for side in window_sides]
        self.layers = nn.ModuleList(
            AggregatorLayer(
                query_dim=query_dim, dim=dim, context_dim=context_dim, window_sides=window_sides, num_heads=num_heads
            )
            for _ in range(depth)
        )

    def forward(self, queries: Float[Tensor, "rows query_dim"], evidence: Evidence) -> Float[Tensor, "rows query_dim"]:
        """Return the queries after all layers; those without evidence come back as they were."""
        standardised = evidence.standardised or evidence.standardise(self.window_lengths)
        seen = queries if evidence.rows is None else queries[evidence.rows]
        for layer in self.layers:
            seen = layer(seen, standardised, evidence.mask)
        return seen if evidence.rows is None else queries.index_copy(0, evidence.rows, seen)


def _normed_linear(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim, bias=False))


def _parameters(projection: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Return the norm's scale and shift and the projection's weight."""
    norm, linear = projection.children()
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(linear, nn.Linear)
    return norm.weight, norm.bias, linear.weight


def _position_name(encoder: int) -> str:
    return f"encoder_{encoder}"
