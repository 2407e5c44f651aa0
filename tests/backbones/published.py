"""Tiny checkpoints under the names of the real ones, where possible written by the publishers' own classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cambrian.models.tensor_files import write_tensors
from cambrian.release.encoders import EncoderRow, read_encoder_rows

if TYPE_CHECKING:
    from pathlib import Path

ROWS = read_encoder_rows()
SIDE = 28
VIT = {"img_size": SIDE, "embed_dim": 16, "depth": 2, "num_heads": 2}
HIDDEN = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def tiny(name: str, *, side: int = SIDE, **model_args: Any) -> EncoderRow:
    """A row with everything of the real one but its sizes."""
    row = ROWS[name]
    spec = row.spec.model_copy(update={"image": row.spec.image.model_copy(update={"side": side})})
    return row.model_copy(update={"model_args": {**row.model_args, **model_args}, "spec": spec})


def timm_tensors(row: EncoderRow, **changes: Any) -> dict[str, torch.Tensor]:
    """The complete network of timm, head and all, with weights that differ from tensor to tensor."""
    args = {**row.network_args, "num_classes": 5, **changes}
    import timm

    torch.manual_seed(1)
    return dict(timm.create_model(row.architecture, **args).state_dict())


def write_clip(folder: Path) -> Any:
    """A complete CLIP, both towers, as transformers writes it."""
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(**HIDDEN, vocab_size=20, max_position_embeddings=8)
    vision = CLIPVisionConfig(**HIDDEN, image_size=SIDE, patch_size=14, hidden_act="quick_gelu")
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8))
    model.save_pretrained(folder)
    return model.eval()


def write_dinov2(folder: Path) -> Any:
    """DINOv2 on a position table of 3 x 3, as transformers writes it."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=4, image_size=42, patch_size=14
    )
    model = Dinov2Model(config)
    model.save_pretrained(folder)
    return model.eval()


def write_beit(folder: Path) -> Any:
    """DPT around BEiT, as MiDaS 3.1 is published: the features are its backbone's."""
    from transformers import BeitConfig, BeitModel

    torch.manual_seed(0)
    config = BeitConfig(**HIDDEN, image_size=32, patch_size=16, use_relative_position_bias=True)
    model = BeitModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    from safetensors.torch import load_file

    written = load_file(folder / "model.safetensors")
    tensors = {f"backbone.{name.removeprefix('beit.')}": value for name, value in written.items()}
    tensors["neck.convs.0.weight"] = torch.zeros(2, 2)
    write_tensors(folder / "model.safetensors", tensors)
    return model.eval()


def write_dpt(folder: Path) -> Any:
    """MiDaS 3.0, neck and head and all, as transformers writes it."""
    from transformers import DPTConfig, DPTForDepthEstimation

    torch.manual_seed(0)
    config = DPTConfig(
        **HIDDEN,
        image_size=32,
        patch_size=16,
        backbone_out_indices=[0, 0, 1, 1],
        neck_hidden_sizes=[4, 4, 4, 4],
        fusion_hidden_size=4,
    )
    model = DPTForDepthEstimation(config)
    model.save_pretrained(folder)
    return model.eval()
