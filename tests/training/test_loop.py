from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from cambrian.interfaces import IGNORE_LABEL, ArtifactError, Batch, ParamsError
from cambrian.training.engine import LocalEngine
from cambrian.training.loop import mean_final_loss, train

if TYPE_CHECKING:
    from collections.abc import Sequence


class Table(nn.Module):
    """Predicts each label from a table of logits by input id."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(4, 4))

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = self.logits[batch.input_ids]
        each = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
        counts = (batch.labels != IGNORE_LABEL).sum(dim=1)
        by_sample = torch.stack([each.detach().view_as(batch.labels).sum(dim=1), counts], dim=1)
        return each.sum() / counts.sum(), by_sample


def make_batch(rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], *ids: str) -> Batch:
    mask = torch.ones(len(rows), len(rows[0]), dtype=torch.bool)
    return Batch(
        torch.tensor(rows), torch.tensor(labels), mask, images=None, record_ids=list(ids), sources=["s"] * len(ids)
    )


def make_engine(model: Table, *, rate: float = 1.0, max_gradient_norm: float = 1e9) -> LocalEngine:
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "highest_rate": rate}], lr=0.0)
    return LocalEngine(
        model,
        dict(model.named_parameters()),
        [optimizer],
        max_gradient_norm=max_gradient_norm,
        device=torch.device("cpu"),
    )


def no_file(step: int, values: dict[str, Any]) -> Path:
    raise AssertionError(values)


train_all = partial(
    train,
    before=[],
    first_step=0,
    after_batch=lambda batch, by_sample: None,
    after_step=lambda num_done, curve: None,
    write_fault=no_file,
)
WHOLE = make_batch([[0, 1, 2], [3, 0, 1]], [[1, -100, 3], [2, 2, -100]], "a", "b")
HALVES = [make_batch([[0, 1, 2]], [[1, -100, 3]], "a"), make_batch([[3, 0, 1]], [[2, 2, -100]], "b")]
UNEVEN = [make_batch([[0, 1, 2]], [[1, -100, 3]], "a"), make_batch([[3, 0, 1]], [[2, -100, -100]], "b")]


def test_micro_batches_give_the_step_of_their_whole_batch() -> None:
    whole, halves = Table(), Table()
    kwargs = {"num_steps": 2, "rate_factor": lambda step: 1.0, "what": "x"}
    one = train_all(make_engine(whole), [[WHOLE], [WHOLE]], **kwargs)
    two = train_all(make_engine(halves), [HALVES, HALVES], **kwargs)
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], abs=1e-6)  # rounding of float32
    assert torch.allclose(whole.logits, halves.logits, atol=1e-6)


def test_micro_batches_weigh_by_their_labels_not_by_their_number() -> None:
    model = Table()
    with torch.no_grad():
        model.logits[3, 2] = 5.0
    expected = (2 * math.log(4) + math.log(3 + math.exp(5)) - 5) / 3
    ((_, loss),) = train_all(make_engine(model), [UNEVEN], num_steps=1, rate_factor=lambda step: 1.0, what="x")
    assert loss == pytest.approx(expected, abs=1e-6)


def test_every_micro_batch_is_heard_with_the_losses_of_its_samples() -> None:
    heard = []
    train_all(
        make_engine(Table()),
        [UNEVEN],
        num_steps=1,
        rate_factor=lambda step: 1.0,
        what="x",
        after_batch=lambda batch, by_sample: heard.append((batch.record_ids, by_sample.tolist())),
    )
    assert [ids for ids, _ in heard] == [["a"], ["b"]]
    assert heard[0][1] == [pytest.approx([2 * math.log(4), 2])]
    assert heard[1][1] == [pytest.approx([math.log(4), 1])]


def test_the_schedule_multiplies_the_highest_rate() -> None:
    still, moved = Table(), Table()
    train_all(make_engine(still), [[WHOLE]], num_steps=1, rate_factor=lambda step: 0.0, what="x")
    train_all(make_engine(moved), [[WHOLE]], num_steps=1, rate_factor=lambda step: 0.5, what="x")
    assert torch.equal(still.logits, Table().logits)
    half = Table()
    train_all(make_engine(half, rate=0.5), [[WHOLE]], num_steps=1, rate_factor=lambda step: 1.0, what="x")
    assert torch.equal(moved.logits, half.logits)


def test_gradients_are_clipped_by_their_norm() -> None:
    model = Table()
    train_all(
        make_engine(model, max_gradient_norm=0.01), [[WHOLE]], num_steps=1, rate_factor=lambda step: 1.0, what="x"
    )
    assert model.logits.norm().item() == pytest.approx(0.01, rel=1e-3)  # torch adds 1e-6 to the norm that it divides by


def test_a_step_without_usable_records_is_passed_over_and_the_others_keep_their_numbers() -> None:
    curve = train_all(make_engine(Table()), [[WHOLE], [], [WHOLE]], num_steps=3, rate_factor=lambda step: 1.0, what="x")
    assert [step for step, _ in curve] == [1, 3]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_with_the_records_of_its_batch(bad: float) -> None:
    model = Table()
    with torch.no_grad():
        model.logits[3] = bad
    before = model.logits.clone()
    written = []

    def write_fault(step: int, values: dict[str, Any]) -> Path:
        written.append((step, values))
        return Path("there.json")

    with pytest.raises(ParamsError, match=r"the loss is nan at step 2, records b \(all 1 are in there.json\)"):
        train_all(
            make_engine(model, rate=0.0),
            [[HALVES[0]], HALVES],
            num_steps=2,
            rate_factor=lambda step: 1.0,
            what="x",
            write_fault=write_fault,
        )
    assert torch.equal(model.logits.nan_to_num(), before.nan_to_num())
    assert written == [(2, {"loss": "nan", "records": ["b"], "sources": ["s"]})]


def test_a_gradient_that_is_not_finite_stops_before_the_update() -> None:
    class Steep(Table):
        def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
            mean, by_sample = super().losses(batch)
            return mean + self.logits.abs().sqrt().sum(), by_sample  # finite, with an infinite slope at 0

    def fail(step: int, values: dict[str, Any]) -> Path:
        raise ArtifactError("the disk is full")

    model = Steep()
    with pytest.raises(ParamsError, match=r"the gradient norm is nan at step 1, records a, b \(the disk is full\)"):
        train_all(make_engine(model), [[WHOLE]], num_steps=1, rate_factor=lambda step: 1.0, what="x", write_fault=fail)
    assert torch.equal(model.logits, Table().logits)


def test_the_final_loss_is_the_mean_of_the_last_twentieth() -> None:
    assert mean_final_loss([(step, float(step)) for step in range(1, 61)]) == 59.0
    assert mean_final_loss([(1, 4.0), (2, 2.0)]) == 2.0
    assert mean_final_loss([]) is None
