import torch
from torch import nn

from cambrian.models.connector import FeatureShape
from cambrian.models.joined_maps import join_maps
from cambrian.models.projector import ProjectorConnector

SHAPES = [FeatureShape(3, 4), FeatureShape(5, 2)]
SQUARE = torch.tensor([[9, 9], [9, 9]])
FEATURES = [
    torch.arange(2.0 * shape.channels * shape.grid**2).sin().view(2, shape.channels, shape.grid, shape.grid)
    for shape in SHAPES
]


def test_one_layer_is_one_linear_map_of_the_joined_features() -> None:
    connector = ProjectorConnector(SHAPES, side=4, num_layers=1, llm_dim=8)
    plain = nn.functional.linear(
        join_maps(FEATURES, 4).flatten(2).transpose(1, 2), connector.inputs.weight, connector.inputs.bias
    )
    torch.testing.assert_close(connector(FEATURES, SQUARE).tokens, plain)
    assert sum(parameter.numel() for parameter in connector.parameters()) == (3 + 5 + 1) * 8


def test_gelu_stands_between_layers_and_not_after_the_last() -> None:
    connector = ProjectorConnector(SHAPES, side=2, num_layers=3, llm_dim=8)
    tokens = connector.inputs(FEATURES, 2)
    for layer in [module for module in connector.layers if isinstance(module, nn.Linear)]:
        tokens = layer(nn.functional.gelu(tokens))
    assert [type(module) for module in connector.layers] == [nn.GELU, nn.Linear] * 2
    assert torch.equal(connector(FEATURES, SQUARE).tokens, tokens)


def test_every_layer_has_the_llm_s_width() -> None:
    connector = ProjectorConnector(SHAPES, side=2, num_layers=3, llm_dim=8)
    shapes = [tuple(parameter.shape) for parameter in connector.parameters() if parameter.dim() == 2]
    assert shapes == [(8, 8), (8, 8), (8, 8)]  # the first takes 3 + 5 channels
