"""Where every image of a pool lies, in arrays that are mapped into memory: no process holds millions of names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xxhash

from cambrian.artifacts import read_json, read_manifest
from cambrian.data.made_once import make_once
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ARRAY_NAME = "places.npy"
_PLACE = np.dtype([("key", "<u8"), ("shard", "<u4"), ("offset", "<u8"), ("size", "<u8")])


class ImageIndex:
    """Finds an image's shard, offset and size by its name: a binary search over hashes, mapped into memory."""

    def __init__(self, folder: Path) -> None:
        """Open a folder that `map_index` made.

        Raises:
            ArtifactError: it is missing or unfinished.
        """
        read_manifest(folder)
        self._folder = folder
        places = np.load(folder / _ARRAY_NAME, mmap_mode="r")
        self._keys, self._shards = places["key"], places["shard"]
        self._offsets, self._sizes = places["offset"], places["size"]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, name: str) -> tuple[int, int, int] | None:
        """Shard, offset and size of an image; None where no image has a name of this hash."""
        key = _key(name)
        place = int(self._keys.searchsorted(key))
        if place == len(self._keys) or self._keys[place] != key:
            return None
        return int(self._shards[place]), int(self._offsets[place]), int(self._sizes[place])

    def __reduce__(self) -> tuple[type[ImageIndex], tuple[Path]]:
        return ImageIndex, (self._folder,)


def map_index(index_path: Path, folder: Path) -> ImageIndex:
    """Map a pool's `images.json`; the arrays are written below `folder` the first time, named by its digest.

    Raises:
        ArtifactError: the index cannot be read, two of its names have one hash, or the folder cannot be written.
    """
    try:
        digest = xxhash.xxh3_64_hexdigest(index_path.read_bytes())
    except FileNotFoundError as error:
        raise ArtifactError(f"{index_path} is missing: run the stage that makes the pool (`dvc repro` does)") from error
    mapped = folder / f"images-{digest}"
    make_once(mapped, lambda partial: _write_index(partial, read_json(index_path), where=index_path))
    return ImageIndex(mapped)


def _write_index(folder: Path, index: Mapping[str, Sequence[int]], *, where: Path) -> None:
    places = np.empty(len(index), _PLACE)
    for row, (name, (shard, offset, size)) in enumerate(index.items()):
        places[row] = (_key(name), shard, offset, size)
    places.sort(order="key")
    if len(index) > 1 and (places["key"][1:] == places["key"][:-1]).any():  # one chance in 600,000 for 8 million names
        raise ArtifactError(f"two images of {where} have names of the same hash: rename one of them")
    np.save(folder / _ARRAY_NAME, places)


def _key(name: str) -> np.uint64:
    return np.uint64(xxhash.xxh3_64_intdigest(name.encode()))
