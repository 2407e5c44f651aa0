"""Models at their full size without memory for a single parameter: torch's meta device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cambrian.backbones.config import TrainedEncoder, TrainedLanguageModel
from cambrian.backbones.language_model import build_language_model
from cambrian.backbones.tokenizer import token_ids
from cambrian.data.world.corpora import GeneratedCorpora, vocabulary
from cambrian.interfaces import ParamsError
from cambrian.models.building import build_aggregators, build_connector
from cambrian.models.config import ModelConfig, SVAConfig
from cambrian.models.connector import FeatureShape, TokenLayout
from cambrian.models.encoders import VisionEncoder
from cambrian.models.multimodal import MultimodalModel
from cambrian.models.torchvision_shim import declare_missing_operators

if TYPE_CHECKING:
    from torch import nn

    from cambrian.backbones.config import BackboneConfig
    from cambrian.planning.experiment import Experiment


class MetaModels:
    """Builds the models of an experiment; what several of them share is built once."""

    def __init__(self, experiment: Experiment) -> None:
        self._backbones = experiment.backbones
        self._pools = experiment.pools
        self._encoders: dict[str, VisionEncoder] = {}

    def build(self, config: ModelConfig) -> MultimodalModel:
        """Build a model on the meta device.

        Raises:
            ParamsError: its connector does not fit its encoders or its LLM, or a backbone cannot be built.
        """
        encoders = [self.encoder(name) for name in config.encoders]
        shapes = [FeatureShape(encoder.channels, encoder.grid) for encoder in encoders]
        llm = self._language_model(config.llm)
        llm_dim = llm.config.hidden_size
        try:
            with torch.device("meta"):
                connector = build_connector(config.connector, shapes, llm_dim=llm_dim)
                return MultimodalModel(
                    encoders=encoders,
                    connector=connector,
                    layout=TokenLayout(config.connector, num_tokens=connector.num_tokens, dim=llm_dim),
                    aggregators=build_aggregators(config.connector, connector, llm_dim=llm_dim),
                    in_llm=config.connector.in_llm if isinstance(config.connector, SVAConfig) else None,
                    llm=llm,
                    backbone_hashes={},
                )
        except ValueError as error:
            raise ParamsError(f"a connector for {', '.join(config.encoders)} and {config.llm}: {error}") from error

    def encoder(self, name: str) -> VisionEncoder:
        """One of the encoders, which models share."""
        if name not in self._encoders:
            self._encoders[name] = build_encoder(self._backbones[name], name=name)
        return self._encoders[name]

    def _language_model(self, name: str) -> Any:
        """An LLM of its own for every model: aggregators hang on its layers."""
        meaning = self._backbones[name].root
        if not isinstance(meaning, TrainedLanguageModel):
            raise ParamsError(f"backbones.{name}: a {meaning.kind} cannot be built without its files")
        corpora = self._pools["corpora"].root
        assert isinstance(corpora, GeneratedCorpora)
        with torch.device("meta"):
            return build_language_model(meaning.shape, token_ids(vocabulary(corpora)), seed=0)


def build_encoder(config: BackboneConfig, *, name: str) -> VisionEncoder:
    """Build an encoder on the meta device.

    Raises:
        ParamsError: timm cannot make it from what its row says.
    """
    declare_missing_operators()
    import timm

    meaning = config.root
    if not isinstance(meaning, TrainedEncoder):
        raise ParamsError(f"backbones.{name}: a {meaning.kind} cannot be built without its files")
    try:
        with torch.device("meta"):
            module: nn.Module = timm.create_model(meaning.architecture, pretrained=False, **meaning.model_args)
            return VisionEncoder(module, meaning.spec)
    except (RuntimeError, TypeError, AssertionError) as error:
        raise ParamsError(
            f"backbones.{name}: timm cannot make {meaning.architecture!r} with {meaning.model_args}: {error}"
        ) from error
