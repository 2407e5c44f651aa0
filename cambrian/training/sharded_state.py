"""Weights and moments that are divided among processes: as whole tensors on disk, whatever divides them in memory.

A checkpoint is one safetensors file per process, each with whole parameters: `weights/NAME`, `exp_avg/NAME` and
`exp_avg_sq/NAME` in float32. So another number of processes, or another ZeRO stage, goes on from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cambrian.interfaces import ArtifactError
from cambrian.models.tensor_files import write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cambrian.training.processes import Processes

_WEIGHTS, _MOMENTS = "weights", ("exp_avg", "exp_avg_sq")
_STEP = "step"


class ShardedState:
    """What DeepSpeed's optimizer holds of every parameter that learns, as whole tensors.

    Its methods are called by all processes together.
    """

    def __init__(
        self, optimizer: Any, parameters: Mapping[str, nn.Parameter], zero_stage: int, processes: Processes
    ) -> None:
        self._optimizer = optimizer
        self._parameters = parameters
        self._zero_stage = zero_stage
        self._processes = processes
        # DeepSpeed would make the moments at the first step, and link to parameters those of the first group only.
        self._inner = optimizer if zero_stage == 0 else optimizer.optimizer
        self._make_moments()

    def weights(self, name: str) -> Tensor:
        """The float32 weights of one parameter, whole."""
        parameter = self._parameters[name]
        if self._zero_stage == 0:
            return parameter.detach()
        from deepspeed.utils import safe_get_full_fp32_param

        whole: Tensor = safe_get_full_fp32_param(parameter).detach()
        return whole

    def take(self) -> dict[str, Tensor]:
        """Return this process's share of all that a checkpoint holds, in the processor's memory.

        Parameters are dealt out in turn, so that memory and writing are divided too.
        """
        share: dict[str, Tensor] = {}
        for index, name in enumerate(self._parameters):
            is_mine = index % self._processes.count == self._processes.rank
            for kind in (_WEIGHTS, *_MOMENTS):
                whole = self.weights(name) if kind == _WEIGHTS else self._moment(name, kind)
                if is_mine:
                    share[f"{kind}/{name}"] = whole.to("cpu", torch.float32, copy=True)
        if self._processes.is_main:
            share[_STEP] = torch.tensor(float(self._inner.state[self._held()[0]][_STEP]))
        return share

    def put(self, read: Callable[[str], Tensor]) -> None:
        """Go on from a checkpoint, of which `read` returns one tensor by its name in the file."""
        step = int(read(_STEP).item())
        for flat in self._held():
            self._inner.state[flat][_STEP] = self._count(step)
        put = {0: self._put_whole, 1: self._put_fragment, 2: self._put_fragment, 3: self._put_partition}
        for name, parameter in self._parameters.items():
            for kind in (_WEIGHTS, *_MOMENTS):
                put[self._zero_stage](parameter, kind, read(f"{kind}/{name}"))
        if self._zero_stage in (1, 2):
            self._optimizer.update_lp_params()
        elif self._zero_stage == 3:
            self._refresh_persistent()

    def _moment(self, name: str, kind: str) -> Tensor:
        parameter = self._parameters[name]
        if self._zero_stage == 0:
            moment: Tensor = self._optimizer.state[parameter][kind]
            return moment
        from deepspeed.utils import safe_get_full_optimizer_state

        whole: Tensor = safe_get_full_optimizer_state(parameter, kind)
        return whole

    def _make_moments(self) -> None:
        """Give the optimizer the state that it would otherwise make at its first step."""
        for flat in self._held():
            moments = {kind: torch.zeros_like(flat.detach()) for kind in _MOMENTS}
            self._inner.state[flat] = {_STEP: self._count(0), **moments}
        if self._zero_stage in (1, 2):
            self._optimizer._lazy_init_hp_params_optimizer_state()

    def _held(self) -> list[Tensor]:
        """The tensors that the inner optimizer moves."""
        if self._zero_stage == 0:
            return list(self._parameters.values())
        if self._zero_stage == 3:
            return list(self._optimizer.fp32_partitioned_groups_flat)
        return list(self._optimizer.single_partition_of_fp32_groups)

    def _count(self, step: int) -> Tensor | int:
        """A number of steps as the inner optimizer keeps it."""
        return torch.tensor(float(step)) if isinstance(self._inner, torch.optim.AdamW) else step

    def _put_whole(self, parameter: nn.Parameter, kind: str, whole: Tensor) -> None:
        target = parameter.data if kind == _WEIGHTS else self._optimizer.state[parameter][kind]
        target.copy_(whole)

    def _put_fragment(self, parameter: Any, kind: str, whole: Tensor) -> None:
        parameter.set_full_hp_param(whole, None if kind == _WEIGHTS else kind)

    def _put_partition(self, parameter: Any, kind: str, whole: Tensor) -> None:
        length = parameter.partition_numel()
        padded = torch.zeros(length * self._processes.count)
        padded[: whole.numel()] = whole.flatten()
        partition = padded[length * self._processes.rank :][:length]
        self._optimizer.set_local_hp_param(partition, parameter, None if kind == _WEIGHTS else kind)
        if kind == _WEIGHTS:
            parameter.ds_tensor.data.copy_(partition)

    def _refresh_persistent(self) -> None:
        """Gather again what every process holds whole."""
        persistent = self._optimizer.persistent_parameters
        if persistent:
            persistent[0].partition(persistent)
            persistent[0].all_gather(persistent)


def write_state(folder: Path, rank: int, share: Mapping[str, Tensor]) -> None:
    """Write one process's share."""
    write_tensors(folder / f"state-{rank:05d}.safetensors", share)


def read_state(folder: Path, shapes: Mapping[str, torch.Size]) -> Callable[[str], Tensor]:
    """Open all shares; what is returned reads one tensor by its name.

    Raises:
        ArtifactError: a tensor is missing, left over or of another shape, or a file is not safetensors.
    """
    files = sorted(folder.glob("state-*.safetensors"))
    places: dict[str, Path] = {}
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():  # noqa: SIM118  # not a mapping
                    places[key] = path
                    found[key] = tuple(file.get_slice(key).get_shape())
        except SafetensorError as error:
            raise ArtifactError(f"{path} is not a safetensors file ({error}): delete {folder}") from error
    wanted = {f"{kind}/{name}": tuple(shape) for name, shape in shapes.items() for kind in (_WEIGHTS, *_MOMENTS)}
    wanted[_STEP] = ()
    if faults := sorted(key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)):
        key = faults[0]
        raise ArtifactError(
            f"{folder}: {key} has shape {found.get(key)}, the model needs {wanted.get(key)}, and so on for "
            f"{len(faults)} tensors: it was written by another model; delete it to start from the beginning"
        )

    def read(key: str) -> Tensor:
        with safe_open(places[key], "pt") as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor

    return read
