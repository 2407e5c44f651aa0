"""Published checkpoints in timm's and transformers' layouts, brought into the one format of backbone folders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import torch

from cambrian.artifacts import read_json
from cambrian.backbones.fetching import choose_file, fetch, list_files, pinned
from cambrian.interfaces import ArtifactError
from cambrian.models.encoders import write_encoder
from cambrian.models.language_model import build_language_model, parse_language_model
from cambrian.models.tensor_files import shape_faults, unique_tensors
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.release.language_models import LanguageModelRow, find_language_model
from cambrian.release.shards import join_shards, open_shards
from cambrian.release.tokenizers import write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from cambrian.backbones.config import (
        FolderSource,
        HubSource,
        PretrainedEncoder,
        PretrainedLanguageModel,
        PublishedLanguageModel,
    )

_ENCODER_FILES = ("config.json", "model.safetensors")
_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "added_tokens.json")
_WEIGHTS_FILES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
"""The first that there is stands for all of its kind."""

_IDENTITY = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "rms_norm_eps",
    "rope_parameters",
    "tie_word_embeddings",
)
"""Fields of `config.json` by which a checkpoint is known to be a row's."""

_LEFT_OUT = re.compile(r"rotary_emb\.inv_freq$")
"""Buffers that older checkpoints hold and the model computes itself."""


def convert_encoder(config: PretrainedEncoder, *, folder: Path) -> None:
    """Load a timm checkpoint, with `model_args` applied as timm does, and write it as a backbone folder.

    timm adapts what it knows how to adapt (position embeddings to another image size, a dropped classifier).

    Raises:
        ArtifactError: the checkpoint cannot be fetched, or is not timm's.
    """
    declare_missing_operators()
    import timm

    source = fetch(config.source, _ENCODER_FILES)
    description = read_json(source / "config.json")
    if not isinstance(description, dict) or "architecture" not in description:
        raise ArtifactError(f"{source / 'config.json'} names no architecture: it is not a folder of timm's")
    model_args: dict[str, Any] = {**description.get("model_args", {}), **config.model_args}
    try:
        module: nn.Module = timm.create_model(f"local-dir:{source}", pretrained=True, **config.model_args)
    except (RuntimeError, TypeError, KeyError, OSError) as error:
        raise ArtifactError(f"timm cannot load {source} with {config.model_args}: {error}") from error
    write_encoder(folder, module, architecture=description["architecture"], model_args=model_args, spec=config.spec)


def convert_language_model(config: PretrainedLanguageModel, *, folder: Path) -> None:
    """Write an LLM in transformers' layout, sharded or not, and its tokenizer as one backbone folder.

    Raises:
        ArtifactError: the checkpoint cannot be fetched or read; a tensor is missing, left over or of another shape; or
            there is no tokenizer that names its end and its padding.
    """
    _convert(config.source, None, dtype=getattr(torch, config.dtype), folder=folder)


def convert_published_language_model(config: PublishedLanguageModel, *, folder: Path) -> None:
    """Write the LLM of a row, which its `config.json` must agree with, as a backbone folder.

    Raises:
        ParamsError: there is no such row.
        ArtifactError: as `convert_language_model`; also where the checkpoint is another model's.
    """
    row = find_language_model(config.row)
    source: Any = config.source
    if source.kind == "published":
        source = pinned(row.checkpoint, row.revision, row=config.row)
    _convert(source, row, dtype=getattr(torch, config.dtype), folder=folder)


def _convert(
    source: HubSource | FolderSource, row: LanguageModelRow | None, *, dtype: torch.dtype, folder: Path
) -> None:
    """Write config, weights and tokenizer; one file of the source is in memory at a time."""
    files = list_files(source)
    where = getattr(source, "path", None) or getattr(source, "repository", "")
    weights = choose_file(files, _WEIGHTS_FILES, where=str(where))
    kind = "model*.safetensors" if weights.startswith("model") else "pytorch_model*.bin"
    local = fetch(source, ["config.json", weights, kind, *_TOKENIZER_FILES])
    values = read_json(local / "config.json")
    try:
        found = parse_language_model(values)
        with torch.device("meta"):
            model: Any = build_language_model(values)
    except ValueError as error:
        raise ArtifactError(f"{local / 'config.json'}: {error}") from error
    if row is not None:
        _check_identity(found, row.config, where=local / "config.json")
    shards = open_shards(local)
    names = _match(unique_tensors(model), shards.shapes, where=local)
    model.config.dtype = dtype
    model.config.save_pretrained(folder)
    join_shards(folder / "model.safetensors", shards, names, dtype=dtype)
    write_tokenizer(folder, local, padding_token=None if row is None else row.padding_token)


def _check_identity(found: Any, expected: Mapping[str, Any], *, where: Path) -> None:
    wanted = parse_language_model(expected)
    for name in _IDENTITY:
        one, other = getattr(found, name), getattr(wanted, name)
        if one != other:
            raise ArtifactError(f"{where}: {name} is {one!r}, the row has {other!r}: it is another model")


def _match(
    expected: Mapping[str, torch.Tensor], found: Mapping[str, tuple[int, ...]], *, where: Path
) -> dict[str, str]:
    """Return the name in the model of every tensor of the checkpoint that it needs.

    A head that is tied to the embeddings may be there once more.
    """
    tied = {"lm_head.weight"} - expected.keys()
    kept = {name: shape for name, shape in found.items() if name not in tied and not _LEFT_OUT.search(name)}
    if faults := shape_faults({name: tuple(tensor.shape) for name, tensor in expected.items()}, kept):
        raise ArtifactError(f"{where}: {faults}. It is another model's checkpoint, or was not downloaded whole")
    return {name: name for name in kept}
