"""Supervision by exact maps and labels: segmentation, depth, classes; and denoising, which has a map of its own."""

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.backbones.objectives.objective import Objective, Pictures, feature_map, feature_shape


class PixelHead(nn.Module):
    """One linear layer that gives each feature's square of the image: as many values as it has pixels."""

    def __init__(self, dim: int, channels: int, pixels_per_side: int) -> None:
        super().__init__()
        self.pixels_per_side = pixels_per_side
        self.linear = nn.Linear(dim, channels * pixels_per_side**2)

    def forward(self, features: Float[Tensor, "b dim h w"]) -> Float[Tensor, "b channels height width"]:
        """Return a map with `pixels_per_side` times the features' side."""
        values: Tensor = self.linear(rearrange(features, "b d h w -> b h w d"))
        side = self.pixels_per_side
        return rearrange(values, "b h w (c p q) -> b c (h p) (w q)", p=side, q=side)


class Segmentation(Objective):
    """Cross-entropy of every pixel's class."""

    classes: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        pictures: Pictures,
        generator: torch.Generator,
        *,
        target_stride: int,
        classes: Int[Tensor, "images height width"],
    ) -> None:
        super().__init__(encoder, pictures, generator)
        dim, grid = feature_shape(encoder, pictures)
        targets = take_every(classes, target_stride)
        self.register_buffer("classes", targets, persistent=False)
        self.head = PixelHead(dim, int(classes.max()) + 1, pixels_per_feature(targets.shape[-1], grid))

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        logits = self.head(feature_map(self.encoder, self.pictures.take(indices)))
        return F.cross_entropy(logits, self.classes[indices].long())

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.head]


class Depth(Objective):
    """Mean absolute error of every pixel's inverse depth, standardised over the corpus.

    Source: Ranftl et al. 2020 predict inverse depth; scale and shift are known here and need not be fitted per image.
    """

    inverse: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        pictures: Pictures,
        generator: torch.Generator,
        *,
        target_stride: int,
        depth: Float[Tensor, "images height width"],
    ) -> None:
        super().__init__(encoder, pictures, generator)
        dim, grid = feature_shape(encoder, pictures)
        inverse = 1 / take_every(depth, target_stride).float()
        inverse = (inverse - inverse.mean()) / inverse.std()
        self.register_buffer("inverse", inverse, persistent=False)
        self.head = PixelHead(dim, 1, pixels_per_feature(inverse.shape[-1], grid))

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        found = self.head(feature_map(self.encoder, self.pictures.take(indices)))
        return F.l1_loss(found.squeeze(1), self.inverse[indices])

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.head]


class ClassLabels(Objective):
    """Binary cross-entropy of which classes an image shows, from the mean of its features."""

    labels: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        pictures: Pictures,
        generator: torch.Generator,
        *,
        labels: Int[Tensor, "images classes"],
    ) -> None:
        super().__init__(encoder, pictures, generator)
        dim, _ = feature_shape(encoder, pictures)
        self.register_buffer("labels", labels, persistent=False)
        self.head = nn.Linear(dim, labels.shape[1])

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        features = feature_map(self.encoder, self.pictures.take(indices))
        logits = self.head(reduce(features, "b c h w -> b c", "mean"))
        return F.binary_cross_entropy_with_logits(logits, self.labels[indices].float())

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.head]


class Diffusion(Objective):
    """The clean image from a noisy one, at a noise level that the encoder is not told.

    An encoder's features are later taken at level 0, as the paper takes Stable Diffusion's at a low level.
    """

    def __init__(self, encoder: nn.Module, pictures: Pictures, generator: torch.Generator, *, max_noise: float) -> None:
        super().__init__(encoder, pictures, generator)
        dim, grid = feature_shape(encoder, pictures)
        self._max_noise = max_noise
        self.head = PixelHead(dim, 3, pixels_per_feature(pictures.side, grid))

    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:  # noqa: D102
        clean = self.pictures.take(indices)
        share = torch.rand(len(clean), 1, 1, 1, generator=self.generator).to(clean) * self._max_noise
        noise = torch.randn(clean.shape, generator=self.generator).to(clean)
        found = self.head(feature_map(self.encoder, (1 - share).sqrt() * clean + share.sqrt() * noise))
        return F.mse_loss(found, clean)

    def heads(self) -> list[nn.Module]:  # noqa: D102
        return [self.head]


def take_every(maps: Tensor, stride: int) -> Tensor:
    """Keep the middle one of every `stride` pixels along the last two axes."""
    return maps[..., stride // 2 :: stride, stride // 2 :: stride].contiguous()


def pixels_per_feature(side: int, grid: int) -> int:
    """How many of a map's pixels lie along the side of one feature.

    Raises:
        ValueError: the features do not divide the map.
    """
    if side % grid:
        raise ValueError(f"a grid of {grid} features does not divide {side} pixels: choose another target_stride")
    return side // grid
