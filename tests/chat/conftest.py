"""A tiny model that can be talked to: the encoders, connectors and LLM of tests/models with a tokenizer of words."""

import io
from pathlib import Path

import pytest
from PIL import Image

from cambrian.artifacts import write_folder
from cambrian.chat.talker import Talker, read_talker
from cambrian.models.weights import build_model, write_model
from tests.models.conftest import (
    CONVNET,
    VIT,
    encoder_spec,
    model_config,
    write_tiny_encoder,
    write_tiny_llm,
)
from tests.training.tiny import TOKENS, write_tokenizer

NUM_POSITIONS = 256
"""Longest conversation that the tiny LLM says it was made for."""


def png(width: int, height: int, colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scale's folder: backbones, and one run per connector."""
    folder = tmp_path_factory.mktemp("scale")
    backbones = folder / "backbones"
    write_tiny_encoder(backbones / "vit", "vit_tiny_patch16_224", VIT, encoder_spec(24, layers=[-1], norm=True))
    write_tiny_encoder(
        backbones / "convnet", "convnext_atto", CONVNET, encoder_spec(32, layers=[0, 1, 2, 3], norm=False)
    )
    write_tiny_llm(folder / "llm", vocab_size=len(TOKENS), max_position_embeddings=NUM_POSITIONS)
    with write_folder(backbones / "llm") as partial:
        for name in ("config.json", "model.safetensors"):
            (partial / name).write_bytes((folder / "llm" / name).read_bytes())
        write_tokenizer(partial)
    for connector in ("mlp", "sva", "sva-in-llm"):
        config = model_config(connector)
        with write_folder(folder / "runs" / connector) as partial:
            write_model(partial, build_model(config, backbones=backbones, seed=3), config, {"connector"})
    return folder


@pytest.fixture(scope="session")
def talker(scale: Path) -> Talker:
    return read_talker(scale / "runs" / "sva-in-llm", backbones=None, device="cpu")


@pytest.fixture(scope="session")
def talker_without_sva(scale: Path) -> Talker:
    return read_talker(scale / "runs" / "mlp", backbones=None, device="cpu")
