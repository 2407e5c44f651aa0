"""How much attention the aggregators' queries give to each encoder, recorded while a model answers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange, reduce

from cambrian.models.aggregator import Aggregator, AggregatorLayer
from cambrian.models.config import SVAConfig
from cambrian.models.padding import visible_cells
from cambrian.models.sva import SVAConnector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaxtyping import Bool, Float, Int
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from cambrian.models.aggregator import Evidence
    from cambrian.models.config import ConnectorConfig
    from cambrian.models.multimodal import MultimodalModel


@dataclass(frozen=True, slots=True)
class LayerShares:
    """The shares of one aggregator layer."""

    name: str
    shares: Float[Tensor, "images encoders side side"]
    """Of every query's attention, averaged over heads; they sum to 1 over the encoders. Row by row over the padded
    square; NaN in cells that show nothing of the picture."""

    def means(self) -> Float[Tensor, "images encoders"]:
        """Average over the cells that show picture."""
        return self.shares.nanmean(dim=(2, 3))


def attention_shares(
    layer: AggregatorLayer, queries: Float[Tensor, "rows query_dim"], evidence: Evidence
) -> Float[Tensor, "rows encoders"]:
    """Return each encoder's share of every query's attention: its weights, summed, averaged over heads.

    The layer itself never forms these weights from keys; here they are computed as the paper's equations read.

    Source: paper, equations of section 3.2, and its table of attention shares per encoder.
    """
    hidden = layer.input_projection(torch.cat([queries, layer.context_projection(evidence.context)], dim=-1))
    query = rearrange(layer.query(hidden), "rows (heads dim) -> rows heads dim", heads=layer.num_heads)
    scores = []
    for index, window in enumerate(evidence.features.split_with_sizes(layer.window_lengths, dim=1)):
        name = f"encoder_{index}"
        placed = window + layer.window_positions[name] if name in layer.window_positions else window
        keys = rearrange(
            layer.keys[index](placed), "rows window (heads dim) -> rows heads window dim", heads=layer.num_heads
        )
        scores.append(torch.einsum("rhd,rhwd->rhw", query, keys) * layer.head_dim**-0.5)
    joined = torch.cat(scores, dim=2)
    if evidence.mask is not None:
        joined = joined.masked_fill(~evidence.mask[:, None], -torch.inf)
    weights = joined.softmax(dim=-1).split_with_sizes(layer.window_lengths, dim=-1)
    return torch.stack([reduce(weight, "rows heads window -> rows", "sum") for weight in weights], dim=1) / (
        layer.num_heads
    )


@contextmanager
def record_shares(
    model: MultimodalModel, config: ConnectorConfig, sizes: Int[Tensor, "images 2"] | None
) -> Iterator[list[LayerShares]]:
    """Yield a list that fills with the shares of every aggregator layer, in the order in which they act.

    The model itself is not changed: hooks read what goes into its aggregators, and are gone when the block ends. Other
    connectors than the spatial vision aggregator, and None for `sizes` (original widths and heights), leave the list
    empty.
    """
    recorded: list[LayerShares] = []
    handles: list[RemovableHandle] = []
    for names, side, stack in _named_stacks(model, config):
        if sizes is None:
            break
        recorder = _StackRecorder(visible_cells(sizes, side), recorded)
        handles.append(stack.register_forward_pre_hook(recorder.begin))
        for name, layer in zip(names, stack.layers, strict=True):
            handles.append(layer.register_forward_pre_hook(partial(recorder.keep, name)))
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()


class _StackRecorder:
    """Records the layers of one stack; their queries are their own, what they look at is the stack's."""

    def __init__(self, visible: Bool[Tensor, "images side side"], recorded: list[LayerShares]) -> None:
        self._visible = visible
        self._recorded = recorded
        self._evidence: Evidence | None = None

    def begin(self, stack: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Remember what the stack's queries may look at."""
        self._evidence = inputs[1]

    def keep(self, name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record the shares of a layer's queries, which are those of all cells or of the visible ones."""
        assert isinstance(layer, AggregatorLayer)
        assert self._evidence is not None
        rows = attention_shares(layer, inputs[0], self._evidence).float().cpu()
        visible = self._visible.cpu()
        if len(rows) == visible.numel():
            rows = rows[visible.flatten()]
        grid = torch.full((*visible.shape, rows.shape[1]), torch.nan)
        grid[visible] = rows
        self._recorded.append(
            LayerShares(name, rearrange(grid, "images row column encoder -> images encoder row column"))
        )


def _named_stacks(model: MultimodalModel, config: ConnectorConfig) -> Iterator[tuple[list[str], int, Aggregator]]:
    """Yield every aggregator with its layers' names for people and the side of its query grid."""
    connector = model.connector
    if not isinstance(config, SVAConfig) or not isinstance(connector, SVAConnector):
        return
    for group, (stack, side) in enumerate(zip(connector.groups, connector.group_sides, strict=True), start=1):
        assert isinstance(stack, Aggregator)
        prefix = "connector" if len(connector.group_sides) == 1 else f"connector, group {group}"
        yield [f"{prefix}, layer {number}" for number in range(1, len(stack.layers) + 1)], side, stack
    for index, stack in enumerate(model.aggregators):
        assert isinstance(stack, Aggregator)
        assert config.in_llm is not None
        yield (
            [f"in the LLM, after layer {config.in_llm.start + index * config.in_llm.stride + 1}"],
            connector.side,
            stack,
        )
