import math

import pytest
import torch
from torch import Tensor, nn

from cambrian.models.aggregator import Aggregator, AggregatorLayer, Evidence, rearrange_windows

DIM, HEADS, QUERY_DIM, CONTEXT_DIM = 12, 3, 10, 7


def naive_layer(
    layer: AggregatorLayer, query: Tensor, windows: list[Tensor], masks: list[Tensor], context: Tensor
) -> Tensor:
    """One query, one feature at a time, as the paper's equations read."""
    hidden = layer.input_projection(torch.cat([query, layer.context_projection(context)]))
    query_heads = layer.query(hidden).view(HEADS, -1)
    keys, values = [], []
    for encoder, (window, mask) in enumerate(zip(windows, masks, strict=True)):
        for place, feature in enumerate(window):
            if mask[place]:
                if len(window) > 1:
                    feature = feature + layer.window_positions[f"encoder_{encoder}"][place]
                keys.append(layer.keys[encoder](feature).view(HEADS, -1))
                values.append(layer.values[encoder](feature).view(HEADS, -1))
    heads = []
    for head in range(HEADS):
        scores = torch.stack([query_heads[head] @ key[head] / math.sqrt(DIM / HEADS) for key in keys])
        heads.append(sum(weight * value[head] for weight, value in zip(scores.softmax(0), values, strict=True)))
    hidden = layer.norm(hidden + layer.attention_output(torch.cat(heads)))
    return query + layer.output(hidden)


@pytest.mark.parametrize("window_sides", [[1], [1, 3], [2, 1, 2]])
@torch.no_grad()
def test_a_stack_of_layers_equals_a_loop_over_queries(window_sides: list[int]) -> None:
    torch.manual_seed(0)
    stack = Aggregator(
        depth=2, query_dim=QUERY_DIM, dim=DIM, context_dim=CONTEXT_DIM, window_sides=window_sides, num_heads=HEADS
    ).double()
    for parameter in stack.parameters():
        nn.init.normal_(parameter)
    rows = 5
    queries, context = torch.randn(rows, QUERY_DIM).double(), torch.randn(rows, CONTEXT_DIM).double()
    windows = [torch.randn(rows, side**2, DIM).double() for side in window_sides]
    masks = [torch.rand(rows, side**2) < 0.7 for side in window_sides]
    masks[0][:, 0] = True
    output = stack(queries, Evidence(torch.cat(windows, dim=1), torch.cat(masks, dim=1), context))
    for row in range(rows):
        expected = queries[row]
        for layer in stack.layers:
            assert isinstance(layer, AggregatorLayer)
            expected = naive_layer(layer, expected, [w[row] for w in windows], [m[row] for m in masks], context[row])
        torch.testing.assert_close(output[row], expected, atol=1e-12, rtol=1e-12)


def test_a_window_holds_the_features_of_its_cell_row_by_row() -> None:
    features = torch.arange(2 * 4 * 4).view(2, 4, 4, 1).float()
    windows = rearrange_windows(features, 2)
    assert windows.shape == (8, 4, 1)
    assert windows[1, :, 0].tolist() == [2, 3, 6, 7]
    assert windows[6, :, 0].tolist() == [24, 25, 28, 29]


def test_a_map_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="a 5 x 5 map does not divide into 2 x 2 windows: interpolate"):
        rearrange_windows(torch.zeros(1, 5, 5, 3), 2)


def test_only_windows_of_more_than_one_feature_have_positions() -> None:
    layer = AggregatorLayer(query_dim=8, dim=8, context_dim=8, window_sides=[1, 4, 1], num_heads=2)
    assert {name: tuple(table.shape) for name, table in layer.window_positions.items()} == {"encoder_1": (16, 8)}


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="dim 10 does not divide into 4 heads"):
        AggregatorLayer(query_dim=8, dim=10, context_dim=8, window_sides=[1], num_heads=4)
