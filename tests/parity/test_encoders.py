"""Encoder wrappers end to end with tiny random backbones: preprocessing, the right layers, the delivered grid."""

from math import isqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from PIL import Image

from cambrian.data.images import fit_image, normalise
from cambrian.interfaces import ImageSpec
from cambrian.models.encoders import EncoderSpec
from cambrian.models.tensor_files import load_tensors
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.release.encoders import RELEASED_ENCODERS, DeliveringEncoder, to_timm_names
from tests.parity.files import golden_files, part_of, read_golden

# float32 sums in another order than the official wrappers: the largest difference seen is 2e-6
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}

ROWS = dict(zip(("siglip", "clip", "dinov2", "convnext_xxl"), RELEASED_ENCODERS.values(), strict=True))
CASES = [(path, name) for path in golden_files("encoders_tiny") for name in sorted(read_golden(path)[0]["tiny"])]


@pytest.mark.parametrize(("path", "name"), CASES, ids=[f"{path.stem}-{name}" for path, name in CASES])
def test_features_are_the_official_ones(path: Path, name: str) -> None:
    tensors = part_of(read_golden(path)[1], f"tiny.{name}.")
    encoder = build_tiny(path, name)
    with torch.no_grad():
        features = encoder(tensors["pixels"])
    found = rearrange(features, "images dim row column -> images (row column) dim")
    torch.testing.assert_close(found, tensors["features"], **TOLERANCE)


@pytest.mark.parametrize(("path", "name"), CASES, ids=[f"{path.stem}-{name}" for path, name in CASES])
def test_pixels_are_the_official_ones(path: Path, name: str) -> None:
    pixels = read_golden(path)[1][f"tiny.{name}.pixels"]
    image = Image.fromarray(read_golden(golden_files("image_preprocess")[0])[1]["image_0"].numpy())
    row = ROWS[name].spec.image
    spec = ImageSpec(pixels.shape[-1], row.mean, row.std, row.pad_colour)
    # one rounding of float32 may differ: values reach 2.7, half a unit in their last place is 1.2e-7
    torch.testing.assert_close(torch.from_numpy(normalise(fit_image(image, spec), spec)), pixels[0], atol=5e-7, rtol=0)


def build_tiny(path: Path, name: str) -> DeliveringEncoder:
    """The row's architecture with the file's sizes, so that layers, norms and activations are the row's own."""
    declare_missing_operators()
    import timm

    config, tensors = read_golden(path)
    row, sizes = ROWS[name], config["tiny"][name]
    parameters = part_of(tensors, f"tiny.{name}.param.")
    parameters = {key.removeprefix(row.prefix): tensor for key, tensor in parameters.items()}
    patch = 14
    is_convolutional = name == "convnext_xxl"
    weights = to_timm_names(parameters, row.weights, grid=sizes["resolution"] // patch)
    changes = convnext_sizes(weights) if is_convolutional else vit_sizes(weights, sizes["resolution"])
    backbone = timm.create_model(row.architecture, **(row.model_args | changes))
    # timm keeps a norm of its head, which no feature passes
    targets = {key: tensor for key, tensor in backbone.state_dict().items() if not key.startswith("head.")}
    load_tensors(targets, weights, where=path)
    spec = EncoderSpec(
        image=row.spec.image.model_copy(update={"side": sizes["resolution"]}), features=row.spec.features
    )
    return DeliveringEncoder(backbone, spec, side=isqrt(sizes["tokens"]))


def vit_sizes(weights: dict[str, torch.Tensor], resolution: int) -> dict[str, Any]:
    width = weights["patch_embed.proj.weight"].shape[0]
    return {
        "img_size": resolution,
        "embed_dim": width,
        "depth": sum(key.endswith("norm1.weight") for key in weights),
        "num_heads": 4,  # of all tiny ViTs, says the set's README
        "mlp_ratio": weights["blocks.0.mlp.fc1.weight"].shape[0] / width,
    }


def convnext_sizes(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    stages = range(4)
    names = [
        [key for key in weights if key.startswith(f"stages.{stage}.") and key.endswith(".gamma")] for stage in stages
    ]
    return {
        "depths": [len(blocks) for blocks in names],
        "dims": [weights[blocks[0]].shape[0] for blocks in names],
    }
