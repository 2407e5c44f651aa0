"""From encoder features to what stands at the image's positions, against the official modules."""

from math import isqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from cambrian.models.config import SVAConfig
from cambrian.models.connector import FeatureShape, TokenLayout, Visual
from cambrian.models.padding import visible_cells
from cambrian.models.sva import SVAConnector
from tests.parity.files import golden_files, official_aggregator_name, part_of, read_golden

# float32 sums in another order than the official modules
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}

CONNECTOR_FILES = golden_files("connector_g")


@pytest.mark.parametrize("path", CONNECTOR_FILES, ids=lambda path: path.stem)
def test_visual_tokens_and_their_layout_are_the_official_ones(path: Path) -> None:
    config, tensors = read_golden(path)
    connector, layout, features, sizes = build(config, tensors)
    num_images = len(tensors["inference.mm_projector_out"])
    visual = connector([feature_map[:num_images] for feature_map in features], sizes[:num_images])
    torch.testing.assert_close(visual.tokens, tensors["inference.mm_projector_out"], **TOLERANCE)
    positions, visible = layout(visual.tokens), layout.visible(sizes[:num_images])
    assert visible is not None
    rows = visible_cells(sizes[:num_images], connector.side)
    for image in range(num_images):
        # the release crops hidden columns with their newlines kept: rows x (columns + 1) tokens stay
        kept = positions[image][visible[image]]
        torch.testing.assert_close(kept, tensors[f"inference.image_tokens_{image}"], **TOLERANCE)
        size = [int(rows[image].any(dim=1).sum()), int(rows[image].any(dim=0).sum())]
        assert size == tensors["inference.final_size_hw"][image].tolist()


@pytest.mark.parametrize("path", CONNECTOR_FILES, ids=lambda path: path.stem)
def test_what_aggregators_inside_the_llm_see_is_the_official(path: Path) -> None:
    config, tensors = read_golden(path)
    connector, _, features, sizes = build(config, tensors)
    num_images = len(tensors["inference.mm_projector_out"])
    visual: Visual = connector([feature_map[:num_images] for feature_map in features], sizes[:num_images])
    evidence = visual.evidence
    assert evidence is not None
    assert evidence.mask is not None
    kept = visible_cells(sizes[:num_images], connector.side).flatten()
    encoders = range(len(features))
    official_mask = torch.cat([tensors[f"inference.llm_mask_{index}"] for index in encoders], dim=1)
    assert torch.equal(evidence.mask[kept], official_mask)
    torch.testing.assert_close(evidence.context[kept], tensors["inference.llm_context"][:, 0], **TOLERANCE)
    lengths = [window_side**2 for window_side in connector.window_sides]
    for index, window in enumerate(evidence.features.split(lengths, dim=1)):
        name = f"inference.llm_window_{index}"
        if name in tensors:  # only one-group files have them
            torch.testing.assert_close(window[kept], tensors[name], **TOLERANCE)


@pytest.mark.parametrize("path", [path for path in CONNECTOR_FILES if "g1" in path.stem], ids=lambda path: path.stem)
def test_gradients_of_all_vision_parameters_are_the_official_ones(path: Path) -> None:
    config, tensors = read_golden(path)
    connector, layout, features, sizes = build(config, tensors)
    positions = layout(connector(features, sizes).tokens)
    # the image's slots in the fixed-length route: the placeholder and the zero ids after it
    num_slots = positions.shape[1]
    starts = (tensors["train.input_ids"] == -200).to(torch.int64).argmax(dim=1)
    weights = torch.stack(
        [row[start : start + num_slots] for row, start in zip(tensors["train.loss_weight"], starts, strict=True)]
    )
    (positions * weights).sum().backward()
    stored = part_of(tensors, "train.grad.param.model.")
    ours = official_parameters(connector, layout)
    assert set(ours) == set(stored) - {"embed_tokens.weight"}
    for name, parameter in ours.items():
        assert parameter.grad is not None
        # sums over all images' cells, so the error grows with the gradient's own size
        limit = 1e-4 * float(stored[name].abs().max())
        torch.testing.assert_close(
            parameter.grad.double(),
            stored[name].double(),
            atol=max(limit, 2e-5),
            rtol=1e-4,
            msg=lambda text, name=name: f"{name}: {text}",
        )


def build(config: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[SVAConnector, TokenLayout, list[Tensor], Tensor]:
    grids = [isqrt(tokens) for tokens in config["mm_vision_tower_aux_token_len_list"]]
    side = isqrt(config["image_token_len"])
    connector_config = SVAConfig(
        kind="sva",
        side=side,
        newline=True,
        hide_padding=True,
        position_rms=None,
        output_rms=None,
        depth=config["connector_depth"],
        group_sides=tuple(isqrt(queries) for queries in config["query_num_list"]),
        dim=config["vision_hidden_size"],
        num_heads=16,
        max_window_side=max(grids) // side,
        in_llm=None,
    )
    connector = SVAConnector(
        [FeatureShape(channels, grid) for channels, grid in zip(config["tower_hidden_sizes"], grids, strict=True)],
        side=side,
        depth=connector_config.depth,
        group_sides=connector_config.group_sides,
        dim=connector_config.dim,
        num_heads=connector_config.num_heads,
        max_window_side=connector_config.max_window_side,
        llm_dim=config["hidden_size"],
        has_aggregators=True,
    )
    layout = TokenLayout(connector_config, num_tokens=connector.num_tokens, dim=config["hidden_size"])
    ours, stored = official_parameters(connector, layout), part_of(tensors, "param.model.")
    assert set(ours) == set(stored) - {"embed_tokens.weight"}
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(stored[name].view_as(parameter))
    features = [
        rearrange(tensors[f"input.features_{index}"], "images (row column) dim -> images dim row column", row=grid)
        for index, grid in enumerate(grids)
    ]
    return connector, layout, features, tensors["input.image_sizes_wh"]


def official_parameters(connector: SVAConnector, layout: TokenLayout) -> dict[str, torch.nn.Parameter]:
    named = {f"image_{name}": parameter for name, parameter in layout.named_parameters()}
    for name, parameter in connector.named_parameters():
        first, _, rest = name.partition(".")
        match first:
            case "queries":
                official = "vision_query"
            case "output":
                official = f"mm_projector.{rest}"
            case "projections":
                encoder, _, leaf = rest.partition(".")
                official = f"mm_projector_aux_{encoder}.{leaf}"
            case _:
                group, _, leaf = rest.partition(".")
                official = f"vision_sampler_{group}.{official_aggregator_name(leaf)}"
        named[official] = parameter
    return named
