"""The training loop: both phases, every model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cambrian.interfaces import IGNORE_LABEL, ArtifactError, ParamsError
from cambrian.runtime import iter_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Any

    from torch import Tensor

    from cambrian.interfaces import Batch
    from cambrian.training.engine import Engine

_NUM_NAMED_RECORDS = 16


def train(
    engine: Engine,
    steps: Iterable[Sequence[Batch | None]],
    *,
    num_steps: int,
    rate_factor: Callable[[int], float],
    what: str,
    before: list[tuple[int, float]],
    first_step: int,
    after_batch: Callable[[Batch, Tensor], None],
    after_step: Callable[[int, list[tuple[int, float]]], None],
    write_fault: Callable[[int, dict[str, Any]], Path],
) -> list[tuple[int, float]]:
    """Train on every step's micro batches; return (step, loss) for each step, counted from 1.

    A step's loss is the mean over all labelled positions of its batch, however it is cut into micro batches and
    whichever process has them. Every process has as many of them as the others; None stands for one of which no record
    could be used, or none was left. A step without any batch is passed over. `steps` are those from `first_step`
    (counted from 0) on, and `before` is what the earlier ones returned. `after_batch` hears every sample's sum of
    losses and number of labels (`Engine.losses`), `after_step` how many steps are done; `write_fault` keeps, of a step
    counted from 1, the records that a loss was not finite on.

    Raises:
        ParamsError: a loss or a gradient is not finite; names the records of the batch, and the file with all of them.
    """
    curve = list(before)
    for step, batches in enumerate(iter_progress(steps, total=num_steps - first_step, what=what), start=first_step):
        counts = [0 if batch is None else int((batch.labels != IGNORE_LABEL).sum()) for batch in batches]
        total = engine.processes.sum([sum(counts)])[0]
        if not total:
            continue
        step_loss = 0.0
        for index, (batch, count) in enumerate(zip(batches, counts, strict=True)):
            mean, by_sample = engine.losses(batch)
            loss = mean * (count / total)
            step_loss += loss.item()
            _check_finite(step_loss, "loss", step, [batch], write_fault)
            engine.backward(loss, is_last=index == len(batches) - 1)
            if batch is not None:
                after_batch(batch, by_sample)
        _check_finite(engine.step(rate_factor(step)), "gradient norm", step, batches, write_fault)
        curve.append((step + 1, engine.processes.sum([step_loss])[0]))
        after_step(step + 1, curve)
    return curve


def mean_final_loss(curve: list[tuple[int, float]]) -> float | None:
    """The mean over the last twentieth of the steps; None of no step."""
    last = curve[-max(len(curve) // 20, 1) :]
    return sum(loss for _, loss in last) / len(last) if last else None


def _check_finite(
    value: float,
    what: str,
    step: int,
    batches: Sequence[Batch | None],
    write_fault: Callable[[int, dict[str, Any]], Path],
) -> None:
    if math.isfinite(value):
        return
    present = [batch for batch in batches if batch is not None]
    ids = [record_id for batch in present for record_id in batch.record_ids]
    sources = [source for batch in present for source in batch.sources]
    try:
        where = f"all {len(ids)} are in {write_fault(step + 1, {what: str(value), 'records': ids, 'sources': sources})}"
    except ArtifactError as error:
        where = str(error)
    shown = ", ".join(ids[:_NUM_NAMED_RECORDS])
    raise ParamsError(
        f"the {what} is {value} at step {step + 1}, records {shown} ({where}): no weights were written. Lower the "
        "recipe's learning_rates, or look at these records if only they do it"
    )
