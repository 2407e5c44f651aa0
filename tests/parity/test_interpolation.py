"""Bringing encoders' tokens to another grid, at the real sizes, against the official wrappers."""

from math import isqrt
from pathlib import Path

import pytest
import torch
from einops import rearrange

from cambrian.models.encoders import resize_map
from tests.parity.files import golden_files, read_golden

INTERPOLATION_FILES = golden_files("token_interpolation")
# the same interpolation in float32; values are near 1
TOLERANCE = {"atol": 1e-6, "rtol": 1e-6}


@pytest.mark.parametrize("path", INTERPOLATION_FILES, ids=lambda path: path.stem)
def test_maps_are_resized_as_the_official_wrappers_do(path: Path) -> None:
    _, tensors = read_golden(path)
    outputs = [name for name in tensors if ".out_" in name]
    assert outputs
    for name in outputs:
        *_, num_tokens = name.split("_")
        if "_stage" in name:
            feature_map = tensors[name.replace(".out_", ".in_").rsplit("_", 1)[0]]
        else:
            tokens = tensors[f"{name.split('.out_')[0]}.in"]
            feature_map = rearrange(
                tokens, "images (row column) dim -> images dim row column", row=isqrt(tokens.shape[1])
            )
        resized = resize_map(feature_map, isqrt(int(num_tokens)))
        found = rearrange(resized, "images dim row column -> images (row column) dim")
        torch.testing.assert_close(found, tensors[name], **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}")
