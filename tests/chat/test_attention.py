"""Shares against a loop over queries and heads, and recorded from whole models."""

import math

import pytest
import torch
from torch import Tensor, nn

from cambrian.chat.talker import Talker
from cambrian.evaluation.attention import attention_shares, record_shares
from cambrian.models.aggregator import Aggregator, AggregatorLayer, Evidence
from cambrian.models.padding import visible_cells
from tests.chat.conftest import png

DIM, HEADS, QUERY_DIM, CONTEXT_DIM = 12, 3, 10, 7


def share_of_one_query(
    layer: AggregatorLayer, query: Tensor, windows: list[Tensor], masks: list[Tensor], context: Tensor
) -> list[float]:
    """One query, one head, one feature at a time, as the paper's equations read."""
    hidden = layer.input_projection(torch.cat([query, layer.context_projection(context)]))
    query_heads = layer.query(hidden).view(HEADS, -1)
    totals = [0.0] * len(windows)
    for head in range(HEADS):
        exponentials: list[tuple[int, float]] = []
        for encoder, (window, mask) in enumerate(zip(windows, masks, strict=True)):
            for place, feature in enumerate(window):
                if not mask[place]:
                    continue
                if len(window) > 1:
                    feature = feature + layer.window_positions[f"encoder_{encoder}"][place]
                key = layer.keys[encoder](feature).view(HEADS, -1)[head]
                exponentials.append((encoder, math.exp(float(query_heads[head] @ key) / math.sqrt(DIM / HEADS))))
        normaliser = sum(value for _, value in exponentials)
        for encoder, value in exponentials:
            totals[encoder] += value / normaliser / HEADS
    return totals


@pytest.mark.parametrize("window_sides", [[1], [1, 3], [2, 1, 2]])
@torch.no_grad()
def test_shares_equal_a_loop_over_queries_and_heads(window_sides: list[int]) -> None:
    torch.manual_seed(0)
    layer = AggregatorLayer(
        query_dim=QUERY_DIM, dim=DIM, context_dim=CONTEXT_DIM, window_sides=window_sides, num_heads=HEADS
    ).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    rows = 5
    queries, context = torch.randn(rows, QUERY_DIM).double(), torch.randn(rows, CONTEXT_DIM).double()
    windows = [torch.randn(rows, side**2, DIM).double() for side in window_sides]
    masks = [torch.rand(rows, side**2) < 0.7 for side in window_sides]
    masks[0][:, 0] = True
    found = attention_shares(layer, queries, Evidence(torch.cat(windows, 1), torch.cat(masks, 1), context))
    expected = [
        share_of_one_query(layer, queries[row], [w[row] for w in windows], [m[row] for m in masks], context[row])
        for row in range(rows)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=1e-12)


def test_every_layer_is_recorded_in_the_order_in_which_it_acts(talker: Talker) -> None:
    layers = talker.answer([png(9, 9)], [], "what colour is it", max_new_tokens=2).layers
    assert [layer.name for layer in layers] == [
        "connector, group 1, layer 1",
        "connector, group 1, layer 2",
        "connector, group 2, layer 1",
        "connector, group 2, layer 2",
        "in the LLM, after layer 1",
        "in the LLM, after layer 3",
    ]
    assert [tuple(layer.shares.shape) for layer in layers] == [(1, 2, side, side) for side in (2, 2, 1, 1, 2, 2)]
    for layer in layers:
        torch.testing.assert_close(layer.shares.sum(dim=1), torch.ones(1, *layer.shares.shape[2:]))


@torch.no_grad()
def test_shares_are_those_of_the_layers_own_attention() -> None:
    """Where one encoder's values are all ones and the others' zeros, what a head reads is that encoder's share."""
    torch.manual_seed(1)
    sides, rows = [2, 1, 3], 6
    stack = Aggregator(
        depth=1, query_dim=QUERY_DIM, dim=DIM, context_dim=CONTEXT_DIM, window_sides=sides, num_heads=HEADS
    ).double()
    layer = stack.layers[0]
    assert isinstance(layer, AggregatorLayer)
    features = torch.randn(rows, sum(side**2 for side in sides), DIM).double()
    mask = torch.rand(features.shape[:2]) < 0.8
    mask[:, 0] = True
    queries = torch.randn(rows, QUERY_DIM).double()
    evidence = Evidence(features, mask, torch.randn(rows, CONTEXT_DIM).double())
    read: list[Tensor] = []
    layer.attention_output.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    for chosen in range(len(sides)):
        for encoder, (norm, linear) in enumerate(layer.values):
            norm.weight.zero_()
            norm.bias.fill_(1.0 if encoder == chosen else 0.0)
            linear.weight.fill_(1 / DIM)
        stack(queries, evidence)
    expected = torch.stack([attended.mean(dim=1) for attended in read], dim=1)
    torch.testing.assert_close(attention_shares(layer, queries, evidence), expected, atol=1e-12, rtol=1e-12)


def test_cells_of_the_padding_have_no_share(talker: Talker) -> None:
    sizes = torch.tensor([[40, 4], [4, 40], [8, 8]])
    layers = talker.answer([png(*size) for size in sizes.tolist()], [], "which", max_new_tokens=1).layers
    assert len(layers) == 6
    for layer in layers:
        visible = visible_cells(sizes, layer.shares.shape[-1])
        assert torch.equal(~layer.shares.isnan(), visible[:, None].expand_as(layer.shares))
        torch.testing.assert_close(layer.means().sum(dim=1), torch.ones(3))


def test_a_picture_beside_others_has_the_shares_that_it_has_alone_before_the_llm(talker: Talker) -> None:
    pictures = [png(8, 8), png(12, 5, (0, 90, 200))]
    together = talker.answer(pictures, [], "which", max_new_tokens=1).layers
    alone = talker.answer(pictures[1:], [], "which", max_new_tokens=1).layers
    torch.testing.assert_close(together[0].shares[1], alone[0].shares[0], equal_nan=True)


def test_nothing_is_left_on_the_model_even_where_an_answer_fails(talker: Talker) -> None:
    class FaultError(Exception):
        """Made on purpose."""

    def fail_after_recording() -> None:
        with record_shares(talker.model, talker.config.connector, torch.tensor([[4, 4]])):
            assert num_hooks() > before
            raise FaultError

    def num_hooks() -> int:
        return sum(len(module._forward_pre_hooks) for module in talker.model.modules())

    before = num_hooks()
    with pytest.raises(FaultError):
        fail_after_recording()
    assert num_hooks() == before


def test_recording_changes_no_answer(talker: Talker, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = talker.answer([png(9, 5)], [], "what", max_new_tokens=8).text
    monkeypatch.setattr("cambrian.evaluation.attention._named_stacks", lambda *_: iter(()))
    plain = talker.answer([png(9, 5)], [], "what", max_new_tokens=8)
    assert plain.text == recorded
    assert plain.layers == ()


def test_text_alone_and_other_connectors_have_no_shares(talker: Talker, talker_without_sva: Talker) -> None:
    assert talker.answer([], [], "what", max_new_tokens=1).layers == ()
    assert talker_without_sva.answer([png(4, 4)], [], "what", max_new_tokens=1).layers == ()
