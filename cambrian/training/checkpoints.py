"""Checkpoints of a phase that is under way: outside DVC's outputs, keyed by all that the phase depends on.

A checkpoint holds what the rest of the training depends on: weights that learn, optimizer state, torch's generator, the
losses so far and the counts of records. A phase that starts again with equal inputs goes on from the newest one that is
whole; on a CPU it ends in the bytes of a phase that was never stopped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cambrian.artifacts import MANIFEST_NAME, find_damage, read_json, write_json
from cambrian.interfaces import ArtifactError
from cambrian.models.tensor_files import write_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import FrameType

    from cambrian.training.engine import Engine

_log = logging.getLogger("cambrian")

_PROGRESS_NAME = "progress.json"
_GENERATOR_NAME = "generator.pt"
_KEY = "phase"
"""In the progress: the name of the checkpoints' folder, which says whose they are."""
TERMINATED = 128 + signal.SIGTERM
"""The exit status of a process that SIGTERM ended."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase has come."""

    num_steps: int
    """Steps that are done."""
    curve: list[tuple[int, float]]
    samples: dict[str, Any]
    """`Samples.state()`."""


class Checkpoints:
    """The checkpoints of one phase with one set of inputs."""

    def __init__(self, folder: Path, *, every_steps: int, num_kept: int) -> None:
        self._folder = folder
        self._every_steps = every_steps
        self._num_kept = num_kept

    def is_due(self, num_steps: int) -> bool:
        """Whether a checkpoint belongs after this many steps."""
        return num_steps % self._every_steps == 0

    def save(self, engine: Engine, progress: Progress) -> None:
        """Write a checkpoint, whole or not at all, and remove all but the newest ones.

        Raises:
            ArtifactError: the disk is full or the folder cannot be written; earlier checkpoints are as they were.
        """
        processes = engine.processes
        with processes.write_folder(self._folder / f"step-{progress.num_steps:08d}") as partial:
            write = engine.save(partial)
            write()
            if processes.is_main:
                write_object(partial / _GENERATOR_NAME, torch.get_rng_state())
                values = {"num_steps": progress.num_steps, "curve": progress.curve, "samples": progress.samples}
                values[_KEY] = self._folder.name
                write_json(partial / _PROGRESS_NAME, values)
        if processes.is_main:
            for old in self._all()[: -self._num_kept]:
                shutil.rmtree(old)

    def load_newest(self, engine: Engine) -> Progress | None:
        """Load the newest checkpoint that is whole; None where there is none. A damaged one is named and passed over.

        Raises:
            ArtifactError: a whole checkpoint is another phase's or does not fit the model: somebody put it there.
        """
        found = self._find_newest() if engine.processes.is_main else None
        folder = engine.processes.gather(found)[0]
        if folder is None:
            return None
        values = read_json(folder / _PROGRESS_NAME)
        if values.get(_KEY) != self._folder.name:
            raise ArtifactError(
                f"{folder} was written by {values.get(_KEY)}, expected {self._folder.name}: it was put there by hand; "
                "move it away, and the phase goes on from what is left"
            )
        engine.load(folder)
        torch.set_rng_state(torch.load(folder / _GENERATOR_NAME, weights_only=True))
        curve = [(int(step), float(loss)) for step, loss in values["curve"]]
        _log.info("going on after step %d from %s", values["num_steps"], folder)
        return Progress(values["num_steps"], curve, values["samples"])

    def write_fault(self, rank: int, num_steps: int, values: Mapping[str, Any]) -> Path:
        """Keep what a process says of a step (counted from 1) that ended the phase; return the file.

        It stands beside the checkpoints, because nothing of a phase that failed is among its outputs.

        Raises:
            ArtifactError: the disk is full or the folder cannot be written.
        """
        path = self._folder / f"fault-step-{num_steps:08d}-process-{rank}.json"
        write_json(path, {"step": num_steps, **values})
        return path

    def remove(self) -> None:
        """Remove all of them: the phase has written its output."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _find_newest(self) -> Path | None:
        for folder in reversed(self._all()):
            if not (damage := find_damage(folder)):
                return folder
            _log.warning("checkpoint %s cannot be used and is passed over: %s", folder, damage)
        return None

    def _all(self) -> list[Path]:
        """Finished checkpoints, oldest first."""
        return sorted(self._folder.glob("step-*"))


def fingerprint(values: Mapping[str, Any], folders: Iterable[Path], code: Iterable[Path]) -> str:
    """Return a short name for these values, the contents of these finished folders and these source files.

    Of a folder only the manifest has to be here: a pool's shards may lie in a bucket.

    Raises:
        ArtifactError: a folder is missing or unfinished.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for folder in folders:
        if not (folder / MANIFEST_NAME).is_file():
            raise ArtifactError(
                f"{folder} has no {MANIFEST_NAME}: it is missing or was not finished; run `dvc repro` to make it"
            )
        digest.update((folder / MANIFEST_NAME).read_bytes())
    for path in sorted(code):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Termination:
    """Notices SIGTERM, so that the step under way is finished and saved before the process ends."""

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Termination:
        self._before = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _request(self, signum: int, frame: FrameType | None) -> None:
        self.is_requested = True
