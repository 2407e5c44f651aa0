"""What one sample costs to train on: operations of the matrix products, and bytes kept for the backward pass.

Encoders, connectors and aggregators are run on the meta device under torch's own counter, forward and backward, so no
formula has to follow their code. The LLM is a sum over its linear layers and its attention, because its cost depends
on the lengths of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cambrian.models.aggregator import Aggregator, AggregatorLayer, Standardised
from cambrian.models.connector import group_maps
from cambrian.models.encoders import VisionEncoder
from cambrian.models.sva import SVAConnector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cambrian.models.multimodal import MultimodalModel

ATTENTION_BACKWARD = 2.0
"""Operations of attention's backward pass over its forward pass; flash kernels compute one product again, uncounted."""

_IMAGES = 16
"""Images of the batch that aggregators are counted with: some of their products are of weights, once per batch."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image, or of whatever a function is said to be about."""

    forward: float
    backward: float
    kept_bytes: float
    """What the forward pass keeps for the backward pass, weights apart."""

    @property
    def flops(self) -> float:
        """Operations of both passes."""
        return self.forward + self.backward

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward, self.kept_bytes + other.kept_bytes)

    def __mul__(self, factor: float) -> Cost:
        return Cost(self.forward * factor, self.backward * factor, self.kept_bytes * factor)


NOTHING = Cost(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class LLMCost:
    """An LLM's operations by length; `learns` says whether its own weights do."""

    linear_per_token: float
    """Forward pass of the linear layers of all decoder layers."""
    attention_per_square: float
    """Forward pass of all layers' attention for a sample of n tokens, over n**2, as if nothing were masked."""
    head_per_label: float
    kept_bytes_per_token: float
    """Of all layers without activation checkpointing."""
    learns: bool

    def cost(self, *, tokens: float, squares: float, labels: float, causal_share: float) -> Cost:
        """Return the cost of samples with so many tokens, squares of their lengths, and labelled tokens.

        `causal_share` is the part of an attention matrix that is computed: a half where the kernel skips what the
        causal mask hides.
        """
        passes = 2.0 if self.learns else 1.0  # gradients go through a frozen LLM, to the connector
        attention = self.attention_per_square * squares * causal_share
        products = self.linear_per_token * tokens + self.head_per_label * labels
        return Cost(
            forward=products + attention,
            backward=passes * products + ATTENTION_BACKWARD * attention,
            kept_bytes=self.kept_bytes_per_token * tokens,
        )


def count_encoder(encoder: VisionEncoder, *, learns: bool) -> Cost:
    """Return the cost of one image in one encoder."""
    side = encoder.image_spec.side
    pixels = torch.zeros(1, 3, side, side, device="meta", dtype=_dtype_of(encoder))
    return _count(lambda: [encoder(pixels)], encoder, learns=learns, inputs=[])


def count_connector(model: MultimodalModel, *, encoders_learn: bool) -> Cost:
    """Return the cost of one square image in the connector and in the aggregators inside the LLM, all learning."""
    connector = model.connector
    features = [
        torch.zeros(1, channels, grid, grid, device="meta", dtype=_dtype_of(connector))
        for encoder in model.encoders
        if isinstance(encoder, VisionEncoder)
        for channels, grid in encoder.map_shapes
    ]
    if isinstance(connector, SVAConnector):
        cost = _count_sva(connector, features, encoders_learn=encoders_learn)
    else:
        sizes = torch.tensor([[1, 1]])  # a square picture: nothing is masked
        inputs = features if encoders_learn else []
        cost = _count(lambda: [connector(features, sizes).tokens], connector, learns=True, inputs=inputs)
    in_llm = [module for module in model.aggregators if isinstance(module, Aggregator)]
    if in_llm:  # all alike
        cost += _count_aggregator(in_llm[0], rows=connector.num_tokens) * len(in_llm)
    return cost


def count_llm(llm: nn.Module, *, learns: bool) -> LLMCost:
    """Return an LLM's cost by length, from its modules and its config."""
    config: Any = llm.config
    layers = llm.get_submodule("model.layers")
    weights = sum(module.weight.numel() for module in layers.modules() if isinstance(module, nn.Linear))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return LLMCost(
        linear_per_token=2.0 * weights,
        attention_per_square=4.0 * config.num_attention_heads * head_dim * config.num_hidden_layers,
        head_per_label=2.0 * config.hidden_size * config.vocab_size,
        kept_bytes_per_token=_kept_per_token(config, head_dim, _dtype_of(llm).itemsize),
        learns=learns,
    )


def _kept_per_token(config: Any, head_dim: int, itemsize: int) -> float:
    """What the layers keep of one token: inputs of norms and products, queries, keys, values, gates and what they gate.

    An upper bound: a frozen layer keeps less.
    """
    narrow = 2 * config.num_key_value_heads * head_dim
    wide = 2 * config.num_attention_heads * head_dim
    per_layer = 4 * config.hidden_size + narrow + wide + 4 * config.intermediate_size
    return float(itemsize * per_layer * config.num_hidden_layers)


def _count_sva(connector: SVAConnector, features: list[Tensor], *, encoders_learn: bool) -> Cost:
    """The parts of an SVA connector, one by one: as a whole it reads values, and meta tensors have none."""
    total = NOTHING
    grouped = group_maps(features, connector.shapes)
    for maps, side, projection in zip(grouped, connector.map_sides, connector.projections, strict=True):
        call = partial(_project, projection, maps, side)
        total += _count(call, projection, learns=True, inputs=maps if encoders_learn else [])
    for group_side, group in zip(connector.group_sides, connector.groups, strict=True):
        assert isinstance(group, Aggregator)
        total += _count_aggregator(group, rows=group_side**2)
    first = connector.output[0]
    assert isinstance(first, nn.Linear)
    joined = features[0].new_zeros(connector.num_tokens, first.in_features)
    return total + _count_call(connector.output, [joined], inputs_learn=True)


def _project(projection: nn.Module, maps: Sequence[Tensor], side: int) -> list[Tensor]:
    """An encoder's maps on the connector's grid, as `SVAConnector` brings them there."""
    first, *rest = projection.children()
    hidden = first(maps, side)
    for layer in rest:
        hidden = layer(hidden)
    return [hidden]


def _count_aggregator(aggregator: Aggregator, *, rows: int) -> Cost:
    """One image's queries through an aggregator, whose windows learn because their projections do."""
    layer = aggregator.layers[0]  # all of a stack are alike
    assert isinstance(layer, AggregatorLayer)
    context_dim, dim = layer.context_projection.in_features, layer.context_projection.out_features
    query_dim = layer.input_projection.in_features - dim
    example = next(aggregator.parameters())

    def zeros(*shape: int) -> Tensor:
        return example.new_zeros(shape).requires_grad_()

    queries, contexts = zeros(_IMAGES * rows, query_dim), zeros(_IMAGES, context_dim)
    windows = [zeros(_IMAGES * rows, length, dim) for length in aggregator.window_lengths]
    deviations = [zeros(_IMAGES * rows, length) for length in aggregator.window_lengths]
    rows_per_context = torch.full((_IMAGES,), rows, device=example.device)
    evidence = Standardised(windows, deviations, contexts, rows_per_context)
    inputs = [queries, *windows, *deviations, contexts]
    cost = _count(lambda: [layer(queries, evidence, None)], layer, learns=True, inputs=inputs)
    return cost * (len(aggregator.layers) / _IMAGES)


def _count_call(module: nn.Module, arguments: list[Tensor], *, inputs_learn: bool) -> Cost:
    return _count(lambda: [module(*arguments)], module, learns=True, inputs=arguments if inputs_learn else [])


def _count(function: Callable[[], list[Tensor]], module: nn.Module, *, learns: bool, inputs: Sequence[Tensor]) -> Cost:
    """Run a function of a module under the counter, and its backward pass where the module learns."""
    for tensor in inputs:
        tensor.requires_grad_()
    before = [parameter.requires_grad for parameter in module.parameters()]
    module.requires_grad_(learns)
    kept: list[Tensor] = []
    given = {id(tensor) for tensor in [*module.parameters(), *inputs]}

    def note(tensor: Tensor) -> Tensor:
        if id(tensor) not in given:
            kept.append(tensor)
        return tensor

    try:
        with (
            torch.set_grad_enabled(learns),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            FlopCounterMode(display=False) as counter,
        ):
            outputs = function()
            forward = counter.get_total_flops()
            if learns:
                torch.autograd.backward(outputs, [torch.empty_like(output) for output in outputs])
            total = counter.get_total_flops()
    finally:
        for parameter, flag in zip(module.parameters(), before, strict=True):
            parameter.requires_grad_(flag)
            parameter.grad = None
    return Cost(float(forward), float(total - forward), float(_sum_bytes(kept)))


def _sum_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of distinct storages: a tensor that two products keep is there once."""
    return sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def _dtype_of(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype
