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


def make_layer(window_sides: list[int], *, num_rows: int) -> tuple[AggregatorLayer, Tensor, Evidence]:
    torch.manual_seed(0)
    layer = AggregatorLayer(
        query_dim=QUERY_DIM, dim=DIM, context_dim=CONTEXT_DIM, window_sides=window_sides, num_heads=HEADS
    )
    features = torch.randn(num_rows, sum(layer.window_lengths), DIM)
    return layer, torch.randn(num_rows, QUERY_DIM), Evidence(features, None, torch.randn(num_rows, CONTEXT_DIM))


def test_rows_of_an_image_may_share_one_context() -> None:
    layer, queries, evidence = make_layer([1, 2], num_rows=5)
    evidence.context = torch.tensor([0, 0, 1, 1, 1])[:, None] * torch.ones(CONTEXT_DIM)
    alone = layer(queries, evidence.standardise(layer.window_lengths), None)
    shared = evidence.standardise(layer.window_lengths, rows_per_context=torch.tensor([2, 3]))
    assert len(shared.contexts) == 2
    torch.testing.assert_close(layer(queries, shared, None), alone)


def test_queries_without_evidence_stay_as_they_are() -> None:
    torch.manual_seed(0)
    stack = Aggregator(depth=2, query_dim=4, dim=6, context_dim=3, window_sides=[1, 2], num_heads=2)
    queries, features, context = torch.randn(5, 4), torch.randn(5, 5, 6), torch.randn(5, 3)
    complete = stack(queries, Evidence(features, None, context))
    rows = torch.tensor([1, 4])
    output = stack(queries, Evidence(features[rows], None, context[rows], rows=rows))
    torch.testing.assert_close(output[rows], complete[rows])
    assert torch.equal(output[[0, 2, 3]], queries[[0, 2, 3]])


def test_a_layer_keeps_nothing_that_grows_with_the_window_or_the_heads() -> None:
    layer, queries, evidence = make_layer([1, 5], num_rows=64)
    shared = evidence.standardise(layer.window_lengths)
    known = {tensor.data_ptr() for tensor in (*layer.parameters(), *shared.windows, *shared.deviations)}
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in known:
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(queries.requires_grad_(), shared, None)
    # the largest are scores; a projected feature for each place would be HEAD_DIM times, a query in feature space DIM
    assert max(kept) == 64 * HEADS * (1 + 25)


@pytest.mark.parametrize("way", ["half precision", "autocast"])
def test_bfloat16_gives_the_same_to_its_precision(way: str) -> None:
    layer, queries, evidence = make_layer([1, 3], num_rows=6)
    expected = layer(queries, evidence.standardise(layer.window_lengths), None)
    if way == "half precision":
        layer = layer.bfloat16()
        queries, features = queries.bfloat16(), evidence.features.bfloat16()
        evidence = Evidence(features, None, evidence.context.bfloat16())
    with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
        found = layer(queries.requires_grad_(), evidence.standardise(layer.window_lengths), None)
    found.float().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    # 8 bits: half a unit in the last place is 2e-3 of the value; some ten roundings on the way
    torch.testing.assert_close(found.float(), expected, atol=4e-2, rtol=2e-2)


def test_a_stack_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        stack = Aggregator(depth=1, query_dim=4, dim=6, context_dim=3, window_sides=[1, 2], num_heads=2)
        output = stack(torch.randn(5, 4), Evidence(torch.randn(5, 5, 6), None, torch.randn(5, 3)))
    assert output.shape == (5, 4)
