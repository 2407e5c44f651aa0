"""Feature maps of several encoders on one grid, and a linear layer over them that never does the dearer half."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from cambrian.models.encoders import resize_map

_COST_OF_RESIZING = 4
"""Multiply-adds per value of a bilinearly resized map."""


def join_maps(maps: Sequence[Tensor], side: int) -> Float[Tensor, "images joined side side"]:
    """Return the maps, Float[images, channels_k, grid_k, grid_k], resized to one grid and joined along channels."""
    return torch.cat([resize_map(feature_map, side) for feature_map in maps], dim=1)


def is_projected_first(*, channels: int, grid: int, dim: int, side: int) -> bool:
    """Return whether a linear layer to `dim` costs less on a map's own grid than on the one it is resized to."""
    if grid == side:
        return False
    before = dim * (channels * grid**2 + (_COST_OF_RESIZING + 1) * side**2)  # one more to add it to the others
    after = channels * (dim + _COST_OF_RESIZING) * side**2
    return before < after


class JoinedLinear(nn.Linear):
    """A linear layer over the channels of joined maps, each projected before or after its resize.

    Both orders give the same numbers but for rounding: a resize mixes places and the layer mixes channels, and the
    weights of a bilinear resize sum to one, so the bias passes through it. Parameters and their names are
    `nn.Linear`'s, so a checkpoint does not know which of the two it was trained with.
    """

    def forward(self, maps: Sequence[Tensor], side: int) -> Float[Tensor, "images tokens dim"]:  # type: ignore[override]
        """Return the projection of `join_maps(maps, side)`, row by row.

        Raises:
            ValueError: the maps have another number of channels than the layer.
        """
        channels = [feature_map.shape[1] for feature_map in maps]
        if sum(channels) != self.in_features:
            raise ValueError(
                f"maps of {' + '.join(map(str, channels))} channels, the layer takes {self.in_features}: build it for "
                "these encoders, in this order"
            )
        first: list[tuple[Tensor, Tensor]] = []
        last: list[tuple[Tensor, Tensor]] = []
        for feature_map, weight in zip(maps, self.weight.split_with_sizes(channels, dim=1), strict=True):
            grid = feature_map.shape[-1]
            is_first = is_projected_first(channels=weight.shape[1], grid=grid, dim=self.out_features, side=side)
            (first if is_first else last).append((feature_map, weight))
        parts = [resize_map(_project(feature_map, weight), side) for feature_map, weight in first]
        if last:
            joined = join_maps([feature_map for feature_map, _ in last], side)
            parts.append(_project(joined, torch.cat([weight for _, weight in last], dim=1)))
        projected = parts[0]
        for part in parts[1:]:
            projected = projected + part
        tokens = projected.flatten(2).transpose(1, 2)
        return tokens if self.bias is None else tokens + self.bias


def _project(
    feature_map: Float[Tensor, "images channels height width"], weight: Float[Tensor, "dim channels"]
) -> Float[Tensor, "images dim height width"]:
    projected: Tensor = rearrange(weight @ feature_map.flatten(2), "b d (h w) -> b d h w", h=feature_map.shape[2])
    return projected
