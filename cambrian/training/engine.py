"""What the training loop asks of the machinery below it, and the machinery of one process."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch

from cambrian.models.tensor_files import load_tensors, read_tensors, write_object, write_tensors
from cambrian.training.processes import Processes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from cambrian.interfaces import Batch


_PARAMETERS_NAME = "parameters.safetensors"
_OPTIMIZERS_NAME = "optimizers.pt"


class TrainableModel(Protocol):
    """A model whose loss can be had of a batch."""

    def losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch's labelled positions; of every sample its sum and their number."""
        ...


class Engine(Protocol):
    """Holds model and optimizers, wherever their parts are."""

    processes: Processes
    """Those that call the same methods in the same order."""

    def losses(self, batch: Batch | None) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch's labelled positions; of every sample its sum and their number.

        Gradients come from the mean alone. Where processes wait for each other, one that has no batch calls with None,
        and weighs the loss by 0.
        """
        ...

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add the loss's gradients to those of the step; `is_last` says that the step's other batches are done.

        The gradients of a step are those of the sum of all losses of all processes.
        """
        ...

    def step(self, rate_factor: float) -> float:
        """Clip, update and clear the step's gradients; return their norm before clipping.

        Every group's rate is its highest rate times `rate_factor`. After a norm that is not finite the weights may be
        ruined: the caller stops.
        """
        ...

    def save(self, folder: Path) -> Callable[[], None]:
        """Take what learns and the optimizers' state; what is returned writes them, without other processes."""
        ...

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, under any number of processes.

        Raises:
            ArtifactError: it was written by another model.
        """
        ...

    def finish(self) -> None:
        """Make the main process's model hold what was learned, whole; nothing can be trained after it."""
        ...


class LocalEngine:
    """One process, one device."""

    def __init__(
        self,
        model: TrainableModel,
        parameters: Mapping[str, nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        max_gradient_norm: float,
        device: torch.device,
    ) -> None:
        """Take the model, and of its parameters those that learn, by name."""
        self.processes = Processes(0, 1)
        self._model = model
        self._named = dict(parameters)
        self._parameters = list(self._named.values())
        self._optimizers = list(optimizers)
        self._max_gradient_norm = max_gradient_norm
        self._device = device

    def losses(self, batch: Batch | None) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch's labelled positions; of every sample its sum and their number."""
        assert batch is not None  # nobody waits for this process
        return self._model.losses(move_batch(batch, self._device))

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add the loss's gradients to those of the step."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, rate_factor: float) -> float:
        """Clip, update and clear the step's gradients; return their norm before clipping."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._max_gradient_norm)
        if torch.isfinite(norm):
            for optimizer in self._optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["highest_rate"] * rate_factor
                optimizer.step()
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        return norm.item()

    def save(self, folder: Path) -> Callable[[], None]:
        """Return what writes the parameters that learn and the optimizers' state."""

        def write() -> None:
            write_tensors(folder / _PARAMETERS_NAME, self._named)
            write_object(folder / _OPTIMIZERS_NAME, [optimizer.state_dict() for optimizer in self._optimizers])

        return write

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            ArtifactError: it was written by another model.
        """
        load_tensors(self._named, read_tensors(folder / _PARAMETERS_NAME), where=folder / _PARAMETERS_NAME)
        states = torch.load(folder / _OPTIMIZERS_NAME, weights_only=True, map_location=self._device)
        for optimizer, state in zip(self._optimizers, states, strict=True):
            optimizer.load_state_dict(state)

    def finish(self) -> None:
        """Leave the model as it is: its parameters are whole."""


def move_batch(batch: Batch, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
    """The batch on a device, its images in this type; itself where it is so already."""
    if device.type == "cpu" and dtype == torch.float32:
        return batch
    images = batch.images
    if images is not None:
        pixels = [pixels.to(device, dtype) for pixels in images.pixels]
        images = replace(images, pixels=pixels, sizes=images.sizes.to(device))
        if images.features is not None:
            images.features = [feature_map.to(device, dtype) for feature_map in images.features]
    return replace(
        batch,
        input_ids=batch.input_ids.to(device),
        labels=batch.labels.to(device),
        attention_mask=batch.attention_mask.to(device),
        images=images,
    )
