"""A tiny Stable Diffusion in its publisher's folders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch

from cambrian.models.diffusion import build_diffusion
from cambrian.models.tensor_files import write_tensors

if TYPE_CHECKING:
    from pathlib import Path

DIFFUSION: dict[str, Any] = {
    "block_channels": [8, 16],
    "blocks_per_level": 2,
    "vae_channels": [8, 8, 8, 8],
    "latent_channels": 4,
    "prompt_dim": 6,
    "head_dim": 4,
    "num_groups": 4,
    "timestep": 250,
}


def write_diffusion(folder: Path) -> torch.Tensor:
    """Write U-Net, VAE (with the decoder's names), text encoder and vocabulary; return the empty prompt's states."""
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tensors = build_diffusion(**DIFFUSION).state_dict()
    parts = {"unet": {}, "vae": {"decoder.conv_in.weight": torch.zeros(1), "post_quant_conv.bias": torch.zeros(1)}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part in parts:
            parts[part][rest] = tensor
    for part, content in parts.items():
        (folder / part).mkdir(parents=True)
        write_tensors(folder / part / "diffusion_pytorch_model.safetensors", content)
    config = CLIPTextConfig(
        hidden_size=6,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        vocab_size=5,
        eos_token_id=4,
        bos_token_id=3,
    )
    model = CLIPTextModel(config).eval()
    model.save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    vocabulary = {"!": 0, "a": 1, "b": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary))
    special = {"bos_token": {"content": "<|startoftext|>"}, "eos_token": {"content": "<|endoftext|>"}, "pad_token": "!"}
    (folder / "tokenizer" / "special_tokens_map.json").write_text(json.dumps(special))
    with torch.no_grad():
        states: torch.Tensor = model(torch.tensor([[3, 4] + [0] * 75])).last_hidden_state
    return states
