"""Aggregators inside the LLM: after chosen decoder layers they rewrite the hidden states of the image's cells.

The LLM's classes stay as transformers wrote them, and so do its parameter names: an aggregator is attached as a hook
that reads `vision` from the layer's own arguments, where `LlamaModel.forward` passes every argument that it does not
know. Nothing is stored on the model between two calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from cambrian.models.aggregator import Aggregator, Evidence


@dataclass(slots=True)
class Vision:
    """What the aggregators inside the LLM need to know about one batch."""

    evidence: Evidence
    rows: Int[Tensor, " rows"]
    """For each row of the evidence, the position of its cell, counted through the batch's padded sequences.

    Given for every cell of every image; cells without evidence, which lie in padding, are left out at once.
    """

    def __post_init__(self) -> None:
        if self.evidence.rows is not None:
            self.rows = self.rows[self.evidence.rows]
            self.evidence = replace(self.evidence, rows=None)


class _Hook:
    """Applies one aggregator to a decoder layer's output (an object, so that a copied model has copied hooks)."""

    def __init__(self, aggregator: Aggregator) -> None:
        self.aggregator = aggregator

    def __call__(
        self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Float[Tensor, "batch length dim"]
    ) -> Tensor | None:
        vision: Vision | None = kwargs.get("vision")
        if vision is None:
            return None
        flat = hidden.flatten(0, 1)
        updated = self.aggregator(flat[vision.rows], vision.evidence)
        return flat.index_copy(0, vision.rows, updated.to(flat.dtype)).view_as(hidden)


def _drop_vision(
    attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Keep the argument from the attention kernels, which do not know it."""
    return args, {name: value for name, value in kwargs.items() if name != "vision"}


def attach_aggregators(
    layers: Sequence[nn.Module], aggregators: Sequence[nn.Module], *, start: int, stride: int
) -> None:
    """Let aggregator j act after layer `start + j * stride`, whenever the LLM is called with `vision=`.

    Raises:
        ValueError: the LLM has too few layers.
    """
    last = start + (len(aggregators) - 1) * stride
    if last >= len(layers):
        raise ValueError(
            f"connector.in_llm: {len(aggregators)} aggregators from layer {start} with stride {stride} end after layer "
            f"{last}, the LLM has layers 0 to {len(layers) - 1}: lower start, stride or count"
        )
    for layer in layers:
        layer.self_attn.register_forward_pre_hook(_drop_vision, with_kwargs=True)  # type: ignore[union-attr]
    for index, aggregator in enumerate(aggregators):
        assert isinstance(aggregator, Aggregator)
        layers[start + index * stride].register_forward_hook(_Hook(aggregator), with_kwargs=True)
