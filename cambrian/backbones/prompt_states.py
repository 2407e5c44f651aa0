"""What a diffusion model's text encoder makes of the empty prompt, the only text that its features depend on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from cambrian.interfaces import ArtifactError
from cambrian.models.diffusion import NUM_PROMPT_TOKENS
from cambrian.models.tensor_files import load_tensors, unique_tensors
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.release.shards import read_shard

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

PROMPT_FILES = (
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/vocab.json",
    "tokenizer/special_tokens_map.json",
)


def encode_empty_prompt(folder: Path) -> Tensor:
    """Return Float[1, 77, dim]: the last states, normed, of begin, end and as much padding as there is room.

    Source: diffusers' Stable Diffusion pipeline, `encode_prompt` with an empty text.

    Raises:
        ArtifactError: a file is missing, a special token is not in the vocabulary, or a tensor does not fit.
    """
    declare_missing_operators()
    from transformers import CLIPTextConfig, CLIPTextModel

    if missing := [name for name in PROMPT_FILES if not (folder / name).is_file()]:
        raise ArtifactError(f"{folder} lacks {', '.join(missing)}, which the empty prompt needs: fetch them too")
    config = json.loads((folder / PROMPT_FILES[0]).read_text(encoding="utf-8"))
    model = CLIPTextModel(CLIPTextConfig.from_dict(config)).eval()
    path = folder / PROMPT_FILES[1]
    tensors = {
        name: tensor
        for name, tensor in _without_wrapper(read_shard(path, entry=None)).items()
        if not name.endswith("embeddings.position_ids")
    }
    load_tensors(_without_wrapper(unique_tensors(model)), tensors, where=path)
    begin, end, pad = (_special_id(folder, key) for key in ("bos_token", "eos_token", "pad_token"))
    ids = torch.tensor([[begin, end] + [pad] * (NUM_PROMPT_TOKENS - 2)])
    with torch.no_grad():
        states: Tensor = model(input_ids=ids).last_hidden_state
    return states


def _without_wrapper(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop the outer module's name, which the published files have and transformers 5 has not."""
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}


def _special_id(folder: Path, key: str) -> int:
    vocabulary = json.loads((folder / PROMPT_FILES[2]).read_text(encoding="utf-8"))
    entry = json.loads((folder / PROMPT_FILES[3]).read_text(encoding="utf-8")).get(key)
    token = entry["content"] if isinstance(entry, dict) else entry
    if token not in vocabulary:
        raise ArtifactError(f"{folder / PROMPT_FILES[3]}: {key} is {token!r}, which tokenizer/vocab.json does not have")
    found: int = vocabulary[token]
    return found
