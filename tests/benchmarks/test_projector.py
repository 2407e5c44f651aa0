from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import projector
from benchmarks.projector import (
    MEBIBYTE,
    Sizes,
    kept_mebibytes,
    measure,
    project_after,
    project_joined,
    released_sizes,
)
from cambrian.models.joined_maps import JoinedLinear

TINY = Sizes(widths=(3, 6, 12, 24), grids=(16, 8, 4, 2), side=6, dim=64)


def test_the_measured_sizes_are_those_of_the_released_encoder_and_projector() -> None:
    sizes = released_sizes()
    assert (sum(sizes.widths), sizes.side, sizes.dim) == (5760, 96, 1024)
    assert sizes.grids == (256, 128, 64, 32)


def test_the_plain_form_resizes_before_it_projects() -> None:
    """A map of four places taken to one is their mean, whatever the layer does with it after."""
    layer = JoinedLinear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(3.0)
        layer.bias.fill_(0.5)
        assert project_after(layer, [torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])], 1).tolist() == [[[9.5]]]


def test_operations_are_counted_forward_and_backward() -> None:
    result: dict[str, Any] = measure(TINY, repeats=1)
    before = 64 * ((3 + 6) * 36 + 12 * 16 + 24 * 4)  # the two coarse maps on their own grids
    after = 64 * 45 * 36
    # a multiply-add is two operations; the backward pass repeats the product once, for the weights
    assert result["flops"] == {"plain": 4 * after, "ours": 4 * before}
    assert result["flop_ratio"] == round(after / before, 2)


def test_what_is_kept_for_the_backward_pass_is_what_was_resized_before_the_layer() -> None:
    maps, layer = TINY.make_maps(torch.float32), TINY.make_layer(torch.float32)
    kept = [kept_mebibytes(form, layer, maps, TINY.side) * MEBIBYTE for form in (project_after, project_joined)]
    assert kept == [4 * 36 * (3 + 6 + 12 + 24), 4 * 36 * (3 + 6)]  # float32; the coarse maps are kept by their encoder


def test_forms_that_disagree_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(layer: JoinedLinear, maps: list[Tensor], side: int) -> Tensor:
        return project_after(layer, maps, side) + 1e-6

    monkeypatch.setitem(projector.FORMS, "ours", wrong)
    with pytest.raises(ValueError, match=r"the forms differ by 1\.0e-06 in double precision, expected at most 1e-10"):
        measure(TINY, repeats=1)
