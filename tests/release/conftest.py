from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cambrian.models.connector import FeatureShape
from cambrian.models.multimodal import MultimodalModel
from cambrian.release.building import build_on_meta, build_release_model
from cambrian.release.checkpoints import official_tensors, write_checkpoint
from cambrian.release.config import ReleaseConfig, parse_config

VALUES: dict[str, Any] = {
    "architectures": ["CambrianLlamaForCausalLM"],
    "model_type": "cambrian_llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 64,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "mm_vision_tower_aux_list": ["a", "b"],
    "mm_vision_tower_aux_token_len_list": [4, 16],
    "mm_projector_type": "sva",
    "image_token_len": 4,
    "vision_hidden_size": 16,
    "num_query_group": 2,
    "query_num_list": [4, 1],
    "connector_depth": 2,
    "connector_only": False,
    "num_of_vision_sampler_layers": 2,
    "start_of_vision_sampler_layers": 0,
    "stride_of_vision_sampler_layers": 2,
    "image_position": 5,
}
SHAPES = [FeatureShape(6, 2), FeatureShape(10, 4)]


def config_with(**changes: Any) -> ReleaseConfig:
    return parse_config(VALUES | changes, where="config.json")


def made_up_tensors(config: ReleaseConfig) -> dict[str, Tensor]:
    """Values from arithmetic for every tensor of the model, by the release's names."""
    shapes = {name: tensor.shape for name, tensor in official_tensors(build_on_meta(config, SHAPES)).items()}
    return {
        name: torch.cos(torch.arange(shape.numel()) + index).reshape(shape)
        for index, (name, shape) in enumerate(sorted(shapes.items()))
    }


def made_up_model(config: ReleaseConfig) -> MultimodalModel:
    model = build_release_model(config, encoders=[], shapes=SHAPES)
    model.llm.to_empty(device="cpu")
    with torch.no_grad():
        values = made_up_tensors(config)
        for name, tensor in official_tensors(model).items():
            tensor.copy_(values[name])
    return model


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny model in the release's layout, in several files."""
    folder = tmp_path / "release"
    folder.mkdir()
    write_checkpoint(folder, made_up_model(config_with()), config_with(), max_shard_bytes=40_000)
    return folder
