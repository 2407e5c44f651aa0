"""Vision encoders of the paper, from their publishers' own files into the one format of backbone folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from cambrian.backbones.config import FolderSource, HubSource, PublishedEncoder, PublishedSource, RandomSource
from cambrian.backbones.fetching import choose_file, fetch, fetch_address, list_files, pinned
from cambrian.backbones.prompt_states import PROMPT_FILES, encode_empty_prompt
from cambrian.interfaces import ArtifactError
from cambrian.models.encoder_libraries import build_network
from cambrian.models.encoders import write_encoder_tensors
from cambrian.models.tensor_files import shape_faults
from cambrian.release.encoders import EncoderRow, find_encoder_row, rename_tensors
from cambrian.release.shards import read_shard
from cambrian.runtime import generator_seed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

_ONE_FILE = ("*.safetensors", "*.pth.tar", "*.pth", "*.pt", "*.bin")
"""What a folder may hold in the place of an address."""

_DIFFUSION_PARTS = ("unet", "vae")
"""Folders of a diffusion model whose tensors the features depend on."""

_DIFFUSION_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


def convert_published_encoder(config: PublishedEncoder, *, seed: int, name: str, folder: Path) -> None:
    """Write the encoder of a row: fetched, its tensors renamed and checked one by one; or with fresh weights.

    Raises:
        ParamsError: there is no such row, or it cannot take images of that side.
        ArtifactError: the checkpoint cannot be fetched or read; or a tensor is missing, left over or of another shape.
    """
    row = find_encoder_row(config.row, side=config.side)
    if isinstance(config.source, RandomSource):
        tensors = draw_tensors(row, seed=generator_seed(seed, f"backbones.{name}.weights"))
    else:
        tensors = read_tensors_of(row, config.source, name=config.row)
    dtype: torch.dtype = getattr(torch, config.dtype)
    write_encoder_tensors(
        folder,
        {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()},
        library=row.library,
        architecture=row.architecture,
        model_args=row.network_args,
        spec=row.spec,
    )


def draw_tensors(row: EncoderRow, *, seed: int) -> dict[str, Tensor]:
    """Return the tensors of a network that nothing has trained; torch's own generator stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(build_network(row.library, row.architecture, row.network_args).state_dict())


def read_tensors_of(
    row: EncoderRow, source: PublishedSource | HubSource | FolderSource, *, name: str
) -> dict[str, Tensor]:
    """Return a row's tensors under the names of its network, every one of the checkpoint's accounted for.

    Raises:
        ArtifactError: the checkpoint cannot be fetched or read, or is not that of this row.
    """
    found = pinned(row.checkpoint, row.revision, row=name) if isinstance(source, PublishedSource) else source
    if isinstance(found, str):
        assert row.revision is not None
        where, tensors = found, read_shard(fetch_address(found, row.revision), entry=row.entry)
    elif row.library == "diffusers":
        where, tensors = _where(found), _read_diffusion(found)
    else:
        where = _where(found)
        file = choose_file(list_files(found), row.files or _ONE_FILE, where=where)
        tensors = read_shard(fetch(found, [file]) / file, entry=row.entry)
    renamed = rename_tensors(tensors, row, where=where)
    with torch.device("meta"):
        expected = build_network(row.library, row.architecture, row.network_args).state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    if faults := shape_faults(shapes, {key: tuple(tensor.shape) for key, tensor in renamed.items()}):
        raise ArtifactError(f"{where}: {faults}. It is not the checkpoint of {name}, or was not downloaded whole")
    return renamed


def _read_diffusion(source: HubSource | FolderSource) -> dict[str, Tensor]:
    """Read the U-Net, the VAE and the states of the empty prompt."""
    names = list_files(source)
    files = {
        part: choose_file(names, [f"{part}/{file}" for file in _DIFFUSION_FILES], where=_where(source))
        for part in _DIFFUSION_PARTS
    }
    folder = fetch(source, [*files.values(), *PROMPT_FILES])
    tensors: dict[str, Tensor] = {"prompt": encode_empty_prompt(folder)}
    for part, file in files.items():
        part_tensors: Mapping[str, Tensor] = read_shard(folder / file, entry=None)
        tensors |= {f"{part}.{key}": tensor for key, tensor in part_tensors.items()}
    return tensors


def _where(source: HubSource | FolderSource) -> str:
    return source.path if isinstance(source, FolderSource) else f"{source.repository} at {source.revision}"
