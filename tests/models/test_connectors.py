import pytest
import torch
from torch import Tensor

from cambrian.models.building import build_connector
from cambrian.models.config import ConnectorConfig
from cambrian.models.connector import Connector, FeatureShape, TokenLayout
from cambrian.models.mlp import MLPConnector
from cambrian.models.sva import SVAConnector
from tests.models.conftest import CONNECTORS, model_config

SHAPES = [FeatureShape(3, 4), FeatureShape(5, 7)]
SQUARE = torch.tensor([[9, 9], [9, 9]])


def build(name: str, shapes: list[FeatureShape] = SHAPES) -> tuple[ConnectorConfig, Connector]:
    torch.manual_seed(0)
    config = model_config(name).connector
    return config, build_connector(config, shapes, llm_dim=24)


def make_features(shapes: list[FeatureShape] = SHAPES, images: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(images, shape.channels, shape.grid, shape.grid, generator=generator) for shape in shapes]


@pytest.mark.parametrize("name", CONNECTORS)
def test_every_connector_gives_its_number_of_tokens(name: str) -> None:
    config, connector = build(name)
    tokens = connector(make_features(), SQUARE).tokens
    assert tokens.shape == (2, 3 if name == "resampler" else 4, 24)
    layout = TokenLayout(config, num_tokens=connector.num_tokens, dim=24)
    assert layout(tokens).shape == (2, layout.num_positions, 24)
    assert layout.num_positions == (3 if name == "resampler" else 4 + 2)


@pytest.mark.parametrize("name", CONNECTORS)
def test_an_image_does_not_depend_on_its_neighbours_in_the_batch(name: str) -> None:
    _, connector = build(name)
    features, sizes = make_features(images=3), torch.tensor([[9, 9], [8, 4], [3, 6]])
    together = connector(features, sizes).tokens
    for image in range(3):
        alone = connector([feature_map[image : image + 1] for feature_map in features], sizes[image : image + 1]).tokens
        torch.testing.assert_close(alone[0], together[image], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CONNECTORS)
def test_a_gradient_reaches_every_parameter_and_every_encoder(name: str) -> None:
    _, connector = build(name)
    features = [feature_map.requires_grad_() for feature_map in make_features()]
    visual = connector(features, SQUARE)
    weights = torch.linspace(-1, 2, visual.tokens.numel()).view_as(visual.tokens)
    (visual.tokens * weights).sum().backward()
    named = {**dict(connector.named_parameters()), **{f"encoder {k}": found for k, found in enumerate(features)}}
    assert [name for name, tensor in named.items() if tensor.grad is None or not tensor.grad.any()] == []


def test_unshuffling_keeps_every_feature_of_a_cell() -> None:
    connector = MLPConnector([FeatureShape(1, 4)], side=2, delivery="unshuffle", hidden_dim=8, llm_dim=8)
    feature_map = torch.arange(16.0).view(1, 1, 4, 4)
    assert connector._deliver([feature_map], 2)[0].tolist() == [
        [0, 1, 4, 5],
        [2, 3, 6, 7],
        [8, 9, 12, 13],
        [10, 11, 14, 15],
    ]


def test_a_map_that_does_not_divide_is_interpolated_up_before_unshuffling() -> None:
    connector = MLPConnector([FeatureShape(5, 7)], side=2, delivery="unshuffle", hidden_dim=8, llm_dim=8)
    assert connector.cell_sides == [4]


def test_interpolation_to_a_quarter_of_the_grid_takes_the_middle_of_each_cell() -> None:
    connector = MLPConnector([FeatureShape(1, 4)], side=2, delivery="interpolate", hidden_dim=8, llm_dim=8)
    feature_map = torch.arange(16.0).view(1, 1, 4, 4)
    assert connector._deliver([feature_map], 1)[0].flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@pytest.mark.parametrize(("grid", "window"), [(1, 1), (2, 1), (5, 2), (7, 3), (64, 3)], ids=lambda value: str(value))
def test_a_window_is_the_largest_that_the_map_fills(grid: int, window: int) -> None:
    _, connector = build("sva", [FeatureShape(3, grid)])
    assert isinstance(connector, SVAConnector)
    assert connector.window_sides == [window]


def test_the_release_s_windows_follow_from_its_grids() -> None:
    shapes = [FeatureShape(4, grid) for grid in (27, 24, 27, 256)]
    connector = SVAConnector(
        shapes, side=24, depth=1, group_sides=[24], dim=4, num_heads=1, max_window_side=4, llm_dim=4,
        has_aggregators=False,
    )  # fmt: skip
    assert connector.window_sides == [1, 1, 1, 4]
    assert connector.map_sides == [24, 24, 24, 96]


def test_a_query_attends_only_to_its_own_cell() -> None:
    _, connector = build("sva", [FeatureShape(3, 2), FeatureShape(3, 4)])
    features = make_features([FeatureShape(3, 2), FeatureShape(3, 4)], images=1)
    before = connector(features, SQUARE[:1]).tokens
    features[1][0, :, 0, 3] += 1.0  # the upper right cell; the first encoder alone makes the global context
    changed = (connector(features, SQUARE[:1]).tokens - before).abs().amax(dim=-1)[0] > 0
    assert changed.tolist() == [False, True, False, False]


def test_features_in_the_padding_are_not_attended_to() -> None:
    shapes = [FeatureShape(3, 2), FeatureShape(3, 4)]
    _, connector = build("sva", shapes)
    features, sizes = make_features(shapes, images=1), torch.tensor([[8, 4]])
    before = connector(features, sizes).tokens
    features[1][0, :, [0, 3]] += 1.0
    assert torch.equal(connector(features, sizes).tokens, before)


def test_a_group_that_does_not_divide_the_maps_is_refused() -> None:
    with pytest.raises(ValueError, match="query group of 3 x 3 does not divide an encoder's 4 x 4 map"):
        SVAConnector(
            [FeatureShape(3, 4)], side=2, depth=1, group_sides=[3], dim=4, num_heads=1, max_window_side=2, llm_dim=4,
            has_aggregators=False,
        )  # fmt: skip


def test_newlines_close_each_row_and_visual_tokens_keep_their_places() -> None:
    config = model_config("mlp").connector
    layout = TokenLayout(config.model_copy(update={"position_rms": None, "output_rms": None}), num_tokens=4, dim=1)
    assert layout.newline is not None
    with torch.no_grad():
        layout.newline.fill_(-1.0)
    assert layout(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])).flatten().tolist() == [1, 2, -1, 3, 4, -1]
    assert layout.token_index.tolist() == [0, 1, 3, 4]


def test_a_hidden_row_hides_its_newline_and_hidden_columns_do_not() -> None:
    config = model_config("mlp").connector.model_copy(update={"side": 3})
    layout = TokenLayout(config, num_tokens=9, dim=1)
    visible = layout.visible(torch.tensor([[9, 3], [3, 9]]))
    assert visible is not None
    assert visible.view(2, 3, 4).int().tolist() == [
        [[0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
        [[0, 1, 0, 1], [0, 1, 0, 1], [0, 1, 0, 1]],
    ]
    assert layout.visible(torch.tensor([[5, 5]])) is None


def test_tokens_and_their_positions_start_as_large_as_asked_for() -> None:
    config = model_config("mlp").connector.model_copy(update={"position_rms": 0.2, "output_rms": 0.5})
    layout = TokenLayout(config, num_tokens=400, dim=64)
    assert layout.positions is not None
    assert layout.positions.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.05)
    tokens = layout.norm(torch.randn(2, 400, 64) * 7)
    assert tokens.square().mean().sqrt().item() == pytest.approx(0.5, rel=1e-3)
