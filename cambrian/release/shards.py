"""Checkpoint folders of one or many files, safetensors or .bin, read and written one file at a time."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cambrian.artifacts import read_json, write_json
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_STEMS = (("model", "safetensors"), ("pytorch_model", "bin"))
"""File stems and endings of a checkpoint, the preferred first; sharded ones have `STEM.ENDING.index.json`."""

_NUM_SHOWN = 5
"""Names that an error lists."""

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The safetensors format's names."""


@dataclass(frozen=True, slots=True)
class Shards:
    """The files of one checkpoint, in order, with the tensors that each holds."""

    paths: tuple[Path, ...]
    shapes: dict[str, tuple[int, ...]]
    """Of every tensor in every file."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield the tensors file by file; they are views of the mapped file where its format allows it."""
        for path in self.paths:
            yield read_shard(path)


def open_shards(folder: Path) -> Shards:
    """Find a checkpoint's files and the shapes of its tensors, without reading a tensor.

    Raises:
        ArtifactError: no checkpoint, a file of the index is missing or broken, a tensor that the index promises is
            not in its file, or one stands in two files.
    """
    paths, weight_map = _find_files(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        found = _read_shapes(path)
        if twice := sorted(found.keys() & shapes.keys()):
            raise ArtifactError(f"{path}: {twice[0]} already stands in another file: download the folder again")
        if absent := sorted(name for name, file in weight_map.items() if file == path.name and name not in found):
            raise ArtifactError(
                f"{path}: {', '.join(absent[:3])} should be here by the index and is not: download the file again"
            )
        shapes |= found
    return Shards(paths, shapes)


def read_shard(path: Path, *, entry: str | None = None) -> dict[str, Tensor]:
    """Read one file's tensors by name; code in a pickle is never run.

    `entry` names the part of a pickled file in which the tensors stand, where it holds more than them.

    Raises:
        ArtifactError: the file is missing, broken, or holds something else than tensors.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in sorted(file.keys())}
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"{path} is not a safetensors file ({error}): download it again") from error
    try:
        # A file of the old format cannot be mapped: it is read whole.
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ArtifactError(
            f"{path} cannot be read as tensors alone ({str(error).splitlines()[0]}). Pickled code is never run: "
            "download the file again, or take the model's safetensors"
        ) from error
    if entry is not None:
        if not isinstance(found, dict) or entry not in found:
            there = ", ".join(sorted(map(str, found))[:_NUM_SHOWN]) if isinstance(found, dict) else "no names"
            raise ArtifactError(f"{path} has no entry {entry!r}, it has {there}: is it another checkpoint?")
        found = found[entry]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        kinds = sorted({type(value).__name__ for value in found.values()} if isinstance(found, dict) else {"no dict"})
        raise ArtifactError(f"{path} holds {', '.join(kinds)}, expected tensors by name: is it an optimizer's file?")
    return {name: found[name] for name in sorted(found)}


def write_shard(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file tensor by tensor, in the order of names: no second copy of a shard is made.

    Raises:
        ArtifactError: a tensor of a type that the format does not have.
    """
    header, _ = _lay_out(tensors)
    with path.open("wb") as file:
        file.write(header)
        for name in sorted(tensors):
            file.write(_bytes_of(tensors[name]))


def join_shards(path: Path, shards: Shards, names: Mapping[str, str], *, dtype: torch.dtype | None = None) -> None:
    """Write those tensors of many files that have a name in `names` as one safetensors file, under that name.

    One file is open at a time, and is opened twice. Floating-point tensors become `dtype`; None keeps their types.

    Raises:
        ArtifactError: a file is broken, or a tensor has a type that the format does not have.
    """
    # a tensor on the meta device has a type and a shape, and no memory
    kinds = {
        names[name]: _convert(tensor.to("meta"), dtype)
        for tensors in shards
        for name, tensor in tensors.items()
        if name in names
    }
    header, offsets = _lay_out(kinds)
    with path.open("wb") as file:
        file.write(header)
        for tensors in shards:
            for name in sorted(tensors.keys() & names.keys()):
                file.seek(len(header) + offsets[names[name]])
                file.write(_bytes_of(_convert(tensors[name], dtype)))


class ShardWriter:
    """Writes a checkpoint of a known number of files, and its index last."""

    def __init__(self, folder: Path, *, num_shards: int) -> None:
        self._folder = folder
        self._num_shards = num_shards
        self._num_written = 0
        self._weight_map: dict[str, str] = {}
        self._num_bytes = 0

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Write the next file."""
        self._num_written += 1
        name = "model.safetensors"
        if self._num_shards > 1:
            name = f"model-{self._num_written:05d}-of-{self._num_shards:05d}.safetensors"
        write_shard(self._folder / name, tensors)
        self._weight_map |= dict.fromkeys(tensors, name)
        self._num_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())

    def finish(self) -> None:
        """Write the index of several files."""
        assert self._num_written == self._num_shards
        if self._num_shards > 1:
            index = {"metadata": {"total_size": self._num_bytes}, "weight_map": self._weight_map}
            write_json(self._folder / "model.safetensors.index.json", index)


def _convert(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _lay_out(tensors: Mapping[str, Tensor]) -> tuple[bytes, dict[str, int]]:
    """Return the beginning of a safetensors file, and how far behind it each tensor begins."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.dtype not in _DTYPES:
            raise ArtifactError(f"{name} has type {tensor.dtype}, which safetensors cannot hold: convert it before")
        offsets[name], end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offsets[name], end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offsets


def _bytes_of(tensor: Tensor) -> memoryview:
    found: memoryview = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return found


def _find_files(folder: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    for stem, ending in _STEMS:
        index_path = folder / f"{stem}.{ending}.index.json"
        if index_path.is_file():
            weight_map = read_json(index_path).get("weight_map", {})
            names = sorted(set(weight_map.values()))
            if outside := [name for name in names if "/" in name or "\\" in name]:
                raise ArtifactError(f"{index_path} names a file outside its folder: {outside[0]}")
            if missing := [name for name in names if not (folder / name).is_file()]:
                raise ArtifactError(
                    f"{folder} lacks {', '.join(missing[:3])} ({len(missing)} of {len(names)} files of "
                    f"{index_path.name}): download the rest"
                )
            return tuple(folder / name for name in names), weight_map
        if (folder / f"{stem}.{ending}").is_file():
            return (folder / f"{stem}.{ending}",), {}
    expected = ", ".join(f"{stem}.{ending}[.index.json]" for stem, ending in _STEMS)
    raise ArtifactError(f"{folder} holds no checkpoint: it needs {expected}")


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in read_shard(path).items()}
    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is not a safetensors file ({error}): download it again") from error
