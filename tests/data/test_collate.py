from __future__ import annotations

import numpy as np

from cambrian.data.collate import collate
from cambrian.data.conversation import Encoded
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID

SHORT = Encoded([2, 7, 3, 8, 4], [IGNORE_LABEL] * 3 + [8, 4])
LONG = Encoded([2, IMAGE_TOKEN_ID, 7, 7, 3, 9, 4], [IGNORE_LABEL] * 5 + [9, 4])
PAD = 0


def test_rows_are_padded_on_the_right_and_padding_is_masked_and_never_learned() -> None:
    views = [np.zeros((3, 4, 4), np.float32)]
    batch = collate([SHORT, LONG], [None, views], [None, (6, 5)], PAD, ["a", "b"])
    assert batch.input_ids.tolist() == [[2, 7, 3, 8, 4, PAD, PAD], LONG.input_ids]
    assert batch.labels.tolist() == [[*SHORT.labels, IGNORE_LABEL, IGNORE_LABEL], LONG.labels]
    assert batch.attention_mask.tolist() == [[True] * 5 + [False] * 2, [True] * 7]
    assert batch.record_ids == ["a", "b"]


def test_images_of_each_encoder_are_stacked_in_the_order_of_their_rows() -> None:
    def views(value: float) -> list[np.ndarray]:
        return [np.full((3, 4, 4), value, np.float32), np.full((3, 8, 8), -value, np.float32)]

    batch = collate([LONG, SHORT, LONG], [views(1), None, views(2)], [(6, 5), None, (3, 9)], PAD)
    assert batch.images is not None
    assert [tuple(pixels.shape) for pixels in batch.images.pixels] == [(2, 3, 4, 4), (2, 3, 8, 8)]
    assert [pixels[:, 0, 0, 0].tolist() for pixels in batch.images.pixels] == [[1.0, 2.0], [-1.0, -2.0]]
    assert batch.images.sizes.tolist() == [[6, 5], [3, 9]]


def test_a_batch_without_images_has_none() -> None:
    assert collate([SHORT, SHORT], [None, None], [None, None], PAD).images is None
