"""What an encoder's training needs of a kind of supervision."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cambrian.backbones.optimization import OptimizationConfig, iter_shuffled


class Pictures:
    """The corpus's images at an encoder's resolution, held as bytes and normalised when a batch is taken."""

    def __init__(
        self,
        pixels: UInt8[Tensor, "images 3 side side"],
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        device: str,
    ) -> None:
        self._pixels = pixels.to(device)
        self._mean = torch.tensor(mean, device=device)[:, None, None] * 255
        self._scale = 1 / (torch.tensor(std, device=device)[:, None, None] * 255)
        self.side = pixels.shape[-1]

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, "batch 3 side side"]:
        """Return some of the images as an encoder takes them."""
        return (self._pixels[indices] - self._mean) * self._scale


class Objective(nn.Module, ABC):
    """A loss, and the heads that only the loss needs; the encoder is one of its submodules and all that is kept.

    Objectives draw their random numbers from `generator`, on the CPU, so that a device changes none of them.
    """

    def __init__(self, encoder: nn.Module, pictures: Pictures, generator: torch.Generator) -> None:
        super().__init__()
        self.encoder = encoder
        self.pictures = pictures
        self.generator = generator

    @abstractmethod
    def forward(self, indices: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the loss of a batch of the corpus's images, given by their indices."""

    @abstractmethod
    def heads(self) -> list[nn.Module]:
        """The layers at the loss's end, and embeddings: what Muon is not made for."""

    def after_step(self) -> None:
        """Called when the weights have moved; most objectives have nothing to do."""
        return

    def iter_batches(self, config: OptimizationConfig) -> Iterator[Int[Tensor, " batch"]]:
        """Yield the indices of batches without end."""
        return iter_shuffled(torch.arange(len(self.pictures)), config.batch_size, self.generator)


def feature_map(
    encoder: nn.Module, pixels: Float[Tensor, "images 3 side side"]
) -> Float[Tensor, "images dim height width"]:
    """Return the last feature map of a timm model, under the model's own final norm, without class tokens."""
    maps: list[Tensor] = encoder.forward_intermediates(  # type: ignore[operator]
        pixels, indices=[-1], norm=True, output_fmt="NCHW", intermediates_only=True
    )
    return maps[0]


def feature_shape(encoder: nn.Module, pictures: Pictures) -> tuple[int, int]:
    """Return the width and the side of an encoder's last feature map."""
    with torch.no_grad():
        example = feature_map(encoder, pictures.take(torch.zeros(1, dtype=torch.int64)))
    return example.shape[1], example.shape[2]
