"""Tiny corpora and configs, made by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cambrian.artifacts import write_folder, write_json
from cambrian.backbones.config import BackboneConfig
from cambrian.params import parse_block
from cambrian.runtime import RuntimeConfig

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME = RuntimeConfig(device="cpu", threads=1)
SIDE = 12
WORDS = ["ball", "blue", "cube", "red", "what"]
OPTIMIZATION = {
    "num_steps": 4,
    "batch_size": 8,
    "matrix_learning_rate": 0.01,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "warmup_ratio": 0.25,
    "max_gradient_norm": 1.0,
}
LANGUAGE_MODEL = {
    "kind": "trained-language-model",
    "shape": {
        "hidden_dim": 16,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_dim": 16,
        "max_num_tokens": 64,
        "rope_theta": 10000.0,
        "initializer_range": 0.1,
        "query_key_std": 0.1,
        "value_output_std": 0.1,
        "tie_embeddings": False,
    },
    "reading_share": 0.5,
    "optimization": OPTIMIZATION,
}
VIT_ARGS = {
    "img_size": SIDE,
    "patch_size": 4,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "class_token": False,
    "global_pool": "",
    "num_classes": 0,
}
SPEC = {
    "image": {"side": SIDE, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "pad_colour": [128, 128, 128]},
    "features": {"layers": [-1], "norm": True},
}
CONTRASTIVE = {
    "kind": "language-contrastive",
    "embedding_dim": 16,
    "text_num_layers": 1,
    "text_num_heads": 2,
    "one_kind_share": 0.5,
}
FILL_IN = {"dim": 16, "num_layers": 1, "num_heads": 2}
OBJECTIVES: dict[str, dict[str, Any]] = {
    "softmax": {**CONTRASTIVE, "loss": "softmax"},
    "sigmoid": {**CONTRASTIVE, "loss": "sigmoid"},
    "two-view": {
        "kind": "two-view",
        "projection_dim": 8,
        "temperature": 0.2,
        "min_crop_side": 0.7,
        "max_colour_change": 0.2,
        "num_points": 3,
        "point_weight": 1.0,
    },
    "masked-autoencoder": {
        "kind": "masked-autoencoder",
        "masked_share": 0.5,
        **{f"decoder_{name}": value for name, value in FILL_IN.items()},
    },
    "joint-embedding": {
        "kind": "joint-embedding",
        "num_blocks": 2,
        "min_block_side": 1,
        "max_block_side": 2,
        "momentum": 0.9,
        **{f"predictor_{name}": value for name, value in FILL_IN.items()},
    },
    "segmentation": {"kind": "segmentation", "target_stride": 2},
    "depth": {"kind": "depth", "target_stride": 2},
    "class-labels": {"kind": "class-labels"},
    "diffusion": {"kind": "diffusion", "max_noise": 0.9},
}


def encoder_config(objective: str, **changes: Any) -> dict[str, Any]:
    """A trained ViT's config as it stands in a scale's file."""
    config = {
        "kind": "trained-encoder",
        "architecture": "vit_base_patch16_224",
        "model_args": VIT_ARGS,
        "spec": SPEC,
        "objective": {"kind": "none"}
        if objective == "none"
        else {**OBJECTIVES[objective], "optimization": OPTIMIZATION},
    }
    return {**config, **changes}


def parse(config: dict[str, Any]) -> BackboneConfig:
    """Read a config as the stage does."""
    return parse_block(BackboneConfig, config, where="backbones.example")


def write_corpora(folder: Path, *, num_images: int = 40, num_documents: int = 30) -> Path:
    """Write finished corpora: squares of one colour, and questions that a phrase answers."""
    colours = {"red": (220, 40, 40), "blue": (40, 60, 220)}
    rng = np.random.default_rng(0)
    with write_folder(folder, pool="corpora") as partial:
        write_json(partial / "vocabulary.json", WORDS)
        documents = []
        for index in range(num_documents):
            colour = ("red", "blue")[index % 2]
            turns = [{"from": "human", "value": "<image>\nwhat"}, {"from": "gpt", "value": colour}]
            documents.append({"phrases": [[colour, "ball"], []], "turns": turns})
        _write_lines(partial / "documents.jsonl", documents)
        names = [("red", "blue")[int(rng.integers(2))] for _ in range(num_images)]
        pixels = np.zeros((num_images, SIDE, SIDE, 3), dtype=np.uint8)
        segmentation = np.zeros((num_images, SIDE, SIDE), dtype=np.uint8)
        for index, name in enumerate(names):
            top, left = rng.integers(0, SIDE - 4, 2)
            pixels[index, top : top + 4, left : left + 4] = colours[name]
            segmentation[index, top : top + 4, left : left + 4] = 1 + list(colours).index(name)
        np.savez(
            partial / "arrays.npz",
            pixels=pixels,
            segmentation=segmentation,
            depth=np.where(segmentation > 0, 2.0, 8.0).astype(np.float16),
            labels=np.array([[name == colour for colour in colours] for name in names]).astype(np.uint8),
            kind=(np.arange(num_images) % 2).astype(np.uint8),
        )
        captions = [{"index": i, "text": f"{name} cube", "words": [name, "cube"]} for i, name in enumerate(names)]
        _write_lines(partial / "captions.jsonl", captions)
    return folder


def _write_lines(path: Path, values: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
