"""How training gets at its records and images: mapped indices, a folder or a bucket, all behind one interface."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cambrian.artifacts import read_manifest
from cambrian.data.bucket import BucketConfig, BucketShards
from cambrian.data.image_index import map_index
from cambrian.data.shards import INDEX_NAME, FolderShards, ImageStore, ShardReader
from cambrian.params import Params


class FolderConfig(Params):
    """Shards lie in the pool's folder."""

    kind: Literal["folder"]


class LoadingConfig(Params):
    """The block `loading` of a scale: where samples come from and how far ahead they are made; changes no result."""

    folder: str
    """Where indices are mapped from: made once for each mix and pool, and made again where they are gone."""
    shards: Annotated[FolderConfig | BucketConfig, Field(discriminator="kind")]
    num_workers: int = Field(ge=0)
    """Threads that decode, pad and resize; 0 does so when a batch is made."""
    num_steps_ahead: int = Field(ge=0)
    """Steps whose images workers make before they are asked for."""


def open_images(pool: Path, config: LoadingConfig) -> ImageStore:
    """The images of a pool, wherever its shards are.

    Of a pool in a bucket only the manifest and `images.json` have to be in the folder.

    Raises:
        ArtifactError: the pool is missing or unfinished, or its index cannot be read.
    """
    shards: ShardReader
    if isinstance(config.shards, BucketConfig):
        shards = BucketShards(config.shards, pool.name, Path(config.shards.cache))
    else:
        read_manifest(pool)
        shards = FolderShards(pool)
    return ImageStore(pool, places=map_index(pool / INDEX_NAME, Path(config.folder)), shards=shards)
