"""The order of samples: a function of seed and epoch alone, whatever reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cambrian.runtime import generator_seed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def epoch_order(num_samples: int, seed: int, epoch: int) -> list[int]:
    """Every sample once, in the order of this epoch."""
    generator = np.random.default_rng(generator_seed(seed, f"sample order of epoch {epoch}"))
    order: list[int] = generator.permutation(num_samples).tolist()
    return order


def iter_batches(num_samples: int, batch_size: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """The samples of every step; an epoch ends with a smaller batch where its samples do not divide."""
    for epoch in range(epochs):
        order = epoch_order(num_samples, seed, epoch)
        for start in range(0, num_samples, batch_size):
            yield order[start : start + batch_size]


def count_steps(num_samples: int, batch_size: int, epochs: int) -> int:
    """How many batches `iter_batches` yields."""
    return epochs * -(-num_samples // batch_size)


def deal(indices: Sequence[int], batch_size: int, *, rank: int, num_processes: int) -> list[Sequence[int]]:
    """The batches of one process, where processes take turns at cutting a step into batches.

    Every process has as many; the last may be empty.
    """
    batches = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    num_rounds = -(-len(batches) // num_processes)
    batches.extend([] for _ in range(num_rounds * num_processes - len(batches)))
    return batches[rank::num_processes]
