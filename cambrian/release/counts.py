"""How many parameters a released model has, by part, counted at full size without memory for one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.models.tensor_files import unique_tensors
from cambrian.release.building import build_on_meta
from cambrian.release.checkpoints import official_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.models.connector import FeatureShape
    from cambrian.release.config import ReleaseConfig

_PARTS = {
    "model.mm_projector_aux_": "projections",
    "model.mm_projector.": "output",
    "model.vision_sampler_layers.": "in_llm",
    "model.vision_sampler_": "connector_aggregators",
    "model.vision_query": "query_and_newline",
    "model.image_newline": "query_and_newline",
    "": "llm",
}
"""The part of a tensor, by the beginning of its official name; the first that fits."""


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters by part; the encoders, which are in no checkpoint, are not counted."""

    projections: int
    """One MLP and norm per encoder (`mm_projector_aux_*`)."""
    connector_aggregators: int
    output: int
    """The MLP to the LLM's width (`mm_projector`)."""
    query_and_newline: int
    in_llm: int
    """All aggregators inside the LLM together."""
    llm: int
    num_vision_tensors: int
    num_tensors: int
    """Tensors of the whole checkpoint, the LLM's head among them."""

    @property
    def total(self) -> int:
        """All parameters of the checkpoint."""
        vision = self.projections + self.connector_aggregators + self.output + self.query_and_newline + self.in_llm
        return vision + self.llm


def count_parameters(config: ReleaseConfig, shapes: Sequence[FeatureShape]) -> ParameterCounts:
    """Count the parameters of the model that `config.json` describes.

    Raises:
        ArtifactError: its fields make no model.
    """
    counts = dict.fromkeys(_PARTS.values(), 0)
    num_tensors = num_vision_tensors = 0
    for name, tensor in unique_tensors(build_on_meta(config, shapes)).items():
        official = official_name(name)
        part = next(part for beginning, part in _PARTS.items() if official.startswith(beginning))
        counts[part] += tensor.numel()
        num_tensors += 1
        num_vision_tensors += part != "llm"
    return ParameterCounts(**counts, num_vision_tensors=num_vision_tensors, num_tensors=num_tensors)
