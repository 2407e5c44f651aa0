"""Muon with matrices of equal shape orthogonalised together, which on small matrices takes a third of the time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Float
    from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen by Muon's authors for its slope at 0; it ends near 1, not at it."""

_NUM_ITERATIONS = 5
_SMALLEST_NORM = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon, as `torch.optim.Muon` (whose steps it takes to rounding), but in float32 and in batches.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        momentum: float,
        matrix_scale: Literal["original", "match_rms_adamw"],
    ) -> None:
        """Take groups of matrices; each group sets `weight_decay`, and `lr` before every step.

        Raises:
            ValueError: a parameter is not a matrix.
        """
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0, "momentum": momentum, "matrix_scale": matrix_scale})
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices, found a parameter of shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever evaluated
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue
            gradients = [parameter.grad for parameter in parameters]
            for parameter in parameters:
                if "momentum_buffer" not in self.state[parameter]:
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
            torch._foreach_lerp_(buffers, gradients, 1 - group["momentum"])
            directions = torch._foreach_lerp(gradients, buffers, group["momentum"])  # Nesterov's look ahead
            updates = _orthogonalise_all(list(directions))
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            for parameter, update in zip(parameters, updates, strict=True):
                scale = _scale(parameter, group["matrix_scale"])
                parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * scale)


def orthogonalise(matrices: Float[Tensor, "batch rows columns"]) -> Float[Tensor, "batch rows columns"]:
    """Bring every singular value of each matrix near 1 (to between about .7 and 1.2), by Newton and Schulz's iteration.

    Rows must not outnumber columns: the products are then of the smaller size.
    """
    a, b, c = _COEFFICIENTS
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _orthogonalise_all(matrices: list[Tensor]) -> list[Tensor]:
    """Orthogonalise matrices of any shapes; those of one shape, or of its transpose, go together."""
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, matrix in enumerate(matrices):
        rows, columns = matrix.shape
        by_shape.setdefault((min(rows, columns), max(rows, columns)), []).append(index)
    done: dict[int, Tensor] = {}
    for indices in by_shape.values():
        is_tall = [matrices[index].shape[0] > matrices[index].shape[1] for index in indices]
        wide = [matrices[index].mT if tall else matrices[index] for index, tall in zip(indices, is_tall, strict=True)]
        for index, tall, matrix in zip(indices, is_tall, orthogonalise(torch.stack(wide).float()), strict=True):
            done[index] = matrix.mT if tall else matrix
    return [done[index] for index in range(len(matrices))]


def _scale(matrix: Tensor, kind: Literal["original", "match_rms_adamw"]) -> float:
    rows, columns = matrix.shape
    return math.sqrt(max(1.0, rows / columns)) if kind == "original" else 0.2 * math.sqrt(max(rows, columns))
