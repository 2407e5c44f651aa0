"""Checkpoint folders from the release's names to ours and back, file by file."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Literal

from cambrian.artifacts import write_folder
from cambrian.interfaces import ArtifactError
from cambrian.release.building import build_on_meta
from cambrian.release.checkpoints import match_names, official_name
from cambrian.release.config import read_config, write_config
from cambrian.release.shards import ShardWriter, open_shards

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian.models.connector import FeatureShape

Layout = Literal["release", "cambrian"]

_CARRIED = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
)
"""Files beside the weights that are copied as they are."""


def convert_checkpoint(source: Path, output: Path, *, layout: Layout, shapes: Sequence[FeatureShape]) -> int:
    """Write a checkpoint again as safetensors, under the names of `layout`, and return the number of its files.

    The source may have either names, and be safetensors or .bin, in one file or many. Types and values stay as they
    are, one file becomes one file, and no more than two are in memory at a time.

    Raises:
        ArtifactError: a file is missing or broken; a tensor is missing, left over or of another shape; or the disk is
            full. Nothing is left of the output then.
    """
    if output.resolve() == source.resolve():
        raise ArtifactError(f"{output} is the source itself: write to another folder")
    config = read_config(source)
    shards = open_shards(source)
    model = build_on_meta(config, shapes)
    names = match_names(model, shards.shapes, where=source)
    renamed = names if layout == "cambrian" else {found: official_name(ours) for found, ours in names.items()}
    with write_folder(output, layout=layout) as partial:
        writer = ShardWriter(partial, num_shards=len(shards.paths))
        for tensors in shards:
            writer.write({renamed[name]: tensor for name, tensor in tensors.items()})
        writer.finish()
        write_config(partial, config)
        for name in _CARRIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, partial / name)
    return len(shards.paths)
