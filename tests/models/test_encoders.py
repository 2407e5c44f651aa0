import json
from pathlib import Path

import pytest
import torch

from cambrian.interfaces import ArtifactError
from cambrian.models.encoders import read_encoder, resize_map
from cambrian.models.tensor_files import read_tensors, write_tensors
from tests.models.conftest import CONVNET, VIT, encoder_spec, write_tiny_encoder


def test_an_encoder_says_what_it_takes_and_gives(backbones: Path) -> None:
    encoder = read_encoder(backbones / "vit")
    assert (encoder.channels, encoder.grid) == (16, 4)
    assert encoder.image_spec.side == 24
    assert encoder.image_spec.pad_colour == (127, 127, 127)
    assert encoder(torch.zeros(2, 3, 24, 24)).shape == (2, 16, 4, 4)


def test_the_last_normed_layer_is_timms_own_output(tmp_path: Path) -> None:
    module = write_tiny_encoder(tmp_path / "vit", "vit_tiny_patch16_224", VIT, encoder_spec(24, layers=[-1], norm=True))
    pixels = torch.randn(2, 3, 24, 24)
    tokens = module.forward_features(pixels)[:, 1:]
    features = read_encoder(tmp_path / "vit")(pixels).flatten(2).transpose(1, 2)
    torch.testing.assert_close(features, tokens, atol=0, rtol=0)


def test_several_stages_are_joined_on_the_finest_grid_shallow_to_deep(backbones: Path) -> None:
    encoder = read_encoder(backbones / "convnet")
    assert (encoder.channels, encoder.grid) == (4 + 6 + 8 + 10, 8)
    pixels = torch.randn(1, 3, 32, 32)
    stages = encoder.backbone.forward_intermediates(pixels, indices=[0, 1, 2, 3], intermediates_only=True)
    features = encoder(pixels)
    assert torch.equal(features[:, :4], stages[0])
    assert torch.equal(features[:, -10:], resize_map(stages[3], 8))


def test_timm_itself_reads_the_folder(backbones: Path) -> None:
    import timm

    model = timm.create_model(f"local-dir:{backbones / 'vit'}", pretrained=True).eval()
    pixels = torch.randn(1, 3, 24, 24)
    ours = read_encoder(backbones / "vit")
    assert torch.equal(model.forward_features(pixels), ours.backbone.forward_features(pixels))
    assert list(model.pretrained_cfg["mean"]) == [0.5, 0.5, 0.5]


def test_resizing_upsamples_between_the_centres_of_cells() -> None:
    resized = resize_map(torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]]), 4)
    assert resized[0, 0, 0].tolist() == [0, 1, 3, 4]


def test_a_folder_that_was_not_finished_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no manifest\.json"):
        read_encoder(tmp_path)


def test_a_missing_a_left_over_and_a_misshapen_tensor_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "convnet"
    write_tiny_encoder(folder, "convnext_atto", CONVNET, encoder_spec(32, layers=[3], norm=False))
    tensors = read_tensors(folder / "model.safetensors")
    name = "stem.0.bias"
    for change, message in [
        ({name: None}, "stem.0.bias is missing"),
        ({"head.extra": torch.zeros(2)}, "head.extra is not part of the model"),
        ({name: torch.zeros(5)}, r"stem.0.bias has shape \(5,\), the model needs \(4,\)"),
    ]:
        changed = {key: value for key, value in {**tensors, **change}.items() if value is not None}
        write_tensors(folder / "model.safetensors", changed)
        mend_manifest(folder)
        with pytest.raises(ArtifactError, match=message):
            read_encoder(folder)


def test_an_unknown_architecture_is_an_artifact_error(tmp_path: Path) -> None:
    folder = tmp_path / "convnet"
    write_tiny_encoder(folder, "convnext_atto", CONVNET, encoder_spec(32, layers=[3], norm=False))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architecture": "convnext_attoo"}))
    mend_manifest(folder)
    with pytest.raises(ArtifactError, match="convnext_attoo"):
        read_encoder(folder)


def mend_manifest(folder: Path) -> None:
    """Make the manifest agree with the changed files, as if another version had written them."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name in manifest["files"]:
        manifest["files"][name]["bytes"] = (folder / name).stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
