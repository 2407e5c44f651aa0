"""Encoded conversations and preprocessed images to one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cambrian.interfaces import IGNORE_LABEL, Batch, ImageBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.conversation import Encoded


def collate(
    encoded: Sequence[Encoded],
    images: Sequence[list[np.ndarray] | None],
    sizes: Sequence[tuple[int, int] | None],
    pad_id: int,
    record_ids: Sequence[str] = (),
    sources: Sequence[str] = (),
) -> Batch:
    """Pad conversations on the right to the longest of them and stack the images of those that have one.

    `images` has, for each conversation, one array per encoder or None; `sizes` its original width and height.
    """
    import torch

    length = max(len(one.input_ids) for one in encoded)
    input_ids = np.full((len(encoded), length), pad_id, np.int64)
    labels = np.full((len(encoded), length), IGNORE_LABEL, np.int64)
    attention_mask = np.zeros((len(encoded), length), np.bool_)
    for row, one in enumerate(encoded):
        input_ids[row, : len(one.input_ids)] = one.input_ids
        labels[row, : len(one.labels)] = one.labels
        attention_mask[row, : len(one.input_ids)] = True
    present = [(arrays, size) for arrays, size in zip(images, sizes, strict=True) if arrays is not None]
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        labels=torch.from_numpy(labels),
        attention_mask=torch.from_numpy(attention_mask),
        images=ImageBatch(
            pixels=[
                torch.from_numpy(np.stack(views)) for views in zip(*(arrays for arrays, _ in present), strict=True)
            ],
            sizes=torch.tensor([size for _, size in present]),
        )
        if present
        else None,
        record_ids=list(record_ids),
        sources=list(sources),
    )
