"""Models of real rows at every scale, at full size on the meta device: no memory, no download."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from cambrian.backbones.config import BackboneConfig
from cambrian.backbones.rehearsal import build_encoder_on_meta, build_language_model_on_meta, build_model_on_meta
from cambrian.interfaces import ParamsError
from cambrian.models.config import ModelConfig
from cambrian.params import parse_block, read_yaml
from cambrian.release.language_models import read_language_model_rows
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from cambrian.models.multimodal import MultimodalModel

WORDS = ("what", "red", "three")
FOUR = ("siglip-so400m-384", "clip-l-336", "dinov2-l-336", "convnext-xxl-1024")


@cache
def scale_of(name: str) -> dict[str, dict[str, object]]:
    return read_yaml(ROOT / f"scales/{name}.yaml")


@cache
def backbones_of(scale: str) -> dict[str, BackboneConfig]:
    found = scale_of(scale)["backbones"]
    return {name: parse_block(BackboneConfig, value, where=f"backbones.{name}") for name, value in found.items()}


def build(scale: str, connector: str, encoders: tuple[str, ...], llm: str) -> MultimodalModel:
    values = {
        "encoders": encoders,
        "connector": scale_of(scale)["connectors"][connector],
        "llm": llm,
        "template": "turns",
    }
    return build_model_on_meta(parse_block(ModelConfig, values, where=connector), backbones_of(scale), vocabulary=WORDS)


@pytest.mark.parametrize(
    ("scale", "connector", "llm", "num_in_llm"),
    [
        ("mini", "sva-in-llm", "vicuna-7b", 2),
        ("mini", "sva-in-llm-8b", "llama-3-8b", 2),
        ("gpu", "sva-in-llm", "vicuna-7b", 8),
        ("gpu", "sva-in-llm-34b", "hermes-yi-34b", 9),
        ("paper", "sva-in-llm-8b", "llama-3-8b", 10),
        ("paper", "sva-in-llm-13b", "vicuna-13b", 10),
        ("paper", "sva-in-llm-34b", "hermes-yi-34b", 9),
    ],
)
def test_models_with_aggregators_inside_are_built_without_memory(
    scale: str, connector: str, llm: str, num_in_llm: int
) -> None:
    model = build(scale, connector, FOUR, llm)
    assert {tensor.device.type for tensor in model.parameters()} == {"meta"}
    assert len(model.aggregators) == num_in_llm
    assert len(model.image_specs) == 4


def test_the_largest_scales_connector_for_8b_has_the_releases_tokens_and_windows() -> None:
    model = build("paper", "sva-in-llm-8b", FOUR, "llama-3-8b")
    assert model.num_image_positions == 600
    assert model.connector.window_sides == [1, 1, 1, 4]
    parts = {name: sum(parameter.numel() for parameter in part) for name, part in model.parts().items()}
    assert parts["llm"] == read_language_model_rows()["llama-3-8b"].num_parameters


@pytest.mark.parametrize("scale", ["gpu", "mini", "paper"])
def test_every_connector_fits_two_encoders_and_the_small_llm(scale: str) -> None:
    from cambrian.models.assembling import assemble_model

    encoders = [build_encoder_on_meta(name, backbones_of(scale)) for name in FOUR[1::2]]
    connectors = scale_of(scale)["connectors"]
    assert len(connectors) >= 14
    llm = build_language_model_on_meta("vicuna-7b", backbones_of(scale), vocabulary=WORDS)
    outside = {name: value for name, value in connectors.items() if not name.startswith("sva-in-llm")}
    assert len(outside) == len(connectors) - 4  # those inside are built above, each with its own LLM
    for name, connector in outside.items():
        values = {"encoders": FOUR[1::2], "connector": connector, "llm": "llm", "template": "turns"}
        config = parse_block(ModelConfig, values, where=name)
        with torch.device("meta"):
            model = assemble_model(config, encoders, llm, backbone_hashes={})
        assert model.num_image_positions >= 4


def test_published_language_models_have_the_published_numbers_of_parameters() -> None:
    rows = read_language_model_rows()
    assert len(rows) >= 9
    for name, row in rows.items():
        source = {"kind": "published-language-model", "row": name, "source": {"kind": "published"}, "dtype": "bfloat16"}
        model = build_language_model_on_meta(
            name, {name: parse_block(BackboneConfig, source, where=name)}, vocabulary=WORDS
        )
        assert sum(parameter.numel() for parameter in model.parameters()) == row.num_parameters


def test_an_encoder_in_the_place_of_a_language_model_is_named() -> None:
    with pytest.raises(ParamsError, match=r"backbones.clip-l-336: published-encoder: expected a language model"):
        build_language_model_on_meta("clip-l-336", backbones_of("paper"), vocabulary=WORDS)
    with pytest.raises(ParamsError, match=r"unknown name 'clip-l-335'; did you mean 'clip-l-336'"):
        build_encoder_on_meta("clip-l-335", backbones_of("paper"))


def test_a_checkpoint_of_unknown_size_is_named() -> None:
    folder = {"kind": "folder", "path": str(Path("somewhere"))}
    value = {"kind": "pretrained-language-model", "source": folder, "dtype": "float32"}
    with pytest.raises(ParamsError, match="known only after they were fetched"):
        build_language_model_on_meta(
            "mine", {"mine": parse_block(BackboneConfig, value, where="mine")}, vocabulary=WORDS
        )
