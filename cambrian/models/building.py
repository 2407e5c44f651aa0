"""Connectors and aggregators from their configs; the modules themselves know no config."""

from collections.abc import Sequence

from cambrian.models.aggregator import Aggregator
from cambrian.models.c_abstractor import CAbstractorConnector
from cambrian.models.config import (
    CAbstractorConfig,
    ConnectorConfig,
    LDPv2Config,
    MLPConfig,
    ProjectorConfig,
    ResamplerConfig,
    SVAConfig,
)
from cambrian.models.connector import Connector, FeatureShape
from cambrian.models.ldp import LDPv2Connector
from cambrian.models.mlp import MLPConnector
from cambrian.models.projector import ProjectorConnector
from cambrian.models.resampler import ResamplerConnector
from cambrian.models.sva import SVAConnector


def build_connector(config: ConnectorConfig, shapes: Sequence[FeatureShape], *, llm_dim: int) -> Connector:
    """Make a connector for these encoders with fresh weights from torch's current generator.

    Raises:
        ValueError: the config does not fit the encoders.
    """
    match config:
        case MLPConfig():
            return MLPConnector(
                shapes,
                side=config.side,
                delivery=config.delivery,
                hidden_dim=round(config.hidden_ratio * llm_dim),
                llm_dim=llm_dim,
            )
        case ProjectorConfig():
            return ProjectorConnector(shapes, side=config.side, num_layers=config.num_layers, llm_dim=llm_dim)
        case CAbstractorConfig():
            return CAbstractorConnector(
                shapes,
                input_side=config.input_side,
                side=config.side,
                depth=config.depth,
                dim=config.dim,
                num_mlp_layers=config.num_mlp_layers,
                input_positions=config.input_positions,
                llm_dim=llm_dim,
            )
        case LDPv2Config():
            return LDPv2Connector(shapes, input_side=config.input_side, side=config.side, llm_dim=llm_dim)
        case ResamplerConfig():
            return ResamplerConnector(
                shapes,
                num_queries=config.num_queries,
                depth=config.depth,
                dim=config.dim,
                num_heads=config.num_heads,
                max_input_side=config.max_input_side,
                llm_dim=llm_dim,
            )
        case SVAConfig():
            return SVAConnector(
                shapes,
                side=config.side,
                depth=config.depth,
                group_sides=config.group_sides,
                dim=config.dim,
                num_heads=config.num_heads,
                max_window_side=config.max_window_side,
                llm_dim=llm_dim,
                has_aggregators=config.in_llm is not None,
                skip_hidden=config.hide_padding,
            )


def build_aggregators(config: ConnectorConfig, connector: Connector, *, llm_dim: int) -> list[Aggregator]:
    """Make the one-layer aggregators that act inside the LLM; none for connectors without them."""
    if not isinstance(config, SVAConfig) or config.in_llm is None or not isinstance(connector, SVAConnector):
        return []
    return [
        Aggregator(
            depth=1,
            query_dim=llm_dim,
            dim=config.dim,
            context_dim=config.dim,
            window_sides=connector.window_sides,
            num_heads=config.num_heads,
        )
        for _ in range(config.in_llm.count)
    ]
