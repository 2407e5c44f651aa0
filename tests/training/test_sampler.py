from __future__ import annotations

import subprocess
import sys

import pytest

from cambrian.training.sampler import count_steps, epoch_order, iter_batches
from cambrian.training.schedule import rate_factor


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = epoch_order(50, seed=3, epoch=1)
    epoch_order(9, seed=8, epoch=0)
    assert epoch_order(50, seed=3, epoch=1) == first
    command = "from cambrian.training.sampler import epoch_order; print(epoch_order(50, seed=3, epoch=1))"
    assert subprocess.run([sys.executable, "-c", command], capture_output=True, text=True).stdout.strip() == str(first)


def test_other_seeds_and_epochs_give_other_orders() -> None:
    orders = {tuple(epoch_order(50, seed=seed, epoch=epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize(("num_samples", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3]), (0, [])])
def test_every_epoch_has_every_sample_once_and_its_last_batch_may_be_smaller(
    num_samples: int, sizes: list[int]
) -> None:
    batches = list(iter_batches(num_samples, 4, 2, seed=0))
    assert [len(batch) for batch in batches] == sizes * 2
    assert len(batches) == count_steps(num_samples, 4, 2)
    half = len(batches) // 2
    for epoch in (batches[:half], batches[half:]):
        assert sorted(index for batch in epoch for index in batch) == list(range(num_samples))


def test_a_longer_training_starts_with_the_batches_of_a_shorter() -> None:
    assert list(iter_batches(10, 4, 3, seed=0))[:6] == list(iter_batches(10, 4, 2, seed=0))


def test_the_rate_rises_linearly_and_no_step_is_wasted() -> None:
    factors = [rate_factor(step, 20, 0.2, "linear") for step in range(20)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[4:] == pytest.approx([1 - (index + 1) / 17 for index in range(16)])
    assert min(factors) > 0


def test_the_cosine_is_half_way_down_in_the_middle() -> None:
    assert [rate_factor(step, 3, 0.0, "cosine") for step in range(3)] == pytest.approx([0.85355339, 0.5, 0.14644661])


def test_a_single_step_trains() -> None:
    assert rate_factor(0, 1, 0.03, "cosine") == 1.0
    assert rate_factor(0, 1, 0.0, "linear") == 0.5
