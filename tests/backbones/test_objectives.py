from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from cambrian.backbones.config import TrainedEncoder
from cambrian.backbones.corpora import read_images
from cambrian.backbones.objectives.config import NoObjectiveConfig
from cambrian.backbones.objectives.dense import PixelHead, pixels_per_feature, take_every
from cambrian.backbones.objectives.language import caption_ids
from cambrian.backbones.objectives.masked import draw_blocks, encode_visible, take_tokens
from cambrian.backbones.objectives.objective import feature_map
from cambrian.backbones.objectives.two_view import contrast, crop, draw_boxes, draw_shared_points, sample_points
from cambrian.backbones.optimization import Optimization
from cambrian.backbones.vision_encoder import build_encoder, build_objective, prepare_pictures
from tests.backbones.corpora import OBJECTIVES, SIDE, encoder_config, parse

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.backbones.objectives.objective import Objective


def build(corpora: Path, kind: str) -> tuple[Objective, TrainedEncoder]:
    config = parse(encoder_config(kind)).root
    assert isinstance(config, TrainedEncoder)
    encoder, corpus = build_encoder(config, seed=0), read_images(corpora)
    pictures = prepare_pictures(corpus, config.spec.image, device="cpu")
    torch.manual_seed(0)
    return build_objective(config.objective, encoder, pictures, corpus, torch.Generator().manual_seed(0)), config


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_loss_falls_and_every_weight_of_the_encoder_learns(corpora: Path, kind: str) -> None:
    objective, config = build(corpora, kind)
    assert not isinstance(config.objective, NoObjectiveConfig)
    optimization = Optimization(
        [objective],
        config.objective.optimization.model_copy(update={"num_steps": 60}),
        heads=[parameter for head in objective.heads() for parameter in head.parameters()],
    )
    batches = objective.iter_batches(config.objective.optimization)
    losses = []
    for _ in range(60):
        loss = objective(next(batches))
        optimization.step(loss)
        objective.after_step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    without = [name for name, weight in objective.encoder.named_parameters() if weight.grad is None]
    assert without == []


def test_captions_are_numbered_in_alphabetic_order() -> None:
    assert caption_ids(["red cube", "ball"]).tolist() == [[3, 2], [1, 0]]


def test_a_batch_of_one_kind_has_one_kind(corpora: Path) -> None:
    config = encoder_config("softmax")
    config["objective"]["one_kind_share"] = 1.0
    encoder_parts = parse(config).root
    assert isinstance(encoder_parts, TrainedEncoder)
    corpus = read_images(corpora)
    encoder = build_encoder(encoder_parts, seed=0)
    pictures = prepare_pictures(corpus, encoder_parts.spec.image, device="cpu")
    objective = build_objective(encoder_parts.objective, encoder, pictures, corpus, torch.Generator().manual_seed(0))
    assert not isinstance(encoder_parts.objective, NoObjectiveConfig)
    batches = objective.iter_batches(encoder_parts.objective.optimization)
    kinds = [set(corpus.kind[next(batches).numpy()].tolist()) for _ in range(8)]
    assert sorted(map(len, kinds)) == [1] * 8
    assert set().union(*kinds) == {0, 1}


def test_images_with_one_caption_are_no_negatives_of_each_other(corpora: Path) -> None:
    objective, _ = build(corpora, "softmax")
    same = [index for index, text in enumerate(read_images(corpora).captions) if text == "red cube"]
    one, other = objective(torch.tensor(same[:2])), objective(torch.tensor([same[0], same[0]]))
    assert one.item() == pytest.approx(np.log(2), abs=0.2)
    assert other.item() == pytest.approx(np.log(2), abs=1e-5)


def test_visible_patches_alone_are_encoded_and_all_of_them_give_the_whole_map(corpora: Path) -> None:
    objective, _ = build(corpora, "masked-autoencoder")
    pixels = objective.pictures.take(torch.arange(2))
    everything = torch.arange(9).expand(2, -1)
    whole = feature_map(objective.encoder, pixels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encode_visible(objective.encoder, pixels, everything), whole, atol=1e-5, rtol=1e-5)
    some = encode_visible(objective.encoder, pixels, everything[:, :4])
    changed = pixels.clone()
    changed[..., -4:, :] += 1  # the last row of patches, of which none is among the four
    assert torch.equal(encode_visible(objective.encoder, changed, everything[:, :4]), some)


def test_the_slow_copy_follows_and_is_not_trained(corpora: Path) -> None:
    objective, _ = build(corpora, "joint-embedding")
    slow, fast = objective.get_submodule("slow"), objective.encoder
    assert not any(weight.requires_grad for weight in slow.parameters())
    with torch.no_grad():
        fast.get_parameter("pos_embed").add_(1.0)
    before = slow.get_parameter("pos_embed").clone()
    objective.after_step()
    torch.testing.assert_close(slow.get_parameter("pos_embed"), before + 0.1)


def test_blocks_leave_a_place_visible() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = [draw_blocks(3, 4, 1, 2, generator).float().mean().item() for _ in range(200)]
    assert 0 < min(shares) <= max(shares) < 1


def test_blocks_as_large_as_the_grid_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing stays visible"):
        draw_blocks(3, 1, 1, 3, torch.Generator())


def test_each_sample_takes_its_own_tokens() -> None:
    tokens = torch.arange(6.0).view(2, 3, 1)
    assert take_tokens(tokens, torch.tensor([[2, 0], [1, 1]])).flatten().tolist() == [2, 0, 4, 4]


def test_a_pixel_head_fills_each_features_own_square() -> None:
    head = PixelHead(1, 1, 2)
    with torch.no_grad():
        head.linear.weight.fill_(1)
        head.linear.bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    found = head(torch.tensor([[[[1.0, 2.0]]]]))
    torch.testing.assert_close(found, torch.tensor([[[[1.1, 1.2, 2.1, 2.2], [1.3, 1.4, 2.3, 2.4]]]]))


def test_targets_are_taken_from_the_middle_of_each_stride() -> None:
    assert take_every(torch.arange(16).view(4, 4), 2).tolist() == [[5, 7], [13, 15]]


def test_a_grid_that_does_not_divide_the_map_is_refused() -> None:
    assert pixels_per_feature(12, 3) == 4
    with pytest.raises(ValueError, match="a grid of 5 features does not divide 12 pixels"):
        pixels_per_feature(12, 5)


def test_contrast_is_lowest_where_partners_agree() -> None:
    views = torch.eye(4)
    right, wrong = contrast(torch.cat([views, views]), 0.1), contrast(torch.cat([views, views.roll(1, 0)]), 0.1)
    assert right < 0.01 < 9 < wrong


def test_the_whole_image_is_cropped_to_itself() -> None:
    pixels = torch.rand(2, 3, SIDE, SIDE)
    torch.testing.assert_close(crop(pixels, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2)), pixels, atol=1e-5, rtol=1e-5)


def test_a_shared_point_shows_the_same_place_in_both_crops() -> None:
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, 48).expand(1, 3, 48, 48)
    boxes = draw_boxes(2, 0.6, generator)
    points = draw_shared_points(boxes[:1], boxes[1:], 5, generator)
    first, second = (sample_points(crop(ramp, box[None]), box[None], points) for box in boxes)
    torch.testing.assert_close(first, second, atol=0.02, rtol=0)  # half a pixel of 1/48
    torch.testing.assert_close(first[0, :, 0], points[0, :, 0], atol=0.02, rtol=0)


def test_crops_that_can_miss_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"min_crop_side is 0\.5"):
        draw_boxes(1, 0.5, torch.Generator())


def test_pictures_are_normalised_and_brought_to_the_encoders_side(corpora: Path) -> None:
    corpus = read_images(corpora)
    config = parse(encoder_config("depth")).root
    assert isinstance(config, TrainedEncoder)
    same = prepare_pictures(corpus, config.spec.image, device="cpu").take(torch.arange(3))
    expected = (torch.from_numpy(corpus.pixels[:3]).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    torch.testing.assert_close(same, expected)
    small = config.spec.image.model_copy(update={"side": 6})
    assert prepare_pictures(corpus, small, device="cpu").take(torch.arange(3)).shape == (3, 3, 6, 6)


def test_an_unknown_architecture_is_named() -> None:
    config = parse(encoder_config("depth", architecture="vit_of_nobody")).root
    assert isinstance(config, TrainedEncoder)
    with pytest.raises(ValueError, match="timm cannot make 'vit_of_nobody'"):
        build_encoder(config, seed=0)


def test_heads_are_part_of_their_objective(corpora: Path) -> None:
    for kind in OBJECTIVES:
        objective, _ = build(corpora, kind)
        modules = set(objective.modules())
        assert objective.heads()
        assert all(isinstance(head, nn.Module) and head in modules for head in objective.heads())
