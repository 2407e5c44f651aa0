"""The release's checkpoints: its names for our tensors, and strict reading and writing of whole models.

Encoders are in no checkpoint of the release: it takes their weights from their own publishers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cambrian.interfaces import ArtifactError
from cambrian.models.tensor_files import unique_tensors
from cambrian.release.building import build_release_model
from cambrian.release.config import read_config, write_config
from cambrian.release.shards import ShardWriter, open_shards

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from cambrian.models.connector import FeatureShape
    from cambrian.models.encoders import VisionEncoder
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.release.config import ReleaseConfig

_NUM_SHOWN = 4
"""Faults of one kind that an error names."""

_LAYER_RULES = (
    (r"context_projection\.(\w+)", r"proj_context.\1"),
    (r"input_projection\.(\w+)", r"proj_in.\1"),
    (r"query\.(\d)\.(\w+)", r"cross_attn.q_proj.\1.\2"),
    (r"keys\.(\d+)\.(\d)\.(\w+)", r"cross_attn.k_proj_\1.\2.\3"),
    (r"values\.(\d+)\.(\d)\.(\w+)", r"cross_attn.v_proj_\1.\2.\3"),
    (r"window_positions\.encoder_(\d+)", r"pos_embed_\1"),
    (r"attention_output\.(\w+)", r"cross_attn.o_proj.\1"),
    (r"norm\.(\w+)", r"norm.\1"),
    (r"output\.0\.(\w+)", r"proj_out.linear_1.\1"),
    (r"output\.2\.(\w+)", r"proj_out.linear_2.\1"),
)
"""Names inside one layer of an aggregator."""

_RULES = (
    (r"llm\.model\.(.+)", r"model.\1"),
    (r"llm\.(lm_head\..+)", r"\1"),
    (r"connector\.queries", r"model.vision_query"),
    (r"connector\.output\.(.+)", r"model.mm_projector.\1"),
    (r"connector\.projections\.(\d+)\.(.+)", r"model.mm_projector_aux_\1.\2"),
    (r"layout\.newline", r"model.image_newline"),
)
"""All other names of ours, and the release's."""

_AGGREGATORS = (
    (r"connector\.groups\.(\d+)\.layers\.(\d+)\.(.+)", "model.vision_sampler_{}.layers.{}.{}"),
    (r"aggregators\.(\d+)\.layers\.(\d+)\.(.+)", "model.vision_sampler_layers.{}.layers.{}.{}"),
)
"""Where a stack of such layers stands."""


def official_name(name: str) -> str:
    """Return the release's name of a tensor of `MultimodalModel`.

    Raises:
        ValueError: the release has no such tensor.

    Source: release, the state dict of `CambrianLlamaForCausalLM`.
    """
    for pattern, form in _AGGREGATORS:
        if match := re.fullmatch(pattern, name):
            module, layer, leaf = match.groups()
            return form.format(module, layer, _rename(leaf, _LAYER_RULES, whole=name))
    return _rename(name, _RULES, whole=name)


def official_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's tensors by the release's names, the encoders' left out."""
    tensors = unique_tensors(model)
    return {official: tensors[ours] for official, ours in our_names(model).items()}


def our_names(model: nn.Module) -> dict[str, str]:
    """Return our name of every tensor, by the release's name of it."""
    names = [name for name in unique_tensors(model) if not name.startswith("encoders.")]
    return {official_name(name): name for name in names}


def match_names(model: nn.Module, found: Mapping[str, tuple[int, ...]], *, where: Path) -> dict[str, str]:
    """Return our name of every tensor of a checkpoint, which has the release's names or ours, after checking it.

    Raises:
        ArtifactError: names the tensors that are missing, left over or of another shape.
    """
    names = our_names(model)
    if not any(name in names for name in found):
        names = {ours: ours for ours in names.values()}
    tensors = unique_tensors(model)
    expected = {name: tuple(tensors[ours].shape) for name, ours in names.items()}
    missing = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    extra = [f"{name} is not part of the model" for name in sorted(found.keys() - expected.keys())]
    misshapen = [
        f"{name} has shape {found[name]}, config.json makes it {shape}"
        for name, shape in sorted(expected.items())
        if name in found and found[name] != shape
    ]
    if faults := [_shorten(kind) for kind in (missing, extra, misshapen) if kind]:
        raise ArtifactError(
            f"{where}: {'; '.join(faults)}. The weights and config.json are not of one model: download both again"
        )
    return names


def read_checkpoint(
    folder: Path, *, encoders: Sequence[VisionEncoder], shapes: Sequence[FeatureShape], dtype: torch.dtype
) -> MultimodalModel:
    """Read a released model's folder (`config.json`, and safetensors or .bin, sharded or not), strictly.

    The tensors may have the release's names or ours (`convert_checkpoint` writes both). Every tensor is converted to
    `dtype`; one file is open at a time. The encoders are used as they come.

    Raises:
        ArtifactError: a file is missing or broken, or a tensor is missing, left over or of another shape.
    """
    model = build_release_model(read_config(folder), encoders=encoders, shapes=shapes)
    shards = open_shards(folder)
    names = match_names(model, shards.shapes, where=folder)
    for tensors in shards:
        ours = {names[name]: tensor.to(dtype, copy=True) for name, tensor in tensors.items()}
        model.load_state_dict(ours, strict=False, assign=True)
    return model


def write_checkpoint(folder: Path, model: MultimodalModel, config: ReleaseConfig, *, max_shard_bytes: int) -> None:
    """Write a model in the release's layout into a folder: `config.json` and safetensors of at most this size.

    A tensor that is larger by itself gets a file of its own.

    Raises:
        ValueError: the model has a tensor that the release's layout has no name for.
    """
    tensors = official_tensors(model)
    shards: list[dict[str, Tensor]] = [{}]
    free = max_shard_bytes
    for name in sorted(tensors):
        num_bytes = tensors[name].numel() * tensors[name].element_size()
        if num_bytes > free and shards[-1]:
            shards.append({})
            free = max_shard_bytes
        shards[-1][name] = tensors[name]
        free -= num_bytes
    writer = ShardWriter(folder, num_shards=len(shards))
    for shard in shards:
        writer.write(shard)
    writer.finish()
    write_config(folder, config)


def _rename(name: str, rules: Sequence[tuple[str, str]], *, whole: str) -> str:
    for ours, theirs in rules:
        if match := re.fullmatch(ours, name):
            return match.expand(theirs)
    raise ValueError(f"{whole}: the release's layout has no such tensor; export only SVA models without extra layers")


def _shorten(faults: list[str]) -> str:
    hidden = len(faults) - _NUM_SHOWN
    return "; ".join(faults[:_NUM_SHOWN]) + (f"; and {hidden} more" if hidden > 0 else "")
