"""Padding, resizing and normalising at the encoders' real resolutions, against the official preprocessing."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cambrian.data.images import fit_image, normalise
from cambrian.interfaces import ImageSpec
from tests.parity.files import golden_files, read_golden

IMAGE_FILES = golden_files("image_preprocess")

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
NORMALS = {
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": (CLIP_MEAN, CLIP_STD),
    "dinov2": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "convnext_xxl": (CLIP_MEAN, CLIP_STD),
}


@pytest.mark.parametrize("path", IMAGE_FILES, ids=lambda path: path.stem)
def test_resized_pixels_are_the_official_bytes(path: Path) -> None:
    config, _ = read_golden(path)
    images, specs = read_images(path)
    assert len(config["resized_uint8_sha256"]) == len(images) * len(specs)
    for encoder, spec in enumerate(specs):
        for index, image in enumerate(images):
            digest = hashlib.sha256(np.ascontiguousarray(fit_image(image, spec)).tobytes()).hexdigest()
            assert digest == config["resized_uint8_sha256"][f"{encoder}_{index}"]


@pytest.mark.parametrize("path", IMAGE_FILES, ids=lambda path: path.stem)
def test_padding_to_a_square_is_the_official(path: Path) -> None:
    _, tensors = read_golden(path)
    images, _ = read_images(path)
    for index, image in enumerate(images):
        expected = tensors[f"square_{index}"].numpy()
        # at the square's own side nothing is resized; the stored squares have CLIP's colour
        spec = ImageSpec(len(expected), *NORMALS["clip"], pad_colour=(122, 116, 104))
        assert np.array_equal(fit_image(image, spec), expected)


@pytest.mark.parametrize("path", IMAGE_FILES, ids=lambda path: path.stem)
def test_normalised_pixels_are_the_official_values(path: Path) -> None:
    _, tensors = read_golden(path)
    images, specs = read_images(path)
    num_compared = 0
    for encoder, spec in enumerate(specs):
        for index, image in enumerate(images):
            pixels = torch.from_numpy(normalise(fit_image(image, spec), spec))
            stride = int(tensors[f"real.stride_{encoder}"]) if index == 0 else spec.side // 24
            # one rounding of float32 may differ: values reach 2.7, half a unit in their last place is 1.2e-7
            expected = tensors[f"real.sub_{encoder}_{index}"]
            torch.testing.assert_close(pixels[:, ::stride, ::stride], expected, atol=5e-7, rtol=0)
            wide = pixels.double().flatten(1)
            stats = torch.stack([wide.mean(dim=1), wide.std(dim=1), wide.abs().sum(dim=1)])
            torch.testing.assert_close(stats, tensors[f"real.stats_{encoder}_{index}"], atol=1e-6, rtol=1e-6)
            num_compared += 1
    assert num_compared == len(images) * len(specs)


def read_images(path: Path) -> tuple[list[Image.Image], list[ImageSpec]]:
    config, tensors = read_golden(path)
    count = sum(name.startswith("image_") for name in tensors)
    images = [Image.fromarray(tensors[f"image_{index}"].numpy()) for index in range(count)]
    specs = [
        ImageSpec(side, *NORMALS[name], pad_colour=tuple(colour))
        for name, side, colour in zip(config["names"], config["resolution"], config["pad_rgb"], strict=True)
    ]
    assert images
    return images, specs
