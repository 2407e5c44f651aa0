"""How the weights of a backbone move: Muon on matrices, AdamW on everything else, warm-up and linear decay."""

import math
from collections.abc import Iterable, Iterator

import torch
from pydantic import Field
from torch import Tensor, nn

from cambrian.muon import Muon
from cambrian.params import Params

_MOMENTUM = 0.95
"""Muon's, as its authors have it."""


class OptimizationConfig(Params):
    """The optimisation of one backbone."""

    num_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    matrix_learning_rate: float = Field(gt=0)
    """Peak rate of Muon, in AdamW's units (`match_rms_adamw`)."""
    learning_rate: float = Field(gt=0)
    """Peak rate of AdamW: embeddings, convolutions, output matrices, vectors."""
    weight_decay: float = Field(ge=0)
    warmup_ratio: float = Field(ge=0, lt=1)
    """Share of the steps in which the rate rises linearly; it falls linearly to zero over the others."""
    max_gradient_norm: float = Field(gt=0)


class Optimization:
    """Both optimisers and their schedule as one thing that steps.

    `heads` are matrices that do not lie between two hidden layers (a classifier, an embedding); they, vectors and
    convolution kernels are AdamW's, as Muon's authors advise.
    """

    def __init__(self, modules: Iterable[nn.Module], config: OptimizationConfig, *, heads: Iterable[Tensor]) -> None:
        parameters = list({id(p): p for module in modules for p in module.parameters() if p.requires_grad}.values())
        outside = {id(head) for head in heads}
        matrices = [p for p in parameters if p.ndim == 2 and id(p) not in outside]
        hidden = {id(p) for p in matrices}
        others = [p for p in parameters if id(p) not in hidden]
        self._parameters = parameters
        self._max_gradient_norm = config.max_gradient_norm
        self._optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            self._optimizers.append(
                Muon(
                    [{"params": matrices, "lr": config.matrix_learning_rate, "weight_decay": config.weight_decay}],
                    momentum=_MOMENTUM,
                    matrix_scale="match_rms_adamw",
                )
            )
        if others:
            self._optimizers.append(
                torch.optim.AdamW(
                    others,
                    lr=config.learning_rate,
                    betas=(0.9, 0.98),
                    weight_decay=config.weight_decay,
                    foreach=True,
                )
            )
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, config))
            for optimizer in self._optimizers
        ]

    def step(self, loss: Tensor) -> None:
        """Move every weight once down the loss's gradient.

        Raises:
            FloatingPointError: the gradient is not finite, so the loss diverged.
        """
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self._parameters, self._max_gradient_norm, foreach=True)
        if not math.isfinite(norm.item()):
            raise FloatingPointError(f"the gradient's norm is {norm.item()}, the loss {loss.item()}: lower the rates")
        for optimizer, schedule in zip(self._optimizers, self._schedules, strict=True):
            optimizer.step()
            schedule.step()


def rate_factor(step: int, config: OptimizationConfig) -> float:
    """The share of the peak rate at a step, counted from 0."""
    warmup = max(1, round(config.num_steps * config.warmup_ratio))
    if step < warmup:
        return (step + 1) / warmup
    return (config.num_steps - step) / (config.num_steps - warmup + 1)


def iter_shuffled(indices: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches without end, epoch after epoch, each in a new order; what does not fill a batch is left out.

    Raises:
        ValueError: there are fewer indices than a batch holds.
    """
    if len(indices) < batch_size:
        raise ValueError(f"{len(indices)} samples do not fill one batch of {batch_size}: lower the batch size")
    while True:
        order = indices[torch.randperm(len(indices), generator=generator)]
        for start in range(0, len(order) - batch_size + 1, batch_size):
            yield order[start : start + batch_size]
