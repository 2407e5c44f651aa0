"""The encoders of the paper: every row against the paper's table, and built at full size without memory."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.diffusion import build_diffusion
from cambrian.models.encoder_libraries import HiddenStates
from cambrian.models.tensor_files import load_tensors
from cambrian.params import look_up, parse_block, read_yaml
from cambrian.release.config import TOWER_CHANNELS
from cambrian.release.encoders import (
    RELEASED_ENCODERS,
    EncoderRow,
    build_encoder,
    build_published_encoder,
    read_encoder_rows,
    to_timm_names,
)

ROWS = read_encoder_rows()
STUDY = read_encoder_rows("study")
ROOT = Path(__file__).parents[2]


def printed_rows() -> list[dict[str, Any]]:
    tables = read_yaml(ROOT / "cambrian/report/published.yaml")["tables"]
    table = next(one for one in tables if one["id"] == "backbones")
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def cells_of(row: EncoderRow) -> dict[str, Any]:
    """What the paper's table would have to print."""
    return {
        "group": row.group,
        "supervision": row.supervision,
        "method": row.method,
        "architecture": row.family,
        "patch": row.patch,
        "resolution": row.spec.image.side,
        "tokens": row.num_tokens,
        "tokens_interpolated": row.is_interpolated,
        "hidden": row.hidden_dim,
    }


@pytest.mark.parametrize(("name", "printed"), zip(STUDY, printed_rows(), strict=True), ids=STUDY)
def test_a_row_is_the_papers_but_for_its_listed_contradictions(name: str, printed: dict[str, Any]) -> None:
    row = STUDY[name]
    found = cells_of(row)
    differing = {column: printed[column] for column in found if found[column] != printed[column]}
    assert differing == {column: cell.printed for column, cell in row.contradictions.items()}


def test_the_papers_table_has_four_contradicted_cells() -> None:
    cells = {(name, column) for name, row in STUDY.items() for column in row.contradictions}
    assert cells == {
        ("clip-l-336", "hidden"),
        ("sam-h-1024", "architecture"),
        ("midas31-l-512", "resolution"),
        ("sd21-512", "tokens_interpolated"),
    }


def test_the_names_of_params_are_rows() -> None:
    named = read_yaml(ROOT / "params.yaml")["backbones"]
    others = {"none", "vicuna-7b", "llama-3-8b", "random-l-336"}
    assert {"midas3-l-384", "sd21-512"} <= set(named)
    assert set(named) - others <= set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_an_encoder_builds_at_full_size_with_the_rows_shapes(name: str) -> None:
    row = ROWS[name]
    encoder = build_published_encoder(name)
    assert {parameter.device.type for parameter in encoder.parameters()} == {"meta"}
    assert (encoder.channels, encoder.grid) == (row.hidden_dim, row.grid)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == row.num_parameters
    size = row.spec.image.side
    maps = encoder.backbone.forward_intermediates(  # type: ignore[operator]
        torch.zeros(1, 3, size, size, device="meta"),
        indices=list(row.spec.features.layers),
        norm=row.spec.features.norm,
        output_fmt="NCHW",
        intermediates_only=True,
    )
    expected = [(1, width, grid, grid) for width, grid in zip(row.widths, row.native_grids, strict=True)]
    assert [tuple(one.shape) for one in maps] == expected
    if row.positions.trained_grid is not None:  # ConvNets have no tokens to drop
        assert getattr(encoder.backbone, "num_prefix_tokens", 0) == row.num_prefix_tokens


@pytest.mark.parametrize("name", ROWS)
def test_the_trained_grid_of_positions_is_the_tables_own(name: str) -> None:
    row = ROWS[name]
    kinds = {"fixed": row.native_grids[0], "scale-factor": 37, "none": None}
    assert row.positions.trained_grid == kinds[row.positions.kind]


def test_the_final_models_encoders_deliver_what_the_connector_expects() -> None:
    assert {name: row.hidden_dim for name, row in RELEASED_ENCODERS.items()} == TOWER_CHANNELS
    assert [row.num_tokens for row in RELEASED_ENCODERS.values()] == [576, 576, 576, 9216]


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("clip-l-336", 448, r"clip-l-336: 448 px, but it takes 336 px only; .* learned, for 24 x 24 places"),
        ("midas31-l-512", 518, r"midas31-l-512: 518 px, but it takes 512 px only; .* relative"),
        ("dinov2-l-336", 340, r"dinov2-l-336: 340 px, but it takes multiples of 14 px; nearest: 336, 350"),
        ("convnext-xxl-1024", 20, r"convnext-xxl-1024: 20 px, but it takes multiples of 32 px; nearest: 32"),
        ("dinov2-l-336", -14, r"dinov2-l-336: -14 px"),
    ],
)
def test_a_side_that_an_encoder_cannot_take_is_named_with_what_it_can(name: str, side: int, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        build_published_encoder(name, side=side)


def test_dinov2_takes_another_multiple_of_its_patch() -> None:
    encoder = build_published_encoder("dinov2-l-336", side=224)
    assert (encoder.grid, encoder.image_spec.side) == (16, 224)


def test_images_of_another_side_than_it_was_built_for_are_refused() -> None:
    encoder = build_published_encoder("mae-l-224")
    with pytest.raises(ValueError, match=r"mae-l-224: images of 224 x 256 px, but it was built for 224 x 224"):
        encoder(torch.zeros(1, 3, 224, 256, device="meta"))


def test_an_unknown_encoder_is_met_with_the_nearest_name() -> None:
    with pytest.raises(ParamsError, match="did you mean 'clip-l-336'"):
        build_published_encoder("clip-l-334")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "cls"}, "x.pooling: unknown field"),
        ({"strides": [14, 28]}, "1 layers, 2 strides and 1 widths"),
        ({"num_prefix_tokens": "1"}, "x.num_prefix_tokens: found '1'"),
    ],
)
def test_a_row_with_a_fault_is_refused(change: dict[str, Any], message: str) -> None:
    raw = STUDY["mae-l-224"].model_dump()
    with pytest.raises(ParamsError, match=message):
        parse_block(EncoderRow, raw | change, where="x")


def test_several_layers_without_a_joint_grid_are_refused() -> None:
    raw = ROWS["convnext-xxl-1024-stages"].model_dump()
    with pytest.raises(ParamsError, match="need a delivered_grid"):
        parse_block(EncoderRow, raw | {"delivered_grid": None}, where="x")


def tiny(name: str, **model_args: Any) -> EncoderRow:
    row = ROWS[name]
    image = row.spec.image.model_copy(update={"side": 32})
    spec = row.spec.model_copy(update={"image": image})
    return row.model_copy(update={"model_args": model_args, "spec": spec})


def test_midas_features_are_the_last_block_before_the_norm() -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    row = tiny("midas3-l-384", **sizes, image_size=32, patch_size=16)
    encoder = build_encoder(row, side=2)
    assert isinstance(encoder.backbone, HiddenStates)
    model: Any = encoder.backbone.model
    blocks: list[torch.Tensor] = []
    model.encoder.layer[-1].register_forward_hook(lambda _module, _inputs, output: blocks.append(output))
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.no_grad():
        features = encoder(pixels)
    last = blocks[-1][0] if isinstance(blocks[-1], tuple) else blocks[-1]
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), last[:, 1:])


def test_hidden_states_know_no_norm() -> None:
    with pytest.raises(ValueError, match=r"set features.norm to false"):
        HiddenStates(torch.nn.Identity(), num_prefix_tokens=1).forward_intermediates(
            torch.zeros(1), indices=[-1], norm=True
        )


DIFFUSION: dict[str, Any] = {
    "block_channels": [8, 16],
    "blocks_per_level": 2,
    "vae_channels": [8, 8, 8, 8],
    "latent_channels": 4,
    "prompt_dim": 6,
    "head_dim": 4,
    "num_groups": 4,
    "timestep": 250,
}


def test_diffusion_features_are_the_same_in_every_call_and_of_every_batch() -> None:
    torch.manual_seed(0)
    backbone = build_diffusion(**DIFFUSION)
    pixels = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        maps = backbone.forward_intermediates(pixels, indices=[0, 1], norm=False)
        alone = backbone.forward_intermediates(pixels[1:], indices=[0, 1], norm=False)
    assert [tuple(one.shape) for one in maps] == [(2, 16, 8, 8), (2, 8, 8, 8)]
    for together, single in zip(maps, alone, strict=True):
        torch.testing.assert_close(together[1:], single)


def test_diffusion_has_the_names_of_its_published_checkpoint() -> None:
    names = set(build_published_encoder("sd21-512").backbone.state_dict())
    assert {
        "unet.conv_out.bias",
        "unet.time_embedding.linear_2.weight",
        "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0.bias",
        "unet.down_blocks.3.resnets.1.time_emb_proj.weight",
        "unet.up_blocks.0.upsamplers.0.conv.weight",
        "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight",
        "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2.weight",
        "vae.encoder.mid_block.attentions.0.group_norm.weight",
        "vae.encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
        "vae.quant_conv.weight",
    } <= names
    # of the U-Net's checkpoint 686 tensors, of the VAE's encoder 106, of its quant_conv 2; and the empty prompt
    assert len(names) == 686 + 106 + 2 + 1


def test_a_timestep_keeps_the_schedules_share_of_the_signal() -> None:
    # product over 251 steps of 1 - beta, by hand: exp(sum(log(1 - beta)))
    first, last = 0.00085**0.5, 0.012**0.5
    share = 1.0
    for step in range(251):
        share *= 1 - (first + (last - first) * step / 999) ** 2
    assert build_diffusion(**DIFFUSION).signal_share == pytest.approx(share)


def test_a_u_net_has_no_norm() -> None:
    with pytest.raises(ValueError, match=r"set features.norm to false"):
        build_diffusion(**DIFFUSION).forward_intermediates(torch.zeros(1, 3, 64, 64), indices=[0], norm=True)


def open_clip_tensors(*, width: int, depth: int, grid: int) -> dict[str, torch.Tensor]:
    """Names and shapes of an open_clip ViT's checkpoint, below `visual.`."""
    tensors = {
        "class_embedding": torch.ones(width),
        "positional_embedding": torch.ones(grid * grid + 1, width),
        "conv1.weight": torch.ones(width, 3, 14, 14),
        "proj": torch.ones(width, 5),
    }
    for norm in ("ln_pre", "ln_post"):
        tensors |= {f"{norm}.weight": torch.ones(width), f"{norm}.bias": torch.ones(width)}
    for block in range(depth):
        shapes = {
            "ln_1.weight": (width,),
            "ln_1.bias": (width,),
            "ln_2.weight": (width,),
            "ln_2.bias": (width,),
            "attn.in_proj_weight": (3 * width, width),
            "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width),
            "attn.out_proj.bias": (width,),
            "mlp.c_fc.weight": (4 * width, width),
            "mlp.c_fc.bias": (4 * width,),
            "mlp.c_proj.weight": (width, 4 * width),
            "mlp.c_proj.bias": (width,),
        }
        tensors |= {f"transformer.resblocks.{block}.{name}": torch.ones(shape) for name, shape in shapes.items()}
    return tensors


def test_the_names_of_open_clip_become_timms() -> None:
    row = ROWS["dfn-l-224"]
    sizes = {"num_classes": 0, "img_size": 28, "embed_dim": 8, "depth": 2, "num_heads": 2}
    image = row.spec.image.model_copy(update={"side": 28})
    tiny_row = row.model_copy(
        update={"model_args": sizes, "spec": row.spec.model_copy(update={"image": image}), "positions": row.positions}
    )
    backbone = build_encoder(tiny_row, side=2).backbone
    renamed = to_timm_names(open_clip_tensors(width=8, depth=2, grid=2), "open-clip", grid=2)
    load_tensors(dict(backbone.state_dict()), renamed, where=Path("checkpoint"))
    assert all(bool((parameter == 1).all()) for parameter in backbone.parameters())


def test_look_up_of_a_row_without_published_weights_says_so() -> None:
    assert [name for name, row in ROWS.items() if row.checkpoint is None] == ["mocov3-l-224"]
    assert look_up(ROWS, "mocov3-l-224", where="rows").released_as is None


def test_a_second_tensor_for_one_place_is_refused() -> None:
    tensors = {"class_embedding": torch.ones(8), "cls_token": torch.ones(8), "positional_embedding": torch.ones(5, 8)}
    with pytest.raises(ArtifactError, match="there already is a tensor"):
        to_timm_names(tensors, "open-clip", grid=2)
