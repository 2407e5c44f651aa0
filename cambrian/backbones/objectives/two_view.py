"""Self-supervision by two views: what belongs together shall be told from everything else in the batch."""

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.backbones.objectives.config import TwoViewConfig
from cambrian.backbones.objectives.objective import Objective, Pictures, feature_map, feature_shape


class TwoView(Objective):
    """Contrast of two crops, as wholes and at points that lie in both.

    It stands for DINOv2, which matches a slow copy's soft assignments instead, of crops and of hidden patches; the
    contrast needs no slow copy and does not collapse in a few hundred steps. Views are not mirrored: left and right
    differ in meaning here.
    """

    def __init__(
        self, encoder: nn.Module, pictures: Pictures, generator: torch.Generator, *, config: TwoViewConfig
    ) -> None:
        super().__init__(encoder, pictures, generator)
        dim, _ = feature_shape(encoder, pictures)
        self._config = config
        self.image_projector = _projector(dim, config.projection_dim)
        self.point_projector = _projector(dim, config.projection_dim)

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        pixels = self.pictures.take(indices)
        boxes = draw_boxes(2 * len(pixels), self._config.min_crop_side, self.generator).to(pixels)
        views = crop(torch.cat([pixels, pixels]), boxes)
        features = feature_map(self.encoder, self._change_colours(views))
        whole = self.image_projector(reduce(features, "b c h w -> b c", "mean"))
        first, second = boxes.chunk(2)
        points = draw_shared_points(first, second, self._config.num_points, self.generator)
        sampled = sample_points(features, boxes, torch.cat([points, points]))
        local = self.point_projector(rearrange(sampled, "b n c -> (b n) c"))
        return contrast(whole, self._config.temperature) + self._config.point_weight * contrast(
            local, self._config.temperature
        )

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.image_projector[-1], self.point_projector[-1]]

    def _change_colours(self, views: Float[Tensor, "views 3 side side"]) -> Float[Tensor, "views 3 side side"]:
        draws = torch.rand(2, len(views), 1, 1, 1, generator=self.generator).to(views) * 2 - 1
        contrast_change, brightness_change = self._config.max_colour_change * draws
        changed: Tensor = views * (1 + contrast_change) + brightness_change
        return changed


def contrast(views: Float[Tensor, "twice_n dim"], temperature: float) -> Float[Tensor, ""]:
    """Cross-entropy of finding each vector's partner in the other half of the views, both ways."""
    first, second = F.normalize(views, dim=-1).chunk(2)
    logits = first @ second.T / temperature
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def draw_boxes(number: int, min_side: float, generator: torch.Generator) -> Float[Tensor, "number 4"]:
    """Draw square crops as left, top, right and bottom, in shares of the image.

    A side is over one half, so that two crops always share a part.

    Raises:
        ValueError: crops this small can miss each other.
    """
    if min_side <= 0.5:
        raise ValueError(f"min_crop_side is {min_side}: two crops of at most half a side can share nothing")
    side = min_side + (1 - min_side) * torch.rand(number, 1, generator=generator)
    corner = (1 - side) * torch.rand(number, 2, generator=generator)
    return torch.cat([corner, corner + side], dim=1)


def draw_shared_points(
    first: Float[Tensor, "batch 4"], second: Float[Tensor, "batch 4"], number: int, generator: torch.Generator
) -> Float[Tensor, "batch number 2"]:
    """Draw points (across, down) that lie in both crops, in shares of the image."""
    low = torch.maximum(first[:, :2], second[:, :2])[:, None]
    high = torch.minimum(first[:, 2:], second[:, 2:])[:, None]
    return low + (high - low) * torch.rand(len(first), number, 2, generator=generator).to(first)


def crop(pixels: Float[Tensor, "n 3 side side"], boxes: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 side side"]:
    """Cut each image's box out and bring it to the image's size."""
    low, high = boxes[:, :2] * 2 - 1, boxes[:, 2:] * 2 - 1
    zero = torch.zeros_like(low[:, 0])
    scale, shift = (high - low) / 2, (high + low) / 2
    rows = [torch.stack([scale[:, 0], zero, shift[:, 0]], 1), torch.stack([zero, scale[:, 1], shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, align_corners=False, padding_mode="border")


def sample_points(
    features: Float[Tensor, "batch dim height width"],
    boxes: Float[Tensor, "batch 4"],
    points: Float[Tensor, "batch number 2"],
) -> Float[Tensor, "batch number dim"]:
    """Interpolate the map of each crop at points that are given in shares of the whole image."""
    inside = (points - boxes[:, None, :2]) / (boxes[:, None, 2:] - boxes[:, None, :2])
    sampled = F.grid_sample(features, inside[:, None] * 2 - 1, align_corners=False, padding_mode="border")
    return rearrange(sampled, "b c 1 n -> b n c")


def _projector(dim: int, projection_dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, projection_dim))
