"""safetensors files: written with equal bytes for equal values, and read strictly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cambrian.interfaces import ArtifactError

_NUM_SHOWN = 4
"""Faults of one kind that an error names."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in the order of their names, from wherever they are.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    whole = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    try:
        save_file(whole, path, {"format": "pt"})
    except SafetensorError as error:  # a full disk is one too
        raise OSError(f"{path}: {error}") from error


def write_object(path: Path, value: object) -> None:
    """Write what `torch.save` does.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    try:
        torch.save(value, path)
    except RuntimeError as error:  # a full disk is one too
        raise OSError(f"{path}: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a whole file into memory.

    Raises:
        ArtifactError: the file is missing or is not safetensors.
    """
    try:
        return load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise _no_tensors(path, error) from error


def _no_tensors(path: Path, error: Exception) -> ArtifactError:
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} is missing: run the stage that makes it (`dvc repro` does)")
    return ArtifactError(f"{path} is not a safetensors file ({error}): delete it and run `dvc repro`")


@dataclass(frozen=True, slots=True)
class TensorFile:
    """A safetensors file of which tensors are read one by one, by their names behind a prefix."""

    path: Path
    prefix: str = ""

    def read(self, name: str) -> Tensor:
        """Read one tensor into memory."""
        with safe_open(self.path, "pt") as file:
            tensor: Tensor = file.get_tensor(self.prefix + name)
            return tensor

    def check(self, targets: Mapping[str, Tensor]) -> None:
        """Compare names and shapes with a model's, without reading a tensor.

        Raises:
            ArtifactError: the file is missing or is not safetensors, or names or shapes differ.
        """
        try:
            with safe_open(self.path, "pt") as file:
                found = {
                    key.removeprefix(self.prefix): tuple(file.get_slice(key).get_shape())
                    for key in file.keys()  # noqa: SIM118  # not a mapping
                    if key.startswith(self.prefix)
                }
        except (FileNotFoundError, SafetensorError) as error:
            raise _no_tensors(self.path, error) from error
        if faults := shape_faults(_shapes_of(targets), found):
            raise ArtifactError(f"{self.path}: {faults}. It was written by another configuration: make it again")


def load_tensors(targets: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: Path) -> None:
    """Copy every found tensor into the target of its name; all names and shapes must agree.

    Raises:
        ArtifactError: names the tensors that are missing, left over or of another shape; no target was changed.
    """
    faults = shape_faults(_shapes_of(targets), _shapes_of(found))
    if faults:
        raise ArtifactError(f"{where}: {faults}. It was written by another configuration: make it again")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(found[name])


def shape_faults(expected: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str:
    """Say which tensors are missing, left over or of another shape than a model's; nothing where all agree."""
    missing = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    left_over = [f"{name} is not part of the model" for name in sorted(found.keys() - expected.keys())]
    misshapen = [
        f"{name} has shape {tuple(found[name])}, the model needs {tuple(shape)}"
        for name, shape in sorted(expected.items())
        if name in found and tuple(found[name]) != tuple(shape)
    ]
    return "; ".join(_shorten(kind) for kind in (missing, left_over, misshapen) if kind)


def _shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def unique_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name; of tied parameters only the first name."""
    names = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    tied = names - {name for name, _ in module.named_parameters()}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in tied}


def _shorten(faults: list[str]) -> str:
    hidden = len(faults) - _NUM_SHOWN
    return "; ".join(faults[:_NUM_SHOWN]) + (f"; and {hidden} more" if hidden > 0 else "")
