"""Models built from backbones, written and read as folders: `model.json` and `model.safetensors`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cambrian.artifacts import read_json, read_manifest, write_json
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.assembling import assemble_model
from cambrian.models.config import ModelConfig
from cambrian.models.encoders import read_encoder
from cambrian.models.language_model import outline_language_model, read_language_model
from cambrian.models.multimodal import PARTS, MultimodalModel
from cambrian.models.tensor_files import TensorFile, load_tensors, read_tensors, unique_tensors, write_tensors
from cambrian.params import Params, parse_block
from cambrian.runtime import generator_seed

MODEL_NAME = "model.json"
WEIGHTS_NAME = "model.safetensors"

_MODULES_OF_PART = {"connector": {"connector", "layout", "aggregators"}, "llm": {"llm"}, "encoders": {"encoders"}}


class StoredModel(Params):
    """What `model.json` holds."""

    config: ModelConfig
    parts: list[str]
    """Parts whose tensors are in the folder; the others are those of the backbones."""
    backbones: dict[str, str]
    """SHA-256 of the weights of every backbone that the model was built from."""


def build_model(config: ModelConfig, *, backbones: Path, seed: int) -> MultimodalModel:
    """Build a model from finished backbone folders, with a fresh connector drawn from the seed.

    Torch's own generator is left as it was found.

    Raises:
        ArtifactError: a backbone is missing, unfinished or not what its files say.
        ParamsError: the connector does not fit these encoders or this LLM.
    """
    return _build(config, read_language_model, backbones, seed)


def outline_model(
    config: ModelConfig, *, backbones: Path, seed: int, initial: Path | None
) -> tuple[MultimodalModel, TensorFile]:
    """Build what `build_model` does, with the parts that `initial` stores, but the LLM without its weights.

    The LLM's parameters are on the meta device; the file beside the model has their values, by their names in the LLM.

    Raises:
        ArtifactError: as `build_model` and `load_weights`.
        ParamsError: as `build_model`.
    """
    model = _build(config, outline_language_model, backbones, seed)
    weights = TensorFile(backbones / config.llm / WEIGHTS_NAME)
    if initial is not None:
        targets, file = _targets_in(model, initial), TensorFile(initial / WEIGHTS_NAME)
        file.check(targets)
        with torch.no_grad():
            for name, target in targets.items():
                if target.is_meta:
                    weights = TensorFile(file.path, "llm.")
                else:
                    target.copy_(file.read(name))
    return model, weights


def _build(config: ModelConfig, read_llm: Callable[[Path], Any], backbones: Path, seed: int) -> MultimodalModel:
    hashes = {name: _weights_hash(backbones / name) for name in sorted({*config.encoders, config.llm})}
    with torch.random.fork_rng(devices=[]):
        encoders = [read_encoder(backbones / name) for name in config.encoders]
        llm = read_llm(backbones / config.llm)
        torch.manual_seed(generator_seed(seed, "connector"))
        return assemble_model(config, encoders, llm, backbone_hashes=hashes)


def write_model(folder: Path, model: MultimodalModel, config: ModelConfig, parts: set[str]) -> None:
    """Write the tensors of these parts into a folder that `cambrian.artifacts.write_folder` finishes.

    Raises:
        ValueError: a name that is no part.
    """
    if unknown := parts - set(PARTS):
        raise ValueError(f"unknown part {sorted(unknown)}: a model has {', '.join(PARTS)}")
    stored = StoredModel(config=config, parts=sorted(parts), backbones=model.backbone_hashes)
    write_json(folder / MODEL_NAME, stored.model_dump(mode="json"))
    write_tensors(folder / WEIGHTS_NAME, _tensors_of(model, parts))


def read_model(folder: Path, *, backbones: Path) -> MultimodalModel:
    """Read a finished model folder; what it does not store comes from the backbones it was made with.

    Raises:
        ArtifactError: the folder or a backbone is missing or unfinished, a backbone is no longer the one that the
            model was made with, or a tensor is missing, left over or of another shape.
    """
    stored = read_stored(folder)
    model = build_model(stored.config, backbones=backbones, seed=0)  # every drawn value is overwritten below
    load_weights(model, folder)
    return model


def load_weights(model: MultimodalModel, folder: Path) -> None:
    """Copy the parts that a finished model folder stores into a model (an adapter into a run's model, say).

    Raises:
        ArtifactError: as `read_model`; also if the folder belongs to other backbones than the model's.
    """
    path = folder / WEIGHTS_NAME
    load_tensors(_targets_in(model, folder), read_tensors(path), where=path)


def _targets_in(model: MultimodalModel, folder: Path) -> dict[str, Tensor]:
    """The model's tensors of which a finished model folder has the values."""
    stored = read_stored(folder)
    for name, found in sorted(model.backbone_hashes.items()):
        expected = stored.backbones.get(name)
        if expected != found:
            raise ArtifactError(
                f"{folder} was made with {'no' if expected is None else f'another ({expected[:12]})'} backbone {name}, "
                f"the one at hand is {found[:12]}: run `dvc repro` to make it again"
            )
    return _tensors_of(model, set(stored.parts))


def read_stored(folder: Path) -> StoredModel:
    """Read what a finished model folder says about itself.

    Raises:
        ArtifactError: the folder is missing or unfinished, or its `model.json` is not one.
    """
    read_manifest(folder)
    try:
        return parse_block(StoredModel, read_json(folder / MODEL_NAME), where=str(folder / MODEL_NAME))
    except ParamsError as error:
        raise ArtifactError(f"{error}. The folder was written by another version: make it again") from error


def _tensors_of(model: MultimodalModel, parts: set[str]) -> dict[str, Tensor]:
    modules = {module for part in parts for module in _MODULES_OF_PART[part]}
    return {name: tensor for name, tensor in unique_tensors(model).items() if name.split(".", 1)[0] in modules}


def _weights_hash(folder: Path) -> str:
    files = read_manifest(folder)["files"]
    if WEIGHTS_NAME not in files:
        raise ArtifactError(f"{folder} holds no {WEIGHTS_NAME} (found {', '.join(files)}): is it a backbone?")
    digest: str = files[WEIGHTS_NAME]["sha256"]
    return digest
