"""Feature maps of frozen encoders, kept from an image's first use on: later epochs encode nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import Tensor

_BYTES_PER_MIB = 1 << 20


class FeatureCache:
    """Feature maps by image name, in memory until the limit is reached and encoded again beyond it."""

    def __init__(self, encode: Callable[[list[Tensor]], list[Tensor]], *, max_mib: int) -> None:
        """Take the frozen encoders: pixels of every encoder in (`ImageBatch.pixels`), their feature maps out."""
        self._encode = encode
        self._free_bytes = max_mib * _BYTES_PER_MIB
        self._features: dict[str, list[Tensor]] = {}

    def read(self, names: Sequence[str], read_views: Callable[[str], list[np.ndarray]]) -> list[Tensor]:
        """Return every encoder's feature maps of these images; `read_views` is asked for the unknown ones only.

        Images that are met for the first time are encoded together.
        """
        known = {name: self._features[name] for name in names if name in self._features}
        unknown = [name for name in dict.fromkeys(names) if name not in known]
        if unknown:
            views = zip(*(read_views(name) for name in unknown), strict=True)
            pixels = [torch.stack([torch.from_numpy(view) for view in encoder]) for encoder in views]
            new = dict(zip(unknown, map(list, zip(*self._encode(pixels), strict=True)), strict=True))
            self._keep(new)
            known.update(new)
        return [torch.stack(maps) for maps in zip(*(known[name] for name in names), strict=True)]

    def _keep(self, new: dict[str, list[Tensor]]) -> None:
        for name, maps in new.items():
            num_bytes = sum(feature_map.nbytes for feature_map in maps)
            if num_bytes > self._free_bytes:
                return
            self._free_bytes -= num_bytes
            self._features[name] = [feature_map.clone() for feature_map in maps]  # not views that keep a batch alive
