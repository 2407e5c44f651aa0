import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.models.connector import FeatureShape
from cambrian.models.ldp import LDPv2Connector

SQUARE = torch.tensor([[9, 9]])


def make_identity(dim: int, *, input_side: int, side: int) -> LDPv2Connector:
    """Both point-wise layers pass everything; the convolution is zero until a test fills it."""
    connector = LDPv2Connector([FeatureShape(dim, input_side)], input_side=input_side, side=side, llm_dim=dim).double()
    with torch.no_grad():
        for layer in (connector.inputs, connector.output):
            layer.weight.copy_(torch.eye(dim))
            layer.bias.zero_()
        connector.neighbours.weight.zero_()
        connector.neighbours.bias.zero_()
    return connector


def make_map(dim: int, side: int) -> Tensor:
    """Values from 50: there GELU passes a number of double precision as it is."""
    return 50.0 + torch.arange(dim * side**2, dtype=torch.float64).view(1, dim, side, side)


def test_with_identity_layers_a_token_is_the_mean_of_its_cell() -> None:
    connector = make_identity(1, input_side=4, side=2)
    assert connector([make_map(1, 4)], SQUARE).tokens.flatten().tolist() == [52.5, 54.5, 60.5, 62.5]


def test_the_residual_adds_a_depth_wise_convolution_of_the_pooled_grid() -> None:
    connector = make_identity(2, input_side=6, side=3)
    with torch.no_grad():
        connector.neighbours.weight[0, 0, 1, 0] = 1.0  # channel 0 adds its left neighbour
        connector.neighbours.bias[1] = 7.0
    tokens = connector([make_map(2, 6)], SQUARE).tokens[0]
    pooled = functional.avg_pool2d(make_map(2, 6), 2)[0]
    left = functional.pad(pooled[0], (1, 0))[:, :3]
    assert tokens[:, 0].tolist() == (pooled[0] + left).flatten().tolist()
    assert tokens[:, 1].tolist() == (pooled[1] + 7.0).flatten().tolist()


def test_pooling_before_the_second_layer_is_pooling_after_it() -> None:
    torch.manual_seed(0)
    shapes = [FeatureShape(3, 6), FeatureShape(5, 4)]
    connector = LDPv2Connector(shapes, input_side=6, side=2, llm_dim=8).double()
    features = [torch.randn(2, shape.channels, shape.grid, shape.grid, dtype=torch.float64) for shape in shapes]
    transformed = connector.output(functional.gelu(connector.inputs(features, 6)))
    grid = functional.adaptive_avg_pool2d(transformed.transpose(1, 2).unflatten(2, (6, 6)), 2)
    expected = (grid + connector.neighbours(grid)).flatten(2).transpose(1, 2)
    found = connector(features, SQUARE.expand(2, -1)).tokens
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0.0)  # eight sums in another order


def test_it_has_the_parameters_of_two_layers_and_one_depth_wise_convolution() -> None:
    connector = LDPv2Connector([FeatureShape(1024, 24)], input_side=24, side=6, llm_dim=64)
    count = sum(parameter.numel() for parameter in connector.parameters())
    assert count == (1024 + 1) * 64 + (64 + 1) * 64 + (9 + 1) * 64
    assert isinstance(connector.neighbours, nn.Conv2d)


@pytest.mark.parametrize(("input_side", "near"), [(24, "20 or 25"), (3, "5")])
def test_a_grid_that_does_not_divide_is_refused_with_the_nearest_that_does(input_side: int, near: str) -> None:
    with pytest.raises(ValueError, match=rf"side 5 does not divide input_side {input_side}.*set input_side to {near},"):
        LDPv2Connector([FeatureShape(4, 24)], input_side=input_side, side=5, llm_dim=8)
