"""What a person sees of a training under way: speed, padding, utilisation, memory, losses; in logs, never in outs."""

from __future__ import annotations

import logging
import resource
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cambrian.interfaces import ParamsError
from cambrian.training.config import DVCLiveConfig, TensorBoardConfig, WandbConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from cambrian.interfaces import Batch
    from cambrian.training.config import NoBoardConfig, WatchConfig
    from cambrian.training.processes import Processes

_log = logging.getLogger("cambrian")
_KIB_PER_GIB = 2**20


class Board(Protocol):
    """Where curves are drawn."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add a point to each of these curves."""
        ...


class Watch:
    """Counts what the steps compute, and says it every so many steps."""

    def __init__(
        self,
        config: WatchConfig,
        *,
        what: str,
        processes: Processes,
        flops_per_token: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take `flops_per_token` of the LLM in a step, forward and backward, without attention's products."""
        self._config = config
        self._what = what
        self._processes = processes
        self._flops_per_token = flops_per_token
        self._clock = clock
        self._board = open_board(config.board, what) if processes.is_main else None
        self._started = clock()
        self._samples = self._tokens = self._places = self._steps = 0
        self._losses: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def pass_on(self, steps: Iterator[list[Batch | None]]) -> Iterator[list[Batch | None]]:
        """Yield the steps, counted."""
        for batches in steps:
            for batch in batches:
                if batch is not None:
                    self._samples += len(batch.input_ids)
                    self._tokens += int(batch.attention_mask.sum())
                    self._places += batch.input_ids.numel()
            yield batches

    def hear(self, batch: Batch, by_sample: Tensor) -> None:
        """Note every sample's sum of losses and number of labels (`Engine.losses`)."""
        for source, (loss, labels) in zip(batch.sources, by_sample.tolist(), strict=True):
            self._losses[source][0] += loss
            self._losses[source][1] += labels

    def see(self, num_done: int, loss: float) -> None:
        """Note that a step is done; called by all processes."""
        self._steps += 1
        if num_done % self._config.every_steps:
            return
        samples, tokens, places = self._processes.sum([self._samples, self._tokens, self._places])
        now = self._clock()
        seconds = max(now - self._started, 1e-9)
        values = {
            "loss": loss,
            "samples_per_second": samples / seconds,
            "tokens_per_second": tokens / seconds,
            "seconds_per_step": seconds / self._steps,
            "padding_share": 1 - tokens / max(places, 1),
            "memory_gib": peak_memory_gib(),
        }
        if self._config.peak_tflops is not None:
            flops = tokens * self._flops_per_token / seconds
            values["model_flop_utilisation"] = flops / (self._config.peak_tflops * 1e12 * self._processes.count)
        self._started, self._steps = now, 0
        self._samples = self._tokens = self._places = 0
        by_source = self._take_losses()
        if self._board is not None:
            _log.info("%s: step %d, %s", self._what, num_done, _join(values))
            if by_source:
                _log.info("%s: step %d, loss by source: %s", self._what, num_done, _join(by_source))
            self._board.write(num_done, values | {_curve_of(source): loss for source, loss in by_source.items()})

    def _take_losses(self) -> dict[str, float]:
        """The mean loss of a label of each source, in all processes, since the last call."""
        sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for losses in self._processes.gather(dict(self._losses)):
            for source, (loss, labels) in losses.items():
                sums[source][0] += loss
                sums[source][1] += labels
        self._losses.clear()
        return {source: loss / labels for source, (loss, labels) in sorted(sums.items()) if labels}


def _join(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


def _curve_of(source: str) -> str:
    """A curve's name: boards make folders of slashes."""
    return f"loss_of_{source.replace('/', '_')}"


def peak_memory_gib() -> float:
    """The most that this process has held, on its GPU where it has one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _KIB_PER_GIB


class _NoBoard:
    def write(self, step: int, values: dict[str, float]) -> None:
        """Draw nothing."""


class _DVCLiveBoard:
    def __init__(self, folder: Path) -> None:
        from dvclive import Live  # seconds: it brings DVC along

        self._live = Live(str(folder), resume=True, save_dvc_exp=False, dvcyaml=None)

    def write(self, step: int, values: dict[str, float]) -> None:
        self._live.step = step
        for name, value in values.items():
            self._live.log_metric(name, value)
        self._live.make_summary()


class _TensorBoardBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder))

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()


class _WandbBoard:
    def __init__(self, project: str, what: str) -> None:
        import wandb

        self._run = wandb.init(project=project, name=what, id=what.replace(".", "-"), resume="allow")

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=step)


def open_board(config: NoBoardConfig | DVCLiveConfig | TensorBoardConfig | WandbConfig, what: str) -> Board:
    """Open what a scale names.

    Raises:
        ParamsError: its package is not installed.
    """
    try:
        if isinstance(config, DVCLiveConfig):
            return _DVCLiveBoard(Path(config.folder) / what)
        if isinstance(config, TensorBoardConfig):
            return _TensorBoardBoard(Path(config.folder) / what)
        if isinstance(config, WandbConfig):
            return _WandbBoard(config.project, what)
    except ImportError as error:
        raise ParamsError(
            f"training.watch.board is {config.kind}, whose package cannot be imported ({error}): it is not among ours, "
            f"install it (`uv pip install --python .venv/bin/python {config.kind}`), or choose "
            "{kind: dvclive, folder: ...} or {kind: none}"
        ) from error
    return _NoBoard()


def count_flops_per_token(num_weights: int, *, learns: bool) -> float:
    """Operations of one token in a step of an LLM: for each weight 2 forward, 2 for inputs, and 2 where it learns."""
    return num_weights * (6.0 if learns else 4.0)
