"""Any run's model from what its names mean, at full size, without memory for a parameter and without a download."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from cambrian.backbones.config import (
    BackboneConfig,
    PublishedEncoder,
    PublishedLanguageModel,
    TrainedEncoder,
    TrainedLanguageModel,
)
from cambrian.backbones.language_model import build_language_model
from cambrian.backbones.tokenizer import token_ids
from cambrian.interfaces import ParamsError
from cambrian.models.assembling import assemble_model
from cambrian.models.config import ModelConfig
from cambrian.models.encoder_libraries import build_network
from cambrian.models.encoders import VisionEncoder
from cambrian.models.language_model import build_language_model as build_published_language_model
from cambrian.models.multimodal import MultimodalModel
from cambrian.params import look_up
from cambrian.release.encoders import find_encoder_row
from cambrian.release.language_models import find_language_model


def build_model_on_meta(
    config: ModelConfig, backbones: Mapping[str, BackboneConfig], *, vocabulary: Sequence[str]
) -> MultimodalModel:
    """Build the model of a run on the meta device; its forward does not run there.

    `backbones` are the meanings of at least the names that the model has. Parameters have the shapes and the number of
    the real ones; `vocabulary` are the words of an LLM that is trained here.

    Raises:
        ParamsError: a name has no meaning or is of another kind than it is used for, the connector does not fit these
            encoders or this LLM, or a checkpoint is none of the published ones, whose sizes only a download would tell.
    """
    with torch.device("meta"):
        encoders = [build_encoder_on_meta(name, backbones) for name in config.encoders]
        llm = build_language_model_on_meta(config.llm, backbones, vocabulary=vocabulary)
        return assemble_model(config, encoders, llm, backbone_hashes={})


def build_encoder_on_meta(name: str, backbones: Mapping[str, BackboneConfig]) -> VisionEncoder:
    """Build an encoder on the meta device.

    Raises:
        ParamsError: as `build_model_on_meta`.
    """
    meaning = look_up(backbones, name, where="backbones").root
    try:
        with torch.device("meta"):
            match meaning:
                case TrainedEncoder():
                    network = build_network("timm", meaning.architecture, meaning.model_args)
                    return VisionEncoder(network, meaning.spec)
                case PublishedEncoder():
                    row = find_encoder_row(meaning.row, side=meaning.side)
                    return VisionEncoder(build_network(row.library, row.architecture, row.network_args), row.spec)
                case _:
                    raise _is_other(name, meaning.kind, "encoder")
    except ValueError as error:
        raise ParamsError(f"backbones.{name}: {error}") from error


def build_language_model_on_meta(
    name: str, backbones: Mapping[str, BackboneConfig], *, vocabulary: Sequence[str]
) -> Any:
    """Build an LLM, a `...ForCausalLM` of transformers, on the meta device.

    Raises:
        ParamsError: as `build_model_on_meta`.
    """
    meaning = look_up(backbones, name, where="backbones").root
    try:
        with torch.device("meta"):
            match meaning:
                case TrainedLanguageModel():
                    return build_language_model(meaning.shape, token_ids(vocabulary), seed=0)
                case PublishedLanguageModel():
                    return build_published_language_model(find_language_model(meaning.row).config)
                case _:
                    raise _is_other(name, meaning.kind, "language model")
    except ValueError as error:
        raise ParamsError(f"backbones.{name}: {error}") from error


def _is_other(name: str, kind: str, wanted: str) -> ParamsError:
    return ParamsError(
        f"{kind}: expected a {wanted} that is trained here or published; sizes of other checkpoints are known only "
        "after they were fetched"
    )
