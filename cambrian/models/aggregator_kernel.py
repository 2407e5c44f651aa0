"""The attention of an aggregator as one Triton kernel a direction: scores, mask, softmax, read-out.

One program handles one row: the projected queries of all its heads, the window of several features, and the scores of
the encoders with one feature, which share the softmax. The window is read once forward and twice backward; scores and
shares never leave the chip in between. Import this only where it is used: Triton is not there on every machine.
"""

# ruff: noqa: N803 (compile-time constants of a kernel have upper case)
# mypy: disable-error-code="import-not-found, untyped-decorator, no-untyped-def"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch.autograd import Function
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

CHANNELS_PER_STEP = 128
"""A window's channels are read in steps of this many; a divisor of every width, or the rest is masked."""

SMALLEST_DOT = 16
"""Triton multiplies matrices of at least this many rows and columns: heads and features are padded up to it."""


class Attention(NamedTuple):
    """What the kernel gives back."""

    window_shares: Tensor
    """Float[rows, heads, window]: the window's part of the attention."""
    other_shares: Tensor
    """Float[rows, heads, others]: the rest of it, for the encoders with one feature."""
    carried: Tensor
    """Float[rows, heads, dim]: the attended sum of the features, each times its deviation over the sum's."""
    inverse: Tensor
    """Float[rows, window]: one over the deviation of feature and position together."""


def attend(
    lifted: Float[Tensor, "rows heads dim"],
    windows: Float[Tensor, "rows window dim"],
    deviations: Float[Tensor, "rows window"],
    table: Float[Tensor, "window dim"],
    table_scores: Float[Tensor, "rows heads window"],
    shift_scores: Float[Tensor, "rows heads"],
    other_scores: Float[Tensor, "rows heads others"],
    mask: Bool[Tensor, "rows window"] | None,
) -> Attention:
    """Attend to a window and to features whose scores are known; the terms are those of `AggregatorLayer`.

    With products = lifted . windows, the window's scores are inverse (deviations products + table_scores) +
    shift_scores, where inverse is 1 / sqrt(deviations**2 + var(table) + 2 deviations cov(windows, table)).

    Raises:
        ValueError: the tensors are not on a CUDA device, and Triton's interpreter is off.
    """
    if not windows.is_cuda and not triton.knobs.runtime.interpret:
        raise ValueError(
            f"the fused attention got tensors on {windows.device}, expected a CUDA device: leave `is_fused` of the "
            "aggregator's layers False there, or set TRITON_INTERPRET=1 to try the kernel without one"
        )
    if other_scores.shape[2] == 0:
        other_scores = other_scores.new_full((*other_scores.shape[:2], 1), -torch.inf)
        result = attend(lifted, windows, deviations, table, table_scores, shift_scores, other_scores, mask)
        return result._replace(other_shares=result.other_shares[:, :, :0])
    return Attention(
        *_Attend.apply(  # type: ignore[no-untyped-call]
            lifted,
            windows,
            deviations.float(),
            table,
            table.float().square().mean(dim=1),
            table_scores.float(),
            shift_scores.float(),
            other_scores.float(),
            mask,
        )
    )


class _Attend(Function):
    @staticmethod
    def forward(
        ctx: Any,
        lifted: Tensor,
        windows: Tensor,
        deviations: Tensor,
        table: Tensor,
        table_variance: Tensor,
        table_scores: Tensor,
        shift_scores: Tensor,
        other_scores: Tensor,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = [
            tensor.contiguous()
            for tensor in (
                lifted, windows, deviations, table, table_variance, table_scores, shift_scores, other_scores
            )
        ]  # fmt: skip
        visible = deviations.new_ones(1) if mask is None else mask.to(torch.uint8).contiguous()
        outputs = [torch.empty_like(inputs[index]) for index in (5, 7, 0, 2)]
        num_rows, sizes = _sizes(lifted, windows, other_scores, has_mask=mask is not None)
        _forward_kernel[(num_rows,)](*inputs, visible, *outputs, **sizes)
        window_shares, other_shares, carried, inverse = outputs
        ctx.save_for_backward(*inputs, window_shares, other_shares, inverse)
        return window_shares, other_shares, carried, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, window_shares, other_shares, inverse = ctx.saved_tensors
        lifted, windows, deviations, table, _, table_scores, shift_scores, other_scores = inputs
        to_lifted, to_windows, to_deviations, to_table_scores, to_shift, to_others = (
            torch.empty_like(tensor)
            for tensor in (lifted, windows, deviations, table_scores, shift_scores, other_scores)
        )
        to_variance, to_products = torch.empty_like(deviations), torch.empty_like(deviations)
        num_rows, sizes = _sizes(lifted, windows, other_scores, has_mask=False)
        del sizes["has_mask"]
        _backward_kernel[(num_rows,)](
            lifted, windows, deviations, table, table_scores, window_shares, other_shares, inverse,
            *(gradient.contiguous() for gradient in gradients),
            to_lifted, to_windows, to_deviations, to_table_scores, to_shift, to_others, to_variance, to_products,
            **sizes,
        )  # fmt: skip
        to_table = torch.einsum("rt,rtd->td", to_products.to(windows.dtype), windows).to(table.dtype)
        return (
            to_lifted, to_windows, to_deviations, to_table, to_variance.sum(dim=0), to_table_scores, to_shift,
            to_others, None,
        )  # fmt: skip


def _sizes(lifted: Tensor, windows: Tensor, others: Tensor, *, has_mask: bool) -> tuple[int, dict[str, int | bool]]:
    num_rows, num_heads, dim = lifted.shape
    length, num_others = windows.shape[1], others.shape[2]
    sizes: dict[str, int | bool] = {
        "num_heads": num_heads,
        "length": length,
        "num_others": num_others,
        "dim": dim,
        "has_mask": has_mask,
        "HEADS": max(SMALLEST_DOT, triton.next_power_of_2(num_heads)),
        "LENGTH": max(SMALLEST_DOT, triton.next_power_of_2(length)),
        "OTHERS": triton.next_power_of_2(num_others),
        "STEP": CHANNELS_PER_STEP,
        # the interpreter multiplies the bit patterns of bfloat16
        "WIDEN": triton.knobs.runtime.interpret,
    }
    return num_rows, sizes


@triton.jit
def _multiply(left, right, WIDEN: tl.constexpr):
    """Multiply matrices and sum in float32; float32 is not rounded to fewer bits."""
    if WIDEN:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _forward_kernel(
    lifted, windows, deviations, table, table_variance, table_scores, shift_scores, other_scores, mask,
    window_shares, other_shares, carried, inverse_deviations,
    num_heads, length, num_others, dim,
    has_mask: tl.constexpr, HEADS: tl.constexpr, LENGTH: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    heads, places, others, steps = tl.arange(0, HEADS), tl.arange(0, LENGTH), tl.arange(0, OTHERS), tl.arange(0, STEP)
    lifted += row * num_heads * dim
    windows += row * length * dim
    carried += row * num_heads * dim
    products = tl.zeros((HEADS, LENGTH), dtype=tl.float32)
    covariances = tl.zeros((LENGTH,), dtype=tl.float32)
    for start in range(0, dim, STEP):
        channels = start + steps
        in_heads = (heads < num_heads)[:, None] & (channels < dim)[None, :]
        in_window = (places < length)[:, None] & (channels < dim)[None, :]
        query = tl.load(lifted + heads[:, None] * dim + channels[None, :], mask=in_heads, other=0.0)
        feature = tl.load(windows + places[:, None] * dim + channels[None, :], mask=in_window, other=0.0)
        position = tl.load(table + places[:, None] * dim + channels[None, :], mask=in_window, other=0.0)
        products += _multiply(query, tl.trans(feature), WIDEN)
        covariances += tl.sum(feature.to(tl.float32) * position.to(tl.float32), axis=1)
    deviation = tl.load(deviations + row * length + places, mask=places < length, other=1.0)
    variance = tl.load(table_variance + places, mask=places < length, other=0.0)
    inverse = 1.0 / tl.sqrt(deviation * deviation + variance + 2.0 * deviation * covariances / dim)
    on_window = row * num_heads * length + heads[:, None] * length + places[None, :]
    on_others = row * num_heads * num_others + heads[:, None] * num_others + others[None, :]
    is_place = (heads < num_heads)[:, None] & (places < length)[None, :]
    is_other = (heads < num_heads)[:, None] & (others < num_others)[None, :]
    from_table = tl.load(table_scores + on_window, mask=is_place, other=0.0)
    shift = tl.load(shift_scores + row * num_heads + heads, mask=heads < num_heads, other=0.0)
    scores = inverse[None, :] * (deviation[None, :] * products + from_table) + shift[:, None]
    is_seen = (places < length)[None, :]
    if has_mask:
        is_seen = is_seen & (tl.load(mask + row * length + places, mask=places < length, other=0) != 0)[None, :]
    scores = tl.where(is_seen, scores, float("-inf"))
    # heads that only fill up the block get a score of 0 somewhere, so that their softmax is a number
    known = tl.load(other_scores + on_others, mask=is_other, other=float("-inf"))
    known = tl.where((heads < num_heads)[:, None], known, 0.0)
    largest = tl.maximum(tl.max(scores, axis=1), tl.max(known, axis=1))
    shares = tl.exp(scores - largest[:, None])
    known_shares = tl.exp(known - largest[:, None])
    total = tl.sum(shares, axis=1) + tl.sum(known_shares, axis=1)
    shares = shares / total[:, None]
    tl.store(window_shares + on_window, shares, mask=is_place)
    tl.store(other_shares + on_others, known_shares / total[:, None], mask=is_other)
    tl.store(inverse_deviations + row * length + places, inverse, mask=places < length)
    weights = shares * (inverse * deviation)[None, :]
    for start in range(0, dim, STEP):
        channels = start + steps
        in_heads = (heads < num_heads)[:, None] & (channels < dim)[None, :]
        in_window = (places < length)[:, None] & (channels < dim)[None, :]
        feature = tl.load(windows + places[:, None] * dim + channels[None, :], mask=in_window, other=0.0)
        read = _multiply(weights.to(feature.dtype), feature, WIDEN)
        tl.store(carried + heads[:, None] * dim + channels[None, :], read.to(carried.dtype.element_ty), mask=in_heads)


@triton.jit
def _backward_kernel(
    lifted, windows, deviations, table, table_scores, window_shares, other_shares, inverse_deviations,
    from_window_shares, from_other_shares, from_carried, from_inverse,
    to_lifted, to_windows, to_deviations, to_table_scores, to_shift, to_others, to_variance, to_products,
    num_heads, length, num_others, dim,
    HEADS: tl.constexpr, LENGTH: tl.constexpr, OTHERS: tl.constexpr, STEP: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    heads, places, others, steps = tl.arange(0, HEADS), tl.arange(0, LENGTH), tl.arange(0, OTHERS), tl.arange(0, STEP)
    lifted += row * num_heads * dim
    windows += row * length * dim
    from_carried += row * num_heads * dim
    to_lifted += row * num_heads * dim
    to_windows += row * length * dim
    products = tl.zeros((HEADS, LENGTH), dtype=tl.float32)
    to_weights = tl.zeros((HEADS, LENGTH), dtype=tl.float32)
    covariances = tl.zeros((LENGTH,), dtype=tl.float32)
    for start in range(0, dim, STEP):
        channels = start + steps
        in_heads = (heads < num_heads)[:, None] & (channels < dim)[None, :]
        in_window = (places < length)[:, None] & (channels < dim)[None, :]
        query = tl.load(lifted + heads[:, None] * dim + channels[None, :], mask=in_heads, other=0.0)
        read = tl.load(from_carried + heads[:, None] * dim + channels[None, :], mask=in_heads, other=0.0)
        feature = tl.load(windows + places[:, None] * dim + channels[None, :], mask=in_window, other=0.0)
        position = tl.load(table + places[:, None] * dim + channels[None, :], mask=in_window, other=0.0)
        products += _multiply(query, tl.trans(feature), WIDEN)
        to_weights += _multiply(read, tl.trans(feature), WIDEN)
        covariances += tl.sum(feature.to(tl.float32) * position.to(tl.float32), axis=1)
    on_row = row * length + places
    is_place = (heads < num_heads)[:, None] & (places < length)[None, :]
    is_other = (heads < num_heads)[:, None] & (others < num_others)[None, :]
    on_window = row * num_heads * length + heads[:, None] * length + places[None, :]
    on_others = row * num_heads * num_others + heads[:, None] * num_others + others[None, :]
    deviation = tl.load(deviations + on_row, mask=places < length, other=0.0)
    inverse = tl.load(inverse_deviations + on_row, mask=places < length, other=0.0)
    from_table = tl.load(table_scores + on_window, mask=is_place, other=0.0)
    shares = tl.load(window_shares + on_window, mask=is_place, other=0.0)
    known_shares = tl.load(other_shares + on_others, mask=is_other, other=0.0)
    factor = inverse * deviation
    to_shares = tl.load(from_window_shares + on_window, mask=is_place, other=0.0) + to_weights * factor[None, :]
    to_known = tl.load(from_other_shares + on_others, mask=is_other, other=0.0)
    # the softmax over the window and the others together
    mean = tl.sum(shares * to_shares, axis=1) + tl.sum(known_shares * to_known, axis=1)
    to_scores = shares * (to_shares - mean[:, None])
    tl.store(to_others + on_others, known_shares * (to_known - mean[:, None]), mask=is_other)
    tl.store(to_shift + row * num_heads + heads, tl.sum(to_scores, axis=1), mask=heads < num_heads)
    tl.store(to_table_scores + on_window, to_scores * inverse[None, :], mask=is_place)
    # the scores' factors: deviation * inverse on the products, inverse on the table's scores
    to_factor = tl.sum(to_scores * products, axis=0) + tl.sum(to_weights * shares, axis=0)
    to_inverse = tl.load(from_inverse + on_row, mask=places < length, other=0.0)
    to_inverse += tl.sum(to_scores * from_table, axis=0) + to_factor * deviation
    to_sum_variance = -0.5 * inverse * inverse * inverse * to_inverse
    to_product = to_sum_variance * 2.0 * deviation / dim
    tl.store(to_variance + on_row, to_sum_variance, mask=places < length)
    tl.store(to_products + on_row, to_product, mask=places < length)
    to_deviation = to_factor * inverse + to_sum_variance * 2.0 * (deviation + covariances / dim)
    tl.store(to_deviations + on_row, to_deviation, mask=places < length)
    weights = shares * factor[None, :]
    on_products = to_scores * factor[None, :]
    for start in range(0, dim, STEP):
        channels = start + steps
        in_heads = (heads < num_heads)[:, None] & (channels < dim)[None, :]
        in_window = (places < length)[:, None] & (channels < dim)[None, :]
        query = tl.load(lifted + heads[:, None] * dim + channels[None, :], mask=in_heads, other=0.0)
        read = tl.load(from_carried + heads[:, None] * dim + channels[None, :], mask=in_heads, other=0.0)
        feature = tl.load(windows + places[:, None] * dim + channels[None, :], mask=in_window, other=0.0)
        position = tl.load(table + places[:, None] * dim + channels[None, :], mask=in_window, other=0.0)
        to_feature = _multiply(tl.trans(on_products.to(query.dtype)), query, WIDEN)
        to_feature += _multiply(tl.trans(weights.to(read.dtype)), read, WIDEN)
        to_feature += to_product[:, None] * position.to(tl.float32)
        to_query = _multiply(on_products.to(feature.dtype), feature, WIDEN)
        tl.store(
            to_windows + places[:, None] * dim + channels[None, :],
            to_feature.to(to_windows.dtype.element_ty),
            mask=in_window,
        )
        tl.store(
            to_lifted + heads[:, None] * dim + channels[None, :],
            to_query.to(to_lifted.dtype.element_ty),
            mask=in_heads,
        )
