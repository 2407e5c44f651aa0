import numpy as np
import pytest
import torch
from torch import Tensor

from cambrian.training.features import FeatureCache


class Encoders:
    """Two frozen encoders, 2 x 2 and 1 x 1: the pixels' mean and their sum; counts what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, pixels: list[Tensor]) -> list[Tensor]:
        self.asked.append(len(pixels[0]))
        mean = pixels[0].mean(dim=(1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 5, 2, 2)
        return [mean, pixels[1].sum(dim=(1, 2, 3)).view(-1, 1, 1, 1)]


def views(name: str) -> list[np.ndarray]:
    return [np.full((3, 4, 4), float(name), np.float32), np.full((3, 2, 2), float(name), np.float32)]


def test_every_image_is_encoded_once_and_the_maps_stand_in_the_order_asked_for() -> None:
    encoders = Encoders()
    cache = FeatureCache(encoders, max_mib=1)
    first = cache.read(["1", "2"], views)
    second = cache.read(["2", "3", "2"], views)
    assert encoders.asked == [2, 1]
    assert [tuple(part.shape) for part in second] == [(3, 5, 2, 2), (3, 1, 1, 1)]
    torch.testing.assert_close(first[0][:, 0, 0, 0], torch.tensor([1.0, 2.0]))
    torch.testing.assert_close(second[1].flatten(), torch.tensor([24.0, 36.0, 24.0]))


def test_known_images_are_not_even_read() -> None:
    cache = FeatureCache(Encoders(), max_mib=1)
    cache.read(["1"], views)
    cache.read(["1"], lambda name: pytest.fail(f"{name} was read again"))


def test_beyond_the_limit_images_are_encoded_again_to_the_same_maps() -> None:
    encoders = Encoders()
    cache = FeatureCache(encoders, max_mib=0)
    one, two = (cache.read(["1", "2"], views) for _ in range(2))
    assert encoders.asked == [2, 2]
    torch.testing.assert_close(one, two, rtol=0, atol=0)
