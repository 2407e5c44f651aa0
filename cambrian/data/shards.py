"""Images of a pool in a few tar files, each image readable in constant time by its name."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING, Any, Protocol

from cambrian.artifacts import read_json, write_json
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import BinaryIO, Self

INDEX_NAME = "images.json"


def shard_name(index: int) -> str:
    """The file name of the index-th shard of a folder."""
    return f"images-{index:05d}.tar"


class ShardWriter:
    """Writes images into tar files of about `max_bytes` each, and `images.json` when it is closed.

    A shard ends before an image that would take it past `max_bytes`; tar then pads it. A single image larger than
    `max_bytes` gets a shard of its own. Equal images in equal order give equal bytes.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._index: dict[str, tuple[int, int, int]] = {}
        self._num_shards = 0
        self._file: BinaryIO | None = None
        self._tar: tarfile.TarFile | None = None

    def add(self, name: str, data: bytes) -> None:
        """Append one image under this name.

        Raises:
            ValueError: the name is already there.
        """
        if name in self._index:
            raise ValueError(f"image {name!r} is already in {self._folder}: names must differ")
        if self._file is not None and self._file.tell() + _padded(len(data)) + tarfile.BLOCKSIZE > self._max_bytes:
            self._close_shard()
        tar, file = self._open_shard()
        member = tarfile.TarInfo(name)
        member.size = len(data)
        member.mode = 0o644
        tar.addfile(member, io.BytesIO(data))
        self._index[name] = (self._num_shards - 1, file.tell() - _padded(len(data)), len(data))

    def close(self) -> None:
        """Finish the last shard and write the index."""
        self._close_shard()
        write_json(self._folder / INDEX_NAME, {name: list(place) for name, place in self._index.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()

    def _open_shard(self) -> tuple[tarfile.TarFile, BinaryIO]:
        if self._tar is None or self._file is None:
            # Both stay open from one image to the next; close() closes them.
            self._file = (self._folder / shard_name(self._num_shards)).open("wb")
            self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._num_shards += 1
        return self._tar, self._file

    def _close_shard(self) -> None:
        if self._tar is not None and self._file is not None:
            self._tar.close()
            self._file.close()
        self._tar = self._file = None


class ShardReader(Protocol):
    """Reads pieces of a pool's shards, wherever these are."""

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """So many bytes of a shard from an offset on, no fewer.

        Raises:
            ArtifactError: they cannot be had.
        """
        ...

    def close(self) -> None:
        """Let go of files and connections; a later read opens them again."""
        ...


class PlaceTable(Protocol):
    """Knows where every image lies."""

    def find(self, name: str) -> tuple[int, int, int] | None:
        """Shard, offset and size; None where there is no such image."""
        ...

    def __len__(self) -> int: ...


class FolderShards:
    """The shards of a pool's folder.

    Reads are positioned, so threads, forked workers and unpickled copies may share one of these.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptors: dict[str, int] = {}

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """So many bytes of a shard from an offset on.

        Raises:
            ArtifactError: the shard is missing or too short.
        """
        data = os.pread(self._open(shard), size, offset)
        if len(data) != size:
            raise ArtifactError(
                f"{self._folder / shard} ends within {size} bytes at {offset} ({len(data)} are there): "
                f"delete {self._folder} and run `dvc repro`"
            )
        return data

    def close(self) -> None:
        """Close the shards; a later read opens them again."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def __del__(self) -> None:
        if "_descriptors" in self.__dict__:
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptors": {}}

    def _open(self, shard: str) -> int:
        if shard not in self._descriptors:
            path = self._folder / shard
            try:
                self._descriptors[shard] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise ArtifactError(f"{path} is missing: delete {self._folder} and run `dvc repro`") from error
        return self._descriptors[shard]


class ImageTable:
    """Where the images of a pool lie, in memory, in the order of their names in `images.json`."""

    def __init__(self, folder: Path) -> None:
        index: dict[str, list[int]] = read_json(folder / INDEX_NAME)
        self._places = {name: (shard, offset, size) for name, (shard, offset, size) in index.items()}

    def find(self, name: str) -> tuple[int, int, int] | None:
        """Shard, offset and size; None where there is no such image."""
        return self._places.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class ImageStore:
    """The images of a pool by name; by default those of a folder, with their places in memory."""

    def __init__(self, folder: Path, *, places: PlaceTable | None = None, shards: ShardReader | None = None) -> None:
        self._folder = folder
        self._places: PlaceTable = ImageTable(folder) if places is None else places
        self._shards: ShardReader = FolderShards(folder) if shards is None else shards

    def read(self, name: str) -> bytes:
        """The encoded bytes of one image.

        Raises:
            RecordError: `missing-image`, no shard has an image of this name.
            ArtifactError: its shard is missing, shorter than the index says, or cannot be reached.
        """
        place = self._places.find(name)
        if place is None:
            raise RecordError(
                "missing-image", f"image {name!r} is not among the {len(self)} images of {self._folder / INDEX_NAME}"
            )
        shard, offset, size = place
        return self._shards.read(shard_name(shard), offset, size)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._places.find(name) is not None

    def __iter__(self) -> Iterator[str]:
        if not isinstance(self._places, ImageTable):
            raise TypeError(f"the names of {self._folder} are not kept, only their hashes: open it without an index")
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Close the shards; a later read opens them again."""
        self._shards.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _padded(size: int) -> int:
    """The bytes that a member's data takes in a tar file."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
