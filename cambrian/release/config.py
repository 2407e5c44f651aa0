"""The release's `config.json`: what it says about the connector, the aggregators and the LLM."""

from __future__ import annotations

from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import Field

from cambrian.artifacts import read_json, write_json
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.models.config import AggregatorsConfig, SVAConfig
from cambrian.models.connector import FeatureShape
from cambrian.params import look_up, parse_block, read_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG_NAME = "config.json"

_RELEASED_PATH = Path(__file__).with_name("released.yaml")

NUM_HEADS = 16
"""Of every aggregator; the release has it in its code, not in its configs."""

TOWER_CHANNELS = {
    "siglip/CLIP-ViT-SO400M-14-384": 1152,
    "openai/clip-vit-large-patch14-336": 1024,
    "facebook/dinov2-giant-res378": 1536,
    "clip-convnext-XXL-multi-stage": 384 + 768 + 1536 + 3072,
}
"""Channels that an encoder of the released models delivers, by the release's name for it."""

_Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
_Counts = Annotated[tuple[int, ...], Field(strict=False, min_length=1)]


class ReleaseConfig(pydantic.BaseModel):
    """A released model's `config.json`; fields that we do not use are kept and written back.

    Source: release, `cambrian_llama.py`, `cambrian_phi3.py` and the `config.json` of cambrian-8b.
    """

    model_config = pydantic.ConfigDict(extra="allow", strict=True, frozen=True)

    model_type: Literal["cambrian_llama", "cambrian_phi3"]
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    mm_vision_tower_aux_list: _Names | None = None
    vision_tower_aux_list: _Names | None = None
    """The older name of the field above, read where that one is absent."""
    mm_vision_tower_aux_token_len_list: _Counts | None = None
    vision_tower_aux_token_len_list: _Counts | None = None
    mm_projector_type: Literal["sva"]
    image_token_len: int = Field(gt=0)
    vision_hidden_size: int = Field(gt=0)
    num_query_group: int = Field(gt=0)
    query_num_list: _Counts
    connector_depth: int = Field(gt=0)
    connector_only: bool
    num_of_vision_sampler_layers: int = Field(ge=0)
    start_of_vision_sampler_layers: int = Field(ge=0)
    stride_of_vision_sampler_layers: int = Field(gt=0)

    @property
    def towers(self) -> tuple[str, ...]:
        """The release's names of the encoders, in order."""
        return self.mm_vision_tower_aux_list or self.vision_tower_aux_list or ()

    @property
    def tower_tokens(self) -> tuple[int, ...]:
        """Tokens that each encoder delivers."""
        return self.mm_vision_tower_aux_token_len_list or self.vision_tower_aux_token_len_list or ()

    def tower_sides(self) -> list[int]:
        """Tokens per side of the grid that each encoder delivers."""
        return [isqrt(tokens) for tokens in self.tower_tokens]

    def shapes(self) -> list[FeatureShape]:
        """The shapes of the delivered feature maps.

        Raises:
            ParamsError: an encoder whose channels are not known; the message names the nearest.
        """
        return self.shapes_of([look_up(TOWER_CHANNELS, name, where="mm_vision_tower_aux_list") for name in self.towers])

    def shapes_of(self, channels: Sequence[int]) -> list[FeatureShape]:
        """The shapes of the delivered feature maps, for encoders that deliver these channels.

        Raises:
            ParamsError: not one number of channels per encoder.
        """
        if len(channels) != len(self.tower_tokens):
            raise ParamsError(
                f"channels of {len(channels)} encoders, mm_vision_tower_aux_token_len_list has "
                f"{len(self.tower_tokens)}: give one number for each"
            )
        return [FeatureShape(count, side) for count, side in zip(channels, self.tower_sides(), strict=True)]

    def connector(self) -> SVAConfig:
        """The connector and the aggregators in our terms."""
        side = isqrt(self.image_token_len)
        in_llm = AggregatorsConfig(
            start=self.start_of_vision_sampler_layers,
            stride=self.stride_of_vision_sampler_layers,
            count=max(self.num_of_vision_sampler_layers, 1),
        )
        return SVAConfig(
            kind="sva",
            side=side,
            newline=True,
            hide_padding=True,
            position_rms=None,
            output_rms=None,
            depth=self.connector_depth,
            group_sides=tuple(isqrt(count) for count in self.query_num_list),
            dim=self.vision_hidden_size,
            num_heads=NUM_HEADS,
            max_window_side=max(self.tower_sides()) // side,
            in_llm=None if self.connector_only or not self.num_of_vision_sampler_layers else in_llm,
        )

    def values(self) -> dict[str, Any]:
        """Every field that `config.json` has, as JSON holds it."""
        return self.model_dump(mode="json", exclude_unset=True)


def read_config(folder: Path) -> ReleaseConfig:
    """Read the `config.json` of a released model's folder.

    Raises:
        ArtifactError: it is missing, is no JSON, or describes a model that this project cannot build.
    """
    return parse_config(read_json(folder / CONFIG_NAME), where=str(folder / CONFIG_NAME))


def read_released(name: str) -> ReleaseConfig:
    """Read what `released.yaml` knows of a released model's `config.json`.

    Raises:
        ParamsError: there is no such model; the message names the nearest.
    """
    models = {key: values for key, values in read_yaml(_RELEASED_PATH).items() if not key.startswith("_")}
    return parse_config(look_up(models, name, where=str(_RELEASED_PATH)), where=name)


def write_config(folder: Path, config: ReleaseConfig) -> None:
    """Write `config.json` with every field that it was read with."""
    write_json(folder / CONFIG_NAME, config.values())


def parse_config(values: Any, *, where: str) -> ReleaseConfig:
    """Check the fields of a `config.json`, each by itself and against the others.

    Raises:
        ArtifactError: names the field, what was found, and what would do.
    """
    try:
        config = parse_block(ReleaseConfig, values, where=where)
    except ParamsError as error:
        raise ArtifactError(f"{error}. Only the release's SVA models can be read") from error
    for fault in _faults(config):
        raise ArtifactError(f"{where}: {fault}")
    return config


def _faults(config: ReleaseConfig) -> list[str]:
    """What does not fit together, the first thing first."""
    faults = []
    towers, tokens, groups = config.towers, config.tower_tokens, config.query_num_list
    side = isqrt(config.image_token_len)
    if not towers or len(towers) != len(tokens):
        faults.append(
            f"mm_vision_tower_aux_list names {len(towers)} encoders, mm_vision_tower_aux_token_len_list has "
            f"{len(tokens)} entries: both need one entry per encoder"
        )
    for name, count in [
        ("image_token_len", config.image_token_len),
        *(("query_num_list", count) for count in groups),
        *(("mm_vision_tower_aux_token_len_list", count) for count in tokens),
    ]:
        if isqrt(count) ** 2 != count:
            faults.append(f"{name}: {count} is no square number, and tokens stand on square grids")
        elif name.startswith("mm") and isqrt(count) % side:
            faults.append(f"{name}: a grid of side {isqrt(count)} does not divide into {side} cells (image_token_len)")
    if len(groups) != config.num_query_group:
        faults.append(f"num_query_group is {config.num_query_group}, query_num_list has {len(groups)} entries")
    if config.vision_hidden_size % NUM_HEADS:
        faults.append(f"vision_hidden_size {config.vision_hidden_size} does not divide into {NUM_HEADS} heads")
    last = config.start_of_vision_sampler_layers + (
        (config.num_of_vision_sampler_layers - 1) * config.stride_of_vision_sampler_layers
    )
    if not config.connector_only and last >= config.num_hidden_layers:
        faults.append(
            f"the last of {config.num_of_vision_sampler_layers} aggregators would act after layer {last}, the LLM has "
            f"layers 0 to {config.num_hidden_layers - 1} (start_of_, stride_of_, num_of_vision_sampler_layers)"
        )
    return faults
