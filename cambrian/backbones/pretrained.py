"""Published checkpoints, from a hub or a folder, brought into the one format of backbone folders."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cambrian.artifacts import read_json
from cambrian.backbones.config import HubSource, PretrainedEncoder, PretrainedLanguageModel, SourceConfig
from cambrian.interfaces import ArtifactError
from cambrian.models.encoders import write_encoder
from cambrian.models.tensor_files import unique_tensors, write_tensors
from cambrian.models.torchvision_shim import declare_missing_operators

_ENCODER_FILES = ("config.json", "model.safetensors")
_LANGUAGE_MODEL_FILES = ("*.json", "*.safetensors", "tokenizer.model")


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
    """Load a transformers checkpoint and its tokenizer and write both as one backbone folder.

    Raises:
        ArtifactError: the checkpoint cannot be fetched, lacks weights that its model needs, or has no tokenizer.
    """
    declare_missing_operators()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = fetch(config.source, _LANGUAGE_MODEL_FILES)
    try:
        model, loading = AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, config.dtype), local_files_only=True, output_loading_info=True
        )
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"transformers cannot load {source}: {error}") from error
    wrong = sorted(str(name) for kind in ("missing_keys", "mismatched_keys") for name in loading[kind])
    if wrong:
        raise ArtifactError(
            f"{source} lacks {len(wrong)} tensors of its model ({', '.join(wrong[:5])}): fetch it again"
        )
    model.config.save_pretrained(folder)
    write_tensors(folder / "model.safetensors", unique_tensors(model))
    tokenizer.save_pretrained(folder)


def fetch(source: SourceConfig, patterns: tuple[str, ...]) -> Path:
    """Return a local folder with a source's files; a hub's files are downloaded once into its cache.

    Raises:
        ArtifactError: the folder does not exist, or the hub cannot be reached or has no such revision.
    """
    if not isinstance(source, HubSource):
        path = Path(source.path)
        if not path.is_dir():
            raise ArtifactError(f"{path} is not a folder: put the checkpoint there or name another source")
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source.repository, revision=source.revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(
            f"{source.repository} at {source.revision} cannot be fetched ({error}): check the network, the name and "
            "whether its licence was accepted"
        ) from error
