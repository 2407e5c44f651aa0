"""Training over a phase's samples, from the newest checkpoint to the end, in one process or in many."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from cambrian.training.checkpoints import TERMINATED, Progress, Termination
from cambrian.training.loop import train
from cambrian.training.sampler import count_steps, deal, iter_batches
from cambrian.training.samples import merge_states
from cambrian.training.schedule import rate_factor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from cambrian.interfaces import Batch
    from cambrian.training.checkpoints import Checkpoints
    from cambrian.training.config import Recipe
    from cambrian.training.engine import Engine
    from cambrian.training.processes import Processes
    from cambrian.training.samples import Samples
    from cambrian.training.watch import Watch

T = TypeVar("T")

_log = logging.getLogger("cambrian")


def train_resumably(
    engine: Engine,
    samples: Samples,
    recipe: Recipe,
    checkpoints: Checkpoints,
    watch: Watch,
    *,
    what: str,
    seed: int,
    num_steps_ahead: int,
) -> list[tuple[int, float]]:
    """Train to the end of the recipe; return the loss of every step, counted from 1.

    Afterwards `samples` holds the counts of all processes.

    Raises:
        SystemExit: SIGTERM arrived; the step under way was finished and saved.
        ParamsError: a loss or gradient was not finite.
        ArtifactError: more records than the recipe allows cannot be used, or a checkpoint could not be written.
    """
    processes = engine.processes
    progress = checkpoints.load_newest(engine) or Progress(0, [], samples.state())
    num_steps = count_steps(len(samples), recipe.global_batch_size, recipe.epochs)
    with Termination() as termination:

        def save_where_due(num_done: int, curve: list[tuple[int, float]]) -> None:
            watch.see(num_done, curve[-1][1])
            is_ending = processes.any(termination.is_requested)
            if is_ending or (checkpoints.is_due(num_done) and num_done < num_steps):
                counted = merge_states(processes.gather(samples.state()))
                checkpoints.save(engine, Progress(num_done, curve, counted))
            if is_ending:
                _log.error("%s: terminated after step %d, which is saved: start again to go on", what, num_done)
                raise SystemExit(TERMINATED)

        curve = train(
            engine,
            watch.pass_on(_iter_steps(samples, recipe, seed, progress, processes, num_steps_ahead)),
            num_steps=num_steps,
            rate_factor=lambda step: rate_factor(step, num_steps, recipe.warmup_ratio, recipe.schedule),
            what=what,
            before=progress.curve,
            first_step=progress.num_steps,
            after_batch=watch.hear,
            after_step=save_where_due,
            write_fault=lambda step, values: checkpoints.write_fault(processes.rank, step, values),
        )
    samples.load_state(merge_states(processes.gather(samples.state())), is_counting=True)
    return curve


def _iter_steps(
    samples: Samples, recipe: Recipe, seed: int, progress: Progress, processes: Processes, num_steps_ahead: int
) -> Iterator[list[Batch | None]]:
    """This process's micro batches of every step that is not done yet; None where others have one more.

    A step is cut into micro batches alike for any number of processes, which then take turns.

    Where features are kept, images are encoded again in the batches that they were first encoded in: a batch of
    another size would round them differently.
    """
    steps = (
        (step, deal(indices, recipe.micro_batch_size, rank=processes.rank, num_processes=processes.count))
        for step, indices in enumerate(iter_batches(len(samples), recipe.global_batch_size, recipe.epochs, seed))
        if step >= progress.num_steps or samples.keeps_features
    )
    is_loaded = False
    for step, mine in look_ahead(steps, num_steps_ahead, lambda item: _announce(samples, item[1])):
        is_done = step < progress.num_steps
        if step == progress.num_steps:
            samples.load_state(progress.samples, is_counting=processes.is_main)
            is_loaded = True
        batches = [samples.read_batch(part) if part else None for part in mine]
        if is_done:
            continue
        if processes.any(samples.has_news):
            for unusable in processes.gather(samples.take_news()):
                samples.leave_out(unusable)
        yield batches if processes.count > 1 else [batch for batch in batches if batch is not None]
    if not is_loaded:  # it was terminated in its last step, and no step is left
        samples.load_state(progress.samples, is_counting=processes.is_main)


def look_ahead(items: Iterable[T], count: int, announce: Callable[[T], None]) -> Iterator[T]:
    """Yield the items; each is announced when `count` others still come before it."""
    waiting: deque[T] = deque()
    for item in items:
        if count:
            announce(item)
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _announce(samples: Samples, parts: Sequence[Sequence[int]]) -> None:
    for part in parts:
        samples.announce(part)
