from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cambrian.artifacts import write_folder
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch
from cambrian.models.config import ModelConfig
from cambrian.models.encoders import EncoderSpec, write_encoder
from cambrian.models.multimodal import MultimodalModel
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.models.weights import build_model
from cambrian.params import parse_block

VOCABULARY = 40
GRID = {"side": 2, "position_rms": 0.25, "output_rms": 1.0, "newline": True, "hide_padding": True}
SVA = {
    "kind": "sva", "depth": 2, "group_sides": [2], "dim": 16, "num_heads": 4, "max_window_side": 3,
    "in_llm": None, **GRID,
}  # fmt: skip
CONNECTORS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "delivery": "unshuffle", "hidden_ratio": 1.0, **GRID},
    "interpolate": {"kind": "mlp", "delivery": "interpolate", "hidden_ratio": 2.0, **GRID},
    "linear": {"kind": "projector", "num_layers": 1, **GRID},
    "mlp2x-gelu": {"kind": "projector", "num_layers": 2, **GRID},
    "c-abstractor": {
        "kind": "c-abstractor", "input_side": 4, "depth": 2, "dim": 12, "num_mlp_layers": 2,
        "input_positions": "learned", **GRID,
    },
    "ldpv2": {"kind": "ldpv2", "input_side": 6, **GRID},
    "resampler": {
        "kind": "resampler", "num_queries": 3, "depth": 2, "dim": 16, "num_heads": 2, "max_input_side": 4,
        "position_rms": None, "output_rms": None,
    },
    "sva": SVA,
    "sva-in-llm": {**SVA, "group_sides": [2, 1], "in_llm": {"start": 0, "stride": 2, "count": 2}},
}  # fmt: skip
VIT = {
    "img_size": 24, "patch_size": 6, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 0,
}  # fmt: skip
CONVNET = {"depths": [1, 1, 1, 1], "dims": [4, 6, 8, 10], "num_classes": 0}


def encoder_spec(side: int, *, layers: list[int], norm: bool) -> EncoderSpec:
    image = {"side": side, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "pad_colour": [127, 127, 127]}
    return parse_block(EncoderSpec, {"image": image, "features": {"layers": layers, "norm": norm}}, where="spec")


def write_tiny_encoder(folder: Path, architecture: str, model_args: dict[str, Any], spec: EncoderSpec) -> nn.Module:
    declare_missing_operators()
    import timm

    with torch.random.fork_rng(devices=[]), write_folder(folder) as partial:
        torch.manual_seed(1)
        module: nn.Module = timm.create_model(architecture, **model_args).eval()
        write_encoder(partial, module, architecture=architecture, model_args=model_args, spec=spec)
    return module


def write_tiny_llm(folder: Path, **changes: Any) -> None:
    declare_missing_operators()
    from transformers.models.llama.modeling_llama import LlamaConfig, LlamaForCausalLM

    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]), write_folder(folder) as partial:
        torch.manual_seed(2)
        LlamaForCausalLM(LlamaConfig(**{**sizes, **changes})).save_pretrained(partial)


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    write_tiny_encoder(folder / "vit", "vit_tiny_patch16_224", VIT, encoder_spec(24, layers=[-1], norm=True))
    write_tiny_encoder(folder / "convnet", "convnext_atto", CONVNET, encoder_spec(32, layers=[0, 1, 2, 3], norm=False))
    write_tiny_llm(folder / "llm")
    return folder


def model_config(connector: str) -> ModelConfig:
    block = {"encoders": ["vit", "convnet"], "connector": CONNECTORS[connector], "llm": "llm", "template": "turns"}
    return parse_block(ModelConfig, block, where="model")


def make_model(backbones: Path, connector: str) -> MultimodalModel:
    model = build_model(model_config(connector), backbones=backbones, seed=3).eval()
    model.set_trainable({"connector", "llm"})
    return model


def make_batch(model: MultimodalModel, samples: list[list[int | str]], sizes: list[tuple[int, int]]) -> Batch:
    """Text ids and "image" marks, padded on the right; every second text position is labelled."""
    rows = [
        [
            id_
            for part in sample
            for id_ in ([IMAGE_TOKEN_ID] * model.num_image_positions if part == "image" else [part])
        ]
        for sample in samples
    ]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (length - len(row)) for row in rows])
    is_labelled = mask & (ids != IMAGE_TOKEN_ID) & (torch.arange(length) % 2 == 1)
    labels = ids.masked_fill(~is_labelled, IGNORE_LABEL)
    return Batch(ids, labels, mask, make_images(model, sizes) if sizes else None)


def make_images(model: MultimodalModel, sizes: list[tuple[int, int]]) -> ImageBatch:
    generator = torch.Generator().manual_seed(4)
    pixels = [torch.randn(len(sizes), 3, spec.side, spec.side, generator=generator) for spec in model.image_specs]
    return ImageBatch(pixels, torch.tensor(sizes))


def take_images(images: ImageBatch, indices: list[int]) -> ImageBatch:
    return ImageBatch([pixels[indices] for pixels in images.pixels], images.sizes[indices])


def real_logits(model: MultimodalModel, batch: Batch) -> list[Tensor]:
    with torch.no_grad():
        logits = model(batch)
    return [row[mask] for row, mask in zip(logits, batch.attention_mask, strict=True)]
