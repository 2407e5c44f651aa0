"""A whole model from its parts."""

from collections.abc import Sequence
from typing import Any

from cambrian.interfaces import ParamsError
from cambrian.models.building import build_aggregators, build_connector
from cambrian.models.config import ModelConfig, SVAConfig
from cambrian.models.connector import FeatureShape, TokenLayout
from cambrian.models.encoders import VisionEncoder
from cambrian.models.multimodal import MultimodalModel


def assemble_model(
    config: ModelConfig, encoders: Sequence[VisionEncoder], llm: Any, *, backbone_hashes: dict[str, str]
) -> MultimodalModel:
    """Put a fresh connector, drawn from torch's current generator on its current device, between encoders and LLM.

    Raises:
        ParamsError: the connector does not fit these encoders or this LLM.
    """
    shapes = [FeatureShape(encoder.channels, encoder.grid, encoder.num_maps) for encoder in encoders]
    llm_dim = llm.config.hidden_size
    try:
        connector = build_connector(config.connector, shapes, llm_dim=llm_dim)
        return MultimodalModel(
            encoders=encoders,
            connector=connector,
            layout=TokenLayout(config.connector, num_tokens=connector.num_tokens, dim=llm_dim),
            aggregators=build_aggregators(config.connector, connector, llm_dim=llm_dim),
            in_llm=config.connector.in_llm if isinstance(config.connector, SVAConfig) else None,
            llm=llm,
            backbone_hashes=backbone_hashes,
        )
    except ValueError as error:
        raise ParamsError(f"a connector for {', '.join(config.encoders)} and {config.llm}: {error}") from error
