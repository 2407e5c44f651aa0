"""Makes one backbone: what its name means decides how."""

from pathlib import Path

from cambrian.artifacts import write_folder
from cambrian.backbones.config import (
    BackboneConfig,
    NoBackbone,
    PretrainedEncoder,
    PretrainedLanguageModel,
    PublishedEncoder,
    PublishedLanguageModel,
    TrainedEncoder,
    TrainedLanguageModel,
)
from cambrian.runtime import RuntimeConfig


def prepare_backbone(
    name: str, config: BackboneConfig, *, corpora: Path, seed: int, runtime: RuntimeConfig, output: Path
) -> None:
    """Train or fetch a backbone and write its folder; an empty slot is a folder with only its manifest.

    Two names never share random numbers, so that a second LLM of the same shape is another LLM.

    Raises:
        ArtifactError: the corpora or the checkpoint cannot be read, or the folder cannot be written.
        ValueError: the parts of the config do not fit each other or the corpora.
    """
    meaning = config.root
    with write_folder(output, name=name, kind=meaning.kind) as folder:
        match meaning:
            case NoBackbone():
                return
            case TrainedLanguageModel():
                from cambrian.backbones.language_model import train_language_model

                _set_threads(runtime)
                train_language_model(meaning, corpora=corpora, seed=seed, name=name, runtime=runtime, folder=folder)
            case TrainedEncoder():
                from cambrian.backbones.vision_encoder import train_encoder

                _set_threads(runtime)
                train_encoder(meaning, corpora=corpora, seed=seed, name=name, runtime=runtime, folder=folder)
            case PretrainedEncoder():
                from cambrian.backbones.pretrained import convert_encoder

                convert_encoder(meaning, folder=folder)
            case PublishedEncoder():
                from cambrian.backbones.published_encoders import convert_published_encoder

                convert_published_encoder(meaning, seed=seed, name=name, folder=folder)
            case PublishedLanguageModel():
                from cambrian.backbones.pretrained import convert_published_language_model

                convert_published_language_model(meaning, folder=folder)
            case PretrainedLanguageModel():
                from cambrian.backbones.pretrained import convert_language_model

                convert_language_model(meaning, folder=folder)


def _set_threads(runtime: RuntimeConfig) -> None:
    import torch

    torch.set_num_threads(runtime.threads)
