from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cambrian.models.c_abstractor import CAbstractorConnector
from cambrian.models.connector import FeatureShape

SQUARE = torch.tensor([[9, 9]])
VALUES = {"input_side": 4, "side": 2, "depth": 2, "dim": 6, "num_mlp_layers": 2, "input_positions": "none"}


def make_connector(shapes: list[FeatureShape], **changes: Any) -> CAbstractorConnector:
    torch.manual_seed(0)
    return CAbstractorConnector(shapes, **{**VALUES, "llm_dim": 8, **changes})


def make_residual_only(connector: CAbstractorConnector) -> None:
    """Let nothing but the shortcut through every block."""
    for name, parameter in connector.named_parameters():
        if name.endswith(("conv3.bn.weight", "conv3.bn.bias")):
            nn.init.zeros_(parameter)


def normed(feature_map: Tensor) -> Tensor:
    return functional.layer_norm(feature_map.movedim(1, -1), feature_map.shape[1:2]).movedim(-1, 1)


def test_with_blocks_that_add_nothing_it_pools_activations_and_applies_the_mlp() -> None:
    connector = make_connector([FeatureShape(6, 4)], depth=1)
    make_residual_only(connector)
    feature_map = torch.linspace(-2, 3, 6 * 16).view(1, 6, 4, 4)
    pooled = functional.silu(functional.avg_pool2d(functional.silu(feature_map), 2))
    expected = connector.output(pooled.flatten(2).transpose(1, 2))
    torch.testing.assert_close(connector([feature_map], SQUARE).tokens, expected)


def test_a_block_is_a_regnet_block_with_squeeze_and_excitation() -> None:
    """One block by hand: 1 x 1, depth-wise 3 x 3, gate, 1 x 1, each with a norm over channels; then the residual."""
    connector = make_connector([FeatureShape(6, 4)], depth=1)
    (block,) = connector.blocks
    named = dict(block.named_parameters())
    nn.init.normal_(named["se.fc2.bias"])
    feature_map = torch.linspace(-1, 1, 6 * 16).sin().view(1, 6, 4, 4)
    hidden = functional.silu(normed(functional.conv2d(feature_map, named["conv1.conv.weight"])))
    hidden = functional.silu(normed(functional.conv2d(hidden, named["conv2.conv.weight"], padding=1, groups=6)))
    gate = functional.silu(
        functional.conv2d(hidden.mean(dim=(2, 3), keepdim=True), named["se.fc1.weight"], named["se.fc1.bias"])
    )
    hidden = hidden * functional.conv2d(gate, named["se.fc2.weight"], named["se.fc2.bias"]).sigmoid()
    hidden = normed(functional.conv2d(hidden, named["conv3.conv.weight"]))
    # timm's norm over channels has an epsilon of 1e-6, torch's default is 1e-5: at unit variance 5e-6 apart
    torch.testing.assert_close(block(feature_map), functional.silu(hidden + feature_map), atol=2e-4, rtol=1e-3)


def test_learned_positions_tell_equal_features_apart() -> None:
    feature_map = torch.ones(1, 6, 4, 4)
    plain, learned = (make_connector([FeatureShape(6, 4)], input_positions=kind) for kind in ("none", "learned"))
    with torch.no_grad():
        nn.init.normal_(learned.input_positions)
        for connector in (plain, learned):  # a padded convolution alone sees the border
            for blocks in (connector.blocks, connector.pooled_blocks):
                for block in blocks:
                    block.conv2.conv.weight[:, :, [0, 2]] = 0.0
                    block.conv2.conv.weight[:, :, :, [0, 2]] = 0.0
        spread = [
            (tokens - tokens[:1]).abs().max()
            for tokens in (c([feature_map], SQUARE).tokens[0] for c in (plain, learned))
        ]
    assert spread[0] < 1e-5 < 1e-2 < spread[1]


def test_depth_counts_the_blocks_before_and_after_the_pooling() -> None:
    connector = make_connector([FeatureShape(3, 4), FeatureShape(5, 7)], depth=3, num_mlp_layers=1)
    assert (len(connector.blocks), len(connector.pooled_blocks), len(connector.output)) == (3, 3, 1)


def test_a_grid_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"side 3 does not divide input_side 4.*set input_side to 3 or 6"):
        make_connector([FeatureShape(3, 4)], side=3)
