"""A released model, built from its `config.json`: our connector and aggregators around transformers' own LLM."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from cambrian.interfaces import ArtifactError
from cambrian.models.building import build_aggregators, build_connector
from cambrian.models.connector import TokenLayout
from cambrian.models.multimodal import MultimodalModel
from cambrian.models.torchvision_shim import declare_missing_operators

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from cambrian.models.connector import FeatureShape
    from cambrian.models.encoders import VisionEncoder
    from cambrian.release.config import ReleaseConfig

_LLM_CLASSES = {
    "cambrian_llama": ("transformers.models.llama.modeling_llama", "LlamaConfig", "LlamaForCausalLM"),
    "cambrian_phi3": ("transformers.models.phi3.modeling_phi3", "Phi3Config", "Phi3ForCausalLM"),
}
"""By the release's `model_type`: the module, and its classes of configuration and model."""

_NOT_THE_LLMS = ("architectures", "model_type", "torch_dtype", "transformers_version", "auto_map", "_name_or_path")
"""Fields of `config.json` that speak of the release's own classes and of its files."""


def build_release_model(
    config: ReleaseConfig, *, encoders: Sequence[VisionEncoder], shapes: Sequence[FeatureShape]
) -> MultimodalModel:
    """Build the model with an LLM whose parameters have no memory yet; `read_checkpoint` gives them theirs.

    `shapes` are those of the delivered feature maps; `encoders` may be empty where none will run.

    Raises:
        ArtifactError: the LLM's fields make no model that can be read.
    """
    connector_config = config.connector()
    connector = build_connector(connector_config, shapes, llm_dim=config.hidden_size)
    return MultimodalModel(
        encoders=encoders,
        connector=connector,
        layout=TokenLayout(connector_config, num_tokens=connector.num_tokens, dim=config.hidden_size),
        aggregators=build_aggregators(connector_config, connector, llm_dim=config.hidden_size),
        in_llm=connector_config.in_llm,
        llm=_build_language_model(config),
        backbone_hashes={},
    ).eval()


def build_on_meta(config: ReleaseConfig, shapes: Sequence[FeatureShape]) -> MultimodalModel:
    """Build the model at full size without memory for a single parameter, and without encoders."""
    with torch.device("meta"):
        return build_release_model(config, encoders=[], shapes=shapes)


def _build_language_model(config: ReleaseConfig) -> nn.Module:
    """Build the LLM on the meta device, with its rotary frequencies, which no checkpoint holds, on the current one."""
    module_name, config_name, model_name = _LLM_CLASSES[config.model_type]
    values = {name: value for name, value in config.values().items() if name not in _NOT_THE_LLMS}
    if values.get("tie_word_embeddings"):
        raise ArtifactError("config.json: tie_word_embeddings is true, the release's layout has a head of its own")
    declare_missing_operators()
    modeling = import_module(module_name)
    try:
        llm_config = getattr(modeling, config_name).from_dict(values)
        with torch.device("meta"):
            llm: Any = getattr(modeling, model_name)(llm_config)
    except (TypeError, ValueError, KeyError, ZeroDivisionError, AssertionError) as error:
        raise ArtifactError(f"config.json describes no LLM that transformers can build: {error}") from error
    llm.model.rotary_emb = type(llm.model.rotary_emb)(config=llm_config)
    module: nn.Module = llm
    return module
