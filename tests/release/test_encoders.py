import pytest
import torch

from cambrian.interfaces import ArtifactError
from cambrian.release.config import TOWER_CHANNELS, read_released
from cambrian.release.encoders import RELEASED_ENCODERS, build_encoder, resample_positions, to_timm_names

# millions, without pooling heads, summed by hand from widths and depths: 27 blocks of 15,239,504 for SO400M and 40 of
# 28,336,640 for ViT-g, whose position table is that of its 27 x 27 input
NUM_PARAMETERS = {
    "siglip/CLIP-ViT-SO400M-14-384": 413.0,
    "openai/clip-vit-large-patch14-336": 303.5,
    "facebook/dinov2-giant-res378": 1135.5,
    "clip-convnext-XXL-multi-stage": 843.4,
}


@pytest.mark.parametrize("name", RELEASED_ENCODERS)
def test_a_released_encoder_delivers_what_the_release_says(name: str) -> None:
    config = read_released("cambrian-8b")
    side = config.tower_sides()[config.towers.index(name)]
    with torch.device("meta"):
        encoder = build_encoder(RELEASED_ENCODERS[name], side=side)
    assert (encoder.channels, encoder.grid) == (TOWER_CHANNELS[name], side)
    assert round(sum(parameter.numel() for parameter in encoder.parameters()) / 1e6, 1) == NUM_PARAMETERS[name]


def test_positions_on_the_same_grid_stay() -> None:
    table = torch.randn(1, 10, 4)
    assert resample_positions(table, 3) is table


def test_positions_on_another_grid_keep_the_class_tokens_first() -> None:
    table = torch.arange(26.0).reshape(1, 26, 1).repeat(1, 1, 2)
    found = resample_positions(table, 3)
    assert found.shape == (1, 10, 2)
    assert torch.equal(found[:, 0], table[:, 0])
    assert bool((found[0, 2:, 0] > found[0, 1:-1, 0]).all())


def test_a_missing_projection_is_named() -> None:
    tensors = {
        "encoder.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2),
        "embeddings.class_embedding": torch.zeros(2),
        "embeddings.position_embedding.weight": torch.zeros(5, 2),
    }
    with pytest.raises(ArtifactError, match=r"blocks.0.attn.k_proj.weight is missing"):
        to_timm_names(tensors, "clip", grid=2)
