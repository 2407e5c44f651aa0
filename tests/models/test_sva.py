"""Queries whose cells lie in padding: left out, for nothing, and nobody who may look sees a difference."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cambrian.models.aggregator import Aggregator
from cambrian.models.connector import FeatureShape
from cambrian.models.encoders import resize_map
from cambrian.models.llm_aggregators import Vision
from cambrian.models.padding import visible_cells
from cambrian.models.sva import SVAConnector

SIDE = 8
SHAPES = [FeatureShape(3, 2 * SIDE), FeatureShape(5, 4 * SIDE)]
SQUARE = torch.tensor([[8, 8]])
# widths and heights, by how many of the 64 cells show picture
PADDED = {48: torch.tensor([[8, 6]]), 32: torch.tensor([[8, 4]]), 16: torch.tensor([[2, 8]])}


def build(*, skip_hidden: bool, group_sides: tuple[int, ...] = (SIDE,)) -> SVAConnector:
    torch.manual_seed(0)
    connector = SVAConnector(
        SHAPES, side=SIDE, depth=2, group_sides=group_sides, dim=12, num_heads=3, max_window_side=4, llm_dim=10,
        has_aggregators=True, skip_hidden=skip_hidden,
    )  # fmt: skip
    return connector.double()


def make_features(images: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(images, shape.channels, shape.grid, shape.grid, generator=generator).double() for shape in SHAPES
    ]


@pytest.mark.parametrize("group_sides", [(8,), (4,), (16,), (8, 4), (2, 16)], ids=str)
def test_visible_tokens_and_gradients_do_not_change_and_hidden_tokens_are_zero(group_sides: tuple[int, ...]) -> None:
    sizes = torch.tensor([[8, 3], [8, 8], [5, 8]])
    visible = visible_cells(sizes, SIDE).flatten(1)
    results = []
    for skip_hidden in (False, True):
        connector = build(skip_hidden=skip_hidden, group_sides=group_sides)
        tokens = connector(make_features(3), sizes).tokens
        weights = torch.arange(tokens[visible].numel()).view_as(tokens[visible])
        gradients = torch.autograd.grad((tokens[visible] * weights).sum(), list(connector.parameters()))
        results.append((tokens, gradients))
    (expected, expected_gradients), (found, gradients) = results
    torch.testing.assert_close(found[visible], expected[visible], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(gradients, expected_gradients, atol=1e-8, rtol=1e-10)
    assert found[~visible].numel() > 0
    assert found[~visible].abs().max() == 0


def count_flops(connector: SVAConnector, sizes: Tensor) -> int:
    features = make_features(1)
    with FlopCounterMode(display=False) as counter:
        connector(features, sizes).tokens.sum().backward()
    return counter.get_total_flops()


def test_a_query_in_padding_costs_nothing() -> None:
    connector = build(skip_hidden=True)
    costs = {cells: count_flops(connector, sizes) for cells, sizes in PADDED.items()}
    per_query = (costs[48] - costs[32]) / 16
    assert per_query > 0
    assert costs[32] - costs[16] == 16 * per_query
    # the rest does not depend on queries: maps are projected, and weights are folded, once
    rest = costs[16] - 16 * per_query
    everything = build(skip_hidden=False)
    finding = 2 * 2 * 2 * SIDE**3  # which cells are visible: two products of grids, for evidence and for the output
    assert {count_flops(everything, sizes) for sizes in PADDED.values()} == {rest + 64 * per_query - finding}


def test_inside_the_llm_a_cell_in_padding_costs_nothing_and_keeps_its_hidden_state() -> None:
    connector = build(skip_hidden=True)
    aggregator = Aggregator(
        depth=1, query_dim=6, dim=12, context_dim=12, window_sides=connector.window_sides, num_heads=3
    ).double()
    costs = {}
    for cells, sizes in PADDED.items():
        evidence = connector(make_features(1), sizes).evidence
        assert evidence is not None
        vision = Vision(evidence, 3 + torch.arange(64))  # three texts before the image
        assert torch.equal(vision.rows, 3 + visible_cells(sizes, SIDE).flatten().nonzero().squeeze(1))
        hidden = torch.randn(70, 6).double()
        with FlopCounterMode(display=False) as counter:
            assert aggregator(hidden[vision.rows], vision.evidence).shape == (cells, 6)
        costs[cells] = counter.get_total_flops()
    assert costs[48] - costs[32] == costs[32] - costs[16] > 0


def test_evidence_for_the_llm_holds_only_visible_cells() -> None:
    sizes = torch.cat([PADDED[32], SQUARE, PADDED[16]])
    evidence = build(skip_hidden=True)(make_features(3), sizes).evidence
    assert evidence is not None
    assert evidence.rows is not None
    assert torch.equal(evidence.rows, visible_cells(sizes, SIDE).flatten().nonzero().squeeze(1))
    assert len(evidence.features) == len(evidence.rows) == 32 + 64 + 16
    complete = build(skip_hidden=False)(make_features(3), sizes).evidence
    assert complete is not None
    assert complete.rows is None
    torch.testing.assert_close(evidence.features, complete.features[evidence.rows])
    torch.testing.assert_close(evidence.context, complete.context[evidence.rows])
    assert evidence.mask is not None
    assert complete.mask is not None
    assert torch.equal(evidence.mask, complete.mask[evidence.rows])


def test_square_images_leave_nothing_out() -> None:
    evidence = build(skip_hidden=True)(make_features(1), SQUARE).evidence
    assert evidence is not None
    assert evidence.rows is None
    assert evidence.mask is None


def test_layers_on_grids_of_their_own_are_each_resized_once_before_or_after_the_first_layer() -> None:
    torch.manual_seed(0)
    grids, channels, side = (8, 4, 2, 1), (4, 6, 8, 10), 4
    shapes = [FeatureShape(sum(channels), 8, num_maps=4)]
    values = {"depth": 1, "group_sides": [2], "dim": 16, "num_heads": 2, "max_window_side": 2, "llm_dim": 12}
    connector = SVAConnector(shapes, side=2, has_aggregators=False, **values).double()  # type: ignore[arg-type]
    maps = [torch.randn(2, count, grid, grid).double() for count, grid in zip(channels, grids, strict=True)]
    sizes = torch.full((2, 2), 32)
    once = torch.cat([resize_map(one, side) for one in maps], dim=1)
    delivered = SVAConnector([FeatureShape(sum(channels), 4)], side=2, has_aggregators=False, **values).double()  # type: ignore[arg-type]
    delivered.load_state_dict(connector.state_dict())
    expected = delivered([once], sizes).tokens
    torch.testing.assert_close(connector(maps, sizes).tokens, expected, atol=1e-10, rtol=0)
    finest = torch.cat([resize_map(one, 8) for one in maps], dim=1)  # resized twice: other numbers
    assert (delivered([resize_map(finest, side)], sizes).tokens - expected).abs().max() > 1e-4
    with pytest.raises(ValueError, match=r"3 feature maps, expected 4, one per layer of every encoder"):
        connector(maps[:3], sizes)
