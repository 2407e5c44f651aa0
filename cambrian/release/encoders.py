"""Every vision encoder of the paper, as rows of data, and with the release's delivery of their tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.encoder_libraries import Library, build_network
from cambrian.models.encoders import EncoderSpec, VisionEncoder, resize_map
from cambrian.params import Params, look_up, parse_block, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROWS_PATH = Path(__file__).with_name("encoders.yaml")

_Rules = tuple[tuple[str, str], ...]
_Counts = Annotated[tuple[int, ...], Field(strict=False, min_length=1)]
WeightNames = Literal["timm", "clip", "dinov2", "open-clip", "transformers", "beit", "diffusers"]


class Contradiction(Params):
    """A cell of the paper's table that cannot be true."""

    printed: int | str | bool
    reason: str = Field(min_length=20)


class Positions(Params):
    """An encoder's table of positions."""

    kind: Literal["none", "fixed", "scale-factor"]
    """Of a side of its own only, or resampled by `resample_positions`."""
    trained_grid: int | None
    """Places per side that it was trained on; null where there is no table."""


class EncoderRow(Params):
    """One encoder."""

    group: Literal["language-supervised", "self-supervised", "other"]
    """This, and the fields down to `patch`, in the paper's words."""
    supervision: str
    method: str
    family: str
    patch: int | None
    released_as: str | None
    """In the release's configs and scripts; null where its code has none of these."""
    checkpoint: str | None
    """The repository or address of its weights; null where nobody has published them."""
    revision: str | None = Field(pattern=r"^([0-9a-f]{40}|[0-9a-f]{64})$")
    """The commit of a repository, the SHA-256 of a file at an address; null where nobody has looked it up yet."""
    files: Annotated[tuple[str, ...], Field(strict=False)]
    """The repository's file of weights: the first of these that it has. An address is one file."""
    entry: str | None
    """Under this name the tensors stand in a pickled file; null where the file holds nothing else."""
    renamed: dict[str, str]
    """Beginnings of names outside `prefix` that belong to the network, and what they are there."""
    unused: Annotated[tuple[str, ...], Field(strict=False)]
    """Beginnings of names that may be there and that no feature depends on; any other name is a fault."""
    weights: WeightNames
    """Whose names the tensors there have; see `to_timm_names`."""
    prefix: str
    """Before every name of the vision model there."""
    library: Library
    architecture: str
    """In timm; a class of the other libraries."""
    model_args: dict[str, Any]
    spec: EncoderSpec
    resize_side: int = Field(gt=0)
    """Pixels that the padded square is brought to before its middle is cut to the side of `spec`."""
    side_multiple: int | None
    """It takes every side that this divides; null where it takes only that of `spec`."""
    num_prefix_tokens: int = Field(ge=0)
    """Class token and registers, which are dropped."""
    positions: Positions
    strides: _Counts
    """Pixels per place of every layer's map, a side."""
    widths: _Counts
    """Channels of every layer's map; they are joined."""
    delivered_grid: int | None
    """Places per side that every layer is interpolated to; null where it stays on its own."""
    num_parameters: int = Field(gt=0)
    contradictions: dict[str, Contradiction]
    """By the column of the paper's table."""

    @model_validator(mode="after")
    def _one_of_each(self) -> EncoderRow:
        if not len(self.spec.features.layers) == len(self.strides) == len(self.widths):
            counts = (len(self.spec.features.layers), len(self.strides), len(self.widths))
            raise ValueError("{} layers, {} strides and {} widths: one of each per layer".format(*counts))
        if self.delivered_grid is None and len(self.strides) > 1:
            raise ValueError("several layers need a delivered_grid that they are joined on")
        return self

    @property
    def network_args(self) -> dict[str, Any]:
        """What `build_network` takes beside library and architecture: `model_args`, and what follows from the row."""
        args = dict(self.model_args)
        if self.positions.kind == "scale-factor":
            args["img_size"] = self.spec.image.side
        if self.library == "transformers":
            args["num_prefix_tokens"] = self.num_prefix_tokens
        return args

    @property
    def hidden_dim(self) -> int:
        """Channels of its features."""
        return sum(self.widths)

    @property
    def native_grids(self) -> tuple[int, ...]:
        """Places per side of every layer's map, at the side of `spec`."""
        return tuple(self.spec.image.side // stride for stride in self.strides)

    @property
    def grid(self) -> int:
        """Places per side of its features."""
        return self.native_grids[0] if self.delivered_grid is None else self.delivered_grid

    @property
    def num_tokens(self) -> int:
        """Features of an image."""
        return self.grid**2

    @property
    def is_interpolated(self) -> bool:
        """Whether any layer is brought to another grid than its own."""
        return any(native != self.grid for native in self.native_grids)

    def at_side(self, side: int, *, name: str) -> EncoderRow:
        """Return the row for images of another side.

        Raises:
            ParamsError: the encoder cannot take them.
        """
        if side == self.spec.image.side:
            return self
        if self.side_multiple is None:
            raise ParamsError(f"{name}: {side} px, but it takes {self.spec.image.side} px only; {self._why_fixed()}")
        if side <= 0 or side % self.side_multiple:
            below = side - side % self.side_multiple
            near = ", ".join(str(value) for value in (below, below + self.side_multiple) if value > 0)
            raise ParamsError(f"{name}: {side} px, but it takes multiples of {self.side_multiple} px; nearest: {near}")
        image = self.spec.image.model_copy(update={"side": side})
        spec = self.spec.model_copy(update={"image": image})
        return self.model_copy(update={"spec": spec, "resize_side": side})

    def _why_fixed(self) -> str:
        if self.positions.trained_grid is None:
            return "its positions are relative within this grid"
        return f"its positions are learned, for {self.positions.trained_grid} x {self.positions.trained_grid} places"


class DeliveringEncoder(VisionEncoder):
    """An encoder that delivers its features on a given grid, each layer brought there by itself.

    A fine stage that is resized twice is not what the release's connector was trained on.
    """

    def __init__(self, backbone: nn.Module, spec: EncoderSpec, *, side: int, name: str = "the encoder") -> None:
        self.side = side
        self.name = name
        self.image_side = spec.image.side
        super().__init__(backbone, spec)
        self.num_maps, self.grid = 1, side
        self.map_shapes = [(self.channels, side)]

    def maps(self, pixels: Tensor) -> list[Tensor]:
        """Return the delivered map alone."""
        return [self(pixels)]

    def forward(self, pixels: Tensor) -> Tensor:
        """Return Float[images, channels, side, side], layers joined along channels in their order.

        Raises:
            ValueError: the images have another side than the encoder was built for.
        """
        if pixels.shape[-2:] != (self.image_side, self.image_side):
            found = " x ".join(str(size) for size in pixels.shape[-2:])
            raise ValueError(
                f"{self.name}: images of {found} px, but it was built for {self.image_side} x {self.image_side}; "
                "bring them there, or build it with their side"
            )
        maps: list[Tensor] = self.backbone.forward_intermediates(  # type: ignore[operator]
            pixels, indices=self.layers, norm=self.norm, output_fmt="NCHW", intermediates_only=True, stop_early=True
        )
        return torch.cat([resize_map(feature_map, self.side) for feature_map in maps], dim=1)


def read_encoder_rows(section: Literal["study", "final", "extra"] | None = None) -> dict[str, EncoderRow]:
    """Read the rows: `study` are the paper's table in its order, `final` the four of the final models in theirs.

    Raises:
        ParamsError: a row has a field that there is not, lacks one, or has a value of another type.
    """
    content = read_yaml(_ROWS_PATH)
    sections = ("study", "final", "extra") if section is None else (section,)
    return {
        name: parse_block(EncoderRow, row, where=f"{_ROWS_PATH.name}: {part}.{name}")
        for part in sections
        for name, row in content[part].items()
    }


def find_encoder_row(name: str, *, side: int | None) -> EncoderRow:
    """Return the row of this name, for images of its own side or another.

    Raises:
        ParamsError: there is no such encoder, or it cannot take images of that side.
    """
    row: EncoderRow = look_up(read_encoder_rows(), name, where=_ROWS_PATH.name)
    return row if side is None else row.at_side(side, name=name)


def build_published_encoder(
    name: str, *, side: int | None = None, device: torch.device | str = "meta"
) -> DeliveringEncoder:
    """Build an encoder of the paper at full size with fresh weights, for images of its own side or another.

    Raises:
        ParamsError: there is no such encoder, or it cannot take images of that side.
    """
    row = find_encoder_row(name, side=side)
    with torch.device(device):
        return build_encoder(row, side=row.grid, name=name)


def build_encoder(row: EncoderRow, *, side: int, name: str = "the encoder") -> DeliveringEncoder:
    """Build an encoder with fresh weights on torch's current device; `side` is the grid that it delivers.

    Raises:
        ValueError: its library cannot make it.
    """
    return DeliveringEncoder(_build_backbone(row), row.spec, side=side, name=name)


def _build_backbone(row: EncoderRow) -> nn.Module:
    return build_network(row.library, row.architecture, row.network_args)


RELEASED_ENCODERS = {row.released_as or name: row for name, row in read_encoder_rows("final").items()}
"""The four of the final models, by the release's names.

Source: release, `multimodal_encoder/`; the paper's table of its final models.
"""


def rename_tensors(tensors: Mapping[str, Tensor], row: EncoderRow, *, where: str) -> dict[str, Tensor]:
    """Bring the tensors of a publisher's file to the names of the row's network; every one is accounted for.

    Raises:
        ArtifactError: a tensor that is neither the network's nor one of those that no feature depends on.
    """
    own: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        beginning = next((theirs for theirs in row.renamed if name.startswith(theirs)), None)
        if beginning is not None:
            others[row.renamed[beginning] + name.removeprefix(beginning)] = tensor
        elif name.startswith(row.unused):
            continue
        elif name.startswith(row.prefix):
            own[name.removeprefix(row.prefix)] = tensor
        else:
            raise ArtifactError(f"{where}: {name} is in no checkpoint of this encoder: is it another model's?")
    if row.weights in ("transformers", "beit"):
        rules = _BEIT_RULES if row.weights == "beit" else ()
        kept = {name: tensor for name, tensor in own.items() if not name.endswith("relative_position_index")}
        return {f"model.{_apply(rules, name)}": tensor for name, tensor in kept.items()}
    grid = row.native_grids[0]
    return {**to_timm_names(own, row.weights, grid=grid), **others}


def to_timm_names(tensors: Mapping[str, Tensor], weights: WeightNames, *, grid: int) -> dict[str, Tensor]:
    """Bring the tensors of an encoder's checkpoint to timm's names and shapes; `grid` is that of its input.

    Raises:
        ArtifactError: a tensor that such an encoder does not have.
    """
    if weights not in _TIMM_RULES:  # the backbone that is built has these names itself
        return dict(tensors)
    rules = _TIMM_RULES[weights]
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        target = _apply(rules, name)
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
    if absent := [name for name in ("cls_token", "pos_embed") if name not in renamed]:
        raise ArtifactError(f"the tensor that becomes {absent[0]} is missing: the encoder's checkpoint is not complete")
    renamed["cls_token"] = renamed["cls_token"].reshape(1, 1, -1)
    positions = renamed["pos_embed"]
    renamed["pos_embed"] = resample_positions(positions.reshape(1, *positions.shape[-2:]), grid)
    return renamed


def _apply(rules: _Rules, name: str) -> str:
    for theirs, ours in rules:
        name = name.replace(theirs, ours)
    return name


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
_OPEN_CLIP_RULES = (
    ("class_embedding", "cls_token"),
    ("positional_embedding", "pos_embed"),
    ("conv1.", "patch_embed.proj."),
    ("ln_pre.", "norm_pre."),
    ("ln_post.", "norm."),
    ("transformer.resblocks.", "blocks."),
    ("ln_1.", "norm1."),
    ("ln_2.", "norm2."),
    ("attn.in_proj_", "attn.qkv."),
    ("attn.out_proj.", "attn.proj."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
)
"""Pieces of names as the published checkpoints have them, and timm's; applied in order."""

_TIMM_RULES: dict[str, _Rules] = {"clip": _CLIP_RULES, "dinov2": _DINOV2_RULES, "open-clip": _OPEN_CLIP_RULES}
"""By whose names they are."""

_BEIT_RULES = (
    ("encoder.layer.", "layers."),
    ("attention.attention.relative_position_bias.", "relative_position_bias."),
    ("attention.attention.query.", "attention.q_proj."),
    ("attention.attention.key.", "attention.k_proj."),
    ("attention.attention.value.", "attention.v_proj."),
    ("attention.output.dense.", "attention.o_proj."),
    ("intermediate.dense.", "mlp.fc1."),
    ("output.dense.", "mlp.fc2."),
)
"""The same for BEiT, whose modules transformers 5 calls otherwise than its published checkpoints."""

_UNUSED = ("embeddings.mask_token", "embeddings.position_ids", "proj")
"""Tensors of the published checkpoints that no feature depends on."""
