"""The four encoders of the released models: as rows of data, and with the release's delivery of their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.interfaces import ArtifactError
from cambrian.models.encoders import EncoderSpec, FeaturesConfig, ImageConfig, VisionEncoder, resize_map
from cambrian.models.torchvision_shim import declare_missing_operators

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_CLIP_COLOUR = (122, 116, 104)


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """One encoder of the release."""

    checkpoint: str
    """The repository of its weights."""
    weights: Literal["timm", "clip", "dinov2"]
    """Whose names the tensors there have: timm's, or those of transformers' CLIP or DINOv2."""
    prefix: str
    """Before every name of the vision model there."""
    architecture: str
    """In timm."""
    model_args: dict[str, Any]
    spec: EncoderSpec


def _spec(
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
    colour: Sequence[int],
    *,
    layers: Sequence[int],
    norm: bool,
) -> EncoderSpec:
    image = ImageConfig.model_validate({"side": side, "mean": mean, "std": std, "pad_colour": colour})
    return EncoderSpec(image=image, features=FeaturesConfig(layers=tuple(layers), norm=norm))


RELEASED_ENCODERS = {
    "siglip/CLIP-ViT-SO400M-14-384": EncoderRow(
        checkpoint="timm/ViT-SO400M-14-SigLIP-384",
        weights="timm",
        prefix="visual.trunk.",
        architecture="vit_so400m_patch14_siglip_384",
        model_args={"num_classes": 0, "global_pool": ""},
        # the release pads with CLIP's colour, a default argument that the released weights have learned
        spec=_spec(384, (0.5,) * 3, (0.5,) * 3, _CLIP_COLOUR, layers=[-1], norm=True),
    ),
    "openai/clip-vit-large-patch14-336": EncoderRow(
        checkpoint="openai/clip-vit-large-patch14-336",
        weights="clip",
        prefix="vision_model.",
        architecture="vit_large_patch14_clip_quickgelu_336",
        model_args={"num_classes": 0},
        spec=_spec(336, _CLIP_MEAN, _CLIP_STD, _CLIP_COLOUR, layers=[-2], norm=False),
    ),
    "facebook/dinov2-giant-res378": EncoderRow(
        checkpoint="facebook/dinov2-giant",
        weights="dinov2",
        prefix="",
        architecture="vit_giant_patch14_dinov2",
        model_args={"num_classes": 0, "img_size": 378},
        spec=_spec(378, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (123, 116, 103), layers=[-1], norm=True),
    ),
    "clip-convnext-XXL-multi-stage": EncoderRow(
        checkpoint="laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup",
        weights="timm",
        prefix="visual.trunk.",
        architecture="convnext_xxlarge",
        model_args={"num_classes": 0},
        spec=_spec(1024, _CLIP_MEAN, _CLIP_STD, _CLIP_COLOUR, layers=[0, 1, 2, 3], norm=False),
    ),
}
"""By the release's names.

Source: release, `multimodal_encoder/`; the paper's table of its final models.
"""


class DeliveringEncoder(VisionEncoder):
    """An encoder that delivers its features on a given grid, each layer brought there by itself.

    A fine stage that is resized twice is not what the release's connector was trained on.
    """

    def __init__(self, backbone: nn.Module, spec: EncoderSpec, *, side: int) -> None:
        self.side = side
        super().__init__(backbone, spec)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return Float[images, channels, side, side], layers joined along channels in their order."""
        maps: list[Tensor] = self.backbone.forward_intermediates(  # type: ignore[operator]
            pixels, indices=self.layers, norm=self.norm, output_fmt="NCHW", intermediates_only=True, stop_early=True
        )
        return torch.cat([resize_map(feature_map, self.side) for feature_map in maps], dim=1)


def build_encoder(row: EncoderRow, *, side: int) -> DeliveringEncoder:
    """Build an encoder with fresh weights on torch's current device; `side` is the grid that it delivers."""
    declare_missing_operators()
    import timm

    return DeliveringEncoder(timm.create_model(row.architecture, **row.model_args), row.spec, side=side)


def to_timm_names(
    tensors: Mapping[str, Tensor], weights: Literal["timm", "clip", "dinov2"], *, grid: int
) -> dict[str, Tensor]:
    """Bring the tensors of an encoder's checkpoint to timm's names and shapes; `grid` is that of its input.

    Raises:
        ArtifactError: a tensor that such an encoder does not have.
    """
    if weights == "timm":
        return dict(tensors)
    rules = _CLIP_RULES if weights == "clip" else _DINOV2_RULES
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        target = name
        for theirs, ours in rules:
            target = target.replace(theirs, ours)
        if target in _UNUSED:
            continue
        if target in renamed:
            raise ArtifactError(f"{name}: there already is a tensor that becomes {target}")
        renamed[target] = tensor
    for name in sorted(name for name in renamed if ".attn.q_proj." in name):
        parts = [name.replace("q_proj", kind) for kind in ("q_proj", "k_proj", "v_proj")]
        if absent := [part for part in parts if part not in renamed]:
            raise ArtifactError(f"{absent[0]} is missing beside {name}: the encoder's checkpoint is not complete")
        renamed[name.replace("q_proj", "qkv")] = torch.cat([renamed.pop(part) for part in parts])
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    positions = renamed["pos_embed"]
    renamed["pos_embed"] = resample_positions(positions.reshape(1, *positions.shape[-2:]), grid)
    return renamed


def resample_positions(table: Tensor, grid: int) -> Tensor:
    """Bring a ViT's position table (class token first) from its own square grid to another; equal grids pass.

    The release's rule is a scale *factor* of (grid + 0.1) / old, not a target size, which shifts every sample a
    little: the released connectors have learned it.

    Source: transformers 4.37, `Dinov2Embeddings.interpolate_pos_encoding`.
    """
    old = round((table.shape[1] - 1) ** 0.5)
    if old == grid:
        return table
    square = rearrange(table[:, 1:].float(), "one (row column) dim -> one dim row column", row=old)
    factor = (grid + 0.1) / old
    square = F.interpolate(square, scale_factor=(factor, factor), mode="bicubic", align_corners=False)
    patches = rearrange(square, "one dim row column -> one (row column) dim").to(table.dtype)
    return torch.cat([table[:, :1], patches], dim=1)


_CLIP_RULES = (
    ("embeddings.class_embedding", "cls_token"),
    ("embeddings.patch_embedding.", "patch_embed.proj."),
    ("embeddings.position_embedding.weight", "pos_embed"),
    ("pre_layrnorm.", "norm_pre."),
    ("encoder.layers.", "blocks."),
    ("self_attn.out_proj.", "attn.proj."),
    ("self_attn.", "attn."),
    ("layer_norm1.", "norm1."),
    ("layer_norm2.", "norm2."),
    ("post_layernorm.", "norm."),
)
_DINOV2_RULES = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    ("attention.attention.query.", "attn.q_proj."),
    ("attention.attention.key.", "attn.k_proj."),
    ("attention.attention.value.", "attn.v_proj."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.weights_in.", "mlp.fc1."),
    ("mlp.weights_out.", "mlp.fc2."),
    ("layernorm.", "norm."),
)
"""Pieces of names as the published checkpoints have them, and timm's; applied in order."""

_UNUSED = ("embeddings.mask_token", "embeddings.position_ids")
"""Tensors of the published checkpoints that no feature depends on."""
