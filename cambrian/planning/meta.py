"""Models at their full size without memory for a single parameter: torch's meta device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from cambrian.backbones.rehearsal import build_encoder_on_meta, build_language_model_on_meta
from cambrian.data.world.corpora import GeneratedCorpora, vocabulary
from cambrian.models.assembling import assemble_model

if TYPE_CHECKING:
    from cambrian.backbones.config import BackboneConfig
    from cambrian.models.config import ModelConfig
    from cambrian.models.encoders import VisionEncoder
    from cambrian.models.multimodal import MultimodalModel
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
        llm = self._language_model(config.llm)
        with torch.device("meta"):
            return assemble_model(config, encoders, llm, backbone_hashes={})

    def encoder(self, name: str) -> VisionEncoder:
        """One of the encoders, which models share."""
        if name not in self._encoders:
            self._encoders[name] = build_encoder(self._backbones[name], name=name)
        return self._encoders[name]

    def _language_model(self, name: str) -> Any:
        """An LLM of its own for every model: aggregators hang on its layers."""
        corpora = self._pools["corpora"].root if "corpora" in self._pools else None
        words = vocabulary(corpora) if isinstance(corpora, GeneratedCorpora) else ()
        return build_language_model_on_meta(name, self._backbones, vocabulary=words)


def build_encoder(config: BackboneConfig, *, name: str) -> VisionEncoder:
    """Build an encoder on the meta device.

    Raises:
        ParamsError: it cannot be made from what its row says.
    """
    return build_encoder_on_meta(name, {name: config})
