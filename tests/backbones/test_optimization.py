from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from cambrian.backbones.optimization import Optimization, OptimizationConfig, iter_shuffled, rate_factor
from tests.backbones.corpora import OPTIMIZATION

CONFIG = OptimizationConfig.model_validate({**OPTIMIZATION, "num_steps": 8})


def test_the_rate_rises_to_its_peak_and_falls_towards_zero() -> None:
    factors = [rate_factor(step, CONFIG) for step in range(8)]
    assert factors[:2] == [0.5, 1.0]
    assert factors[2:] == sorted(factors[2:], reverse=True)
    assert 0 < factors[-1] < 0.2


def test_muon_moves_hidden_matrices_and_adamw_the_rest() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.Conv2d(1, 1, 2), nn.Linear(4, 2))
    optimization = Optimization([model], CONFIG, heads=[model[0].weight, model[3].weight])
    muon, adamw = optimization._optimizers
    assert [p is model[1].weight for p in muon.param_groups[0]["params"]] == [True]
    assert sum(p.numel() for group in adamw.param_groups for p in group["params"]) == 20 + 4 + 5 + 10


def test_frozen_weights_stay() -> None:
    frozen, free = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3)
    before = frozen.weight.clone()
    optimization = Optimization([frozen, free], CONFIG, heads=[])
    optimization.step(free(frozen(torch.ones(2, 3))).square().sum())
    assert torch.equal(frozen.weight, before)


def test_a_diverged_loss_stops_training() -> None:
    layer = nn.Linear(2, 2)
    optimization = Optimization([layer], CONFIG, heads=[])
    with pytest.raises(FloatingPointError, match="lower the rates"):
        optimization.step(layer(torch.ones(1, 2)).sum() * float("inf"))


def test_every_epoch_takes_each_sample_once_in_a_new_order() -> None:
    batches = iter_shuffled(torch.arange(10), 3, torch.Generator().manual_seed(0))
    first, second = (torch.cat(list(itertools.islice(batches, 3))).tolist() for _ in range(2))
    assert len(set(first)) == len(set(second)) == 9
    assert first != second


def test_fewer_samples_than_a_batch_are_refused() -> None:
    with pytest.raises(ValueError, match="2 samples do not fill one batch of 3"):
        next(iter_shuffled(torch.arange(2), 3, torch.Generator()))
