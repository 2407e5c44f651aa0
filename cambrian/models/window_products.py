"""The products between queries and windows of features, with backward passes that keep no intermediate.

Projecting a query into feature space makes it as many times wider as there are heads, so what is projected lives only
for a chunk of rows and is computed again in the backward pass: one small matrix product against a tensor that would be
several times larger than everything else the layer keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float
    from torch import Tensor

NORM_EPSILON = 1e-5
"""Of every norm of an aggregator: torch's default, which the release keeps."""

BUFFER_BYTES = {"cpu": 6 * 2**20, "cuda": 2**28, "meta": 2**62}
"""Size of a chunk's projected queries: what stays in a processor's cache; on a GPU, what makes launches worth it;
without memory, everything at once."""


def standardise_windows(
    features: Float[Tensor, "rows features dim"], window_lengths: Sequence[int]
) -> tuple[list[Float[Tensor, "rows window dim"]], list[Float[Tensor, "rows window"]]]:
    """Return the features with mean 0 and variance 1 over their channels, and what they were divided by, by encoder."""
    standardised = _StandardiseWindows.apply(features, tuple(window_lengths))  # type: ignore[no-untyped-call]
    return list(standardised[: len(window_lengths)]), list(standardised[len(window_lengths) :])


def project_normalised(
    features: Float[Tensor, "rows dim"],
    scale: Float[Tensor, " dim"],
    shift: Float[Tensor, " dim"],
    weight: Float[Tensor, "out dim"],
) -> Float[Tensor, "rows out"]:
    """Return `weight (scale * features + shift)`, keeping only the features, which all layers share."""
    projected: Tensor = _ProjectNormalised.apply(*_autocast(features, scale, shift, weight))  # type: ignore[no-untyped-call]
    return projected


def score_windows(
    queries: Float[Tensor, "rows heads head_dim"],
    weight: Float[Tensor, "heads head_dim dim"],
    windows: Float[Tensor, "rows window dim"],
    table: Float[Tensor, "window dim"],
) -> tuple[Float[Tensor, "rows heads window"], Float[Tensor, "rows window"]]:
    """Return the products of projected queries and of a position table with the features of each row's window.

    The first is `queries weight windows^T`, the second the product of each feature with the table's row at its place.
    """
    scores, products = _ScoreWindows.apply(*_autocast(queries, weight, windows, table))  # type: ignore[no-untyped-call]
    return scores, products


def read_windows(
    attention: Float[Tensor, "rows heads window"],
    windows: Float[Tensor, "rows window dim"],
    weight: Float[Tensor, "heads head_dim dim"],
) -> Float[Tensor, "rows heads head_dim"]:
    """Return the attended sum of each row's features, projected: `(attention windows) weight^T`."""
    read: Tensor = _ReadWindows.apply(*_autocast(attention, windows, weight))  # type: ignore[no-untyped-call]
    return read


class _StandardiseWindows(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, window_lengths: tuple[int, ...]) -> tuple[Tensor, ...]:
        wide = torch.promote_types(features.dtype, torch.float32)
        parts = [
            torch.native_layer_norm(window.to(wide), window.shape[-1:], None, None, NORM_EPSILON)
            for window in features.split_with_sizes(list(window_lengths), dim=1)
        ]
        windows = [window.to(features.dtype) for window, _, _ in parts]
        deviations = [inverse.reciprocal().squeeze(2) for _, _, inverse in parts]
        ctx.save_for_backward(*windows, *deviations)
        return *windows, *deviations

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        saved = ctx.saved_tensors
        half = len(saved) // 2
        inputs = []
        for window, deviation, gradient, from_deviation in zip(
            saved[:half], saved[half:], gradients[:half], gradients[half:], strict=True
        ):
            # x = mean + deviation * window, so that d deviation / dx = window / dim, and d window / dx is the gradient
            # of a norm whose input is already normalised, over the deviation
            slope = (gradient * window).mean(dim=2) - from_deviation * deviation / window.shape[2]
            slope, deviation = slope.to(window.dtype)[..., None], deviation.to(window.dtype)[..., None]
            centred = gradient - gradient.mean(dim=2, keepdim=True)
            inputs.append(centred.addcmul_(window, slope, value=-1).div_(deviation))
        return torch.cat(inputs, dim=1), None


class _ProjectNormalised(Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(features, scale, shift, weight)
        return torch.addcmul(shift, features, scale) @ weight.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        features, scale, shift, weight = ctx.saved_tensors
        weight_gradient = gradient.T @ torch.addcmul(shift, features, scale)
        gradient = gradient @ weight
        return gradient * scale, (gradient * features).sum(dim=0), gradient.sum(dim=0), weight_gradient


class _ScoreWindows(Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, weight: Tensor, windows: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(queries, weight, windows, table)
        scores = queries.new_empty(*queries.shape[:2], windows.shape[1])
        products = windows.new_empty(windows.shape[:2])
        for rows, buffer in _chunks(queries, windows):
            lifted = _lift(queries[rows], weight, buffer)
            torch.bmm(lifted, windows[rows].transpose(1, 2), out=scores[rows])
            torch.linalg.vecdot(windows[rows], table, out=products[rows])
        return scores, products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, products_gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        queries, weight, windows, table = ctx.saved_tensors
        queries_gradient = torch.empty_like(queries, memory_format=torch.contiguous_format)
        weight_gradient = torch.zeros_like(weight)
        windows_gradient = torch.empty_like(windows, memory_format=torch.contiguous_format)
        table_gradient = torch.zeros_like(table)
        for rows, buffer in _chunks(queries, windows):
            lifted = _lift(queries[rows], weight, buffer)
            torch.bmm(gradient[rows].transpose(1, 2), lifted, out=windows_gradient[rows])
            windows_gradient[rows].addcmul_(products_gradient[rows, :, None], table)
            table_gradient += torch.einsum("rt,rtd->td", products_gradient[rows], windows[rows])
            carried = _carry(gradient[rows], windows[rows], buffer)
            weight_gradient.baddbmm_(queries[rows].permute(1, 2, 0), carried)
            queries_gradient[rows] = torch.bmm(carried, weight.transpose(1, 2)).transpose(0, 1)
        return queries_gradient, weight_gradient, windows_gradient, table_gradient


class _ReadWindows(Function):
    @staticmethod
    def forward(ctx: Any, attention: Tensor, windows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(attention, windows, weight)
        read = attention.new_empty(*attention.shape[:2], weight.shape[1])
        for rows, buffer in _chunks(attention, windows):
            carried = _carry(attention[rows], windows[rows], buffer)
            read[rows] = torch.bmm(carried, weight.transpose(1, 2)).transpose(0, 1)
        return read

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attention, windows, weight = ctx.saved_tensors
        attention_gradient = torch.empty_like(attention, memory_format=torch.contiguous_format)
        windows_gradient = torch.empty_like(windows, memory_format=torch.contiguous_format)
        weight_gradient = torch.zeros_like(weight)
        for rows, buffer in _chunks(attention, windows):
            lifted = _lift(gradient[rows], weight, buffer)
            torch.bmm(lifted, windows[rows].transpose(1, 2), out=attention_gradient[rows])
            torch.bmm(attention[rows].transpose(1, 2), lifted, out=windows_gradient[rows])
            carried = _carry(attention[rows], windows[rows], buffer)
            weight_gradient.baddbmm_(gradient[rows].permute(1, 2, 0), carried)
        return attention_gradient, windows_gradient, weight_gradient


def _autocast(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors as autocast, where it is on, would hand them to a matrix product."""
    kind = tensors[0].device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return list(tensors)
    dtype = torch.get_autocast_dtype(kind)
    return [tensor.to(dtype) if tensor.dtype == torch.float32 else tensor for tensor in tensors]


def _chunks(per_head: Tensor, windows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield slices of rows, each with a buffer for one feature-wide vector per head and row."""
    num_rows, num_heads, dim = len(windows), per_head.shape[1], windows.shape[2]
    row_bytes = num_heads * dim * windows.element_size()
    chunk = min(max(1, BUFFER_BYTES.get(windows.device.type, BUFFER_BYTES["cpu"]) // row_bytes), num_rows)
    buffer = windows.new_empty(num_heads, chunk, dim)
    for start in range(0, num_rows, chunk):
        stop = min(start + chunk, num_rows)
        yield slice(start, stop), buffer[:, : stop - start]


def _lift(queries: Tensor, weight: Tensor, buffer: Tensor) -> Tensor:
    """Fill the buffer with queries in feature space and return it as Float[rows, heads, dim]."""
    return torch.bmm(queries.transpose(0, 1), weight, out=buffer).transpose(0, 1)


def _carry(attention: Tensor, windows: Tensor, buffer: Tensor) -> Tensor:
    """Return attended sums of features as Float[heads, rows, dim], in the buffer's memory where they fit as one piece.

    Row by row, because torch makes a batch of products one at a time where their results do not lie one after another.
    """
    num_heads, num_rows, dim = buffer.shape
    shape = (num_rows, num_heads, dim)
    by_row = buffer.view(shape) if buffer.is_contiguous() else buffer.new_empty(shape)
    return torch.bmm(attention, windows, out=by_row).transpose(0, 1)
