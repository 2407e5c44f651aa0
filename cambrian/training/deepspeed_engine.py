"""The machinery of many processes: DeepSpeed, with one format of checkpoints for all its forms."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch, ParamsError
from cambrian.training.engine import move_batch
from cambrian.training.sharded_state import ShardedState, read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cambrian.models.multimodal import MultimodalModel
    from cambrian.models.tensor_files import TensorFile
    from cambrian.training.config import DeepSpeedEngineConfig, Recipe
    from cambrian.training.processes import Processes

_HELD = -1
"""Stands in DeepSpeed's books for a module that is at work and never ends."""

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class DeepSpeedEngine:
    """One of the processes of DeepSpeed.

    Frozen encoders stay whole on every process, outside of what DeepSpeed divides. So do, at ZeRO stage 3, the weights
    (not the optimizer's state) of connector and aggregators: they are small beside an LLM, and their modules hand each
    other records of tensors, into which DeepSpeed's hooks do not see.
    """

    def __init__(
        self,
        model: MultimodalModel,
        groups: Sequence[dict[str, Any]],
        config: DeepSpeedEngineConfig,
        recipe: Recipe,
        *,
        num_accumulation_steps: int,
        processes: Processes,
        device: torch.device,
        llm_weights: TensorFile | None,
    ) -> None:
        """Take a model on the device and the optimizer's groups (`build_optimizers`).

        At ZeRO stage 3 the model's LLM may be an outline, whose values are in `llm_weights`.

        Raises:
            ParamsError: DeepSpeed cannot be imported.
        """
        self.processes = processes
        self._model = model
        self._config = config
        self._device = device
        self._dtype = _DTYPES[config.precision]
        self._max_gradient_norm = recipe.optimizer.max_gradient_norm
        values = deepspeed_config(config, recipe, num_accumulation_steps, device)
        deepspeed = _import_deepspeed()
        _join_alone()
        trained = _Trained(model)
        model.encoders.to(self._dtype)
        buffers = {name: buffer.clone() for name, buffer in trained.named_buffers()}
        if llm_weights is not None:
            self._divide(deepspeed, trained, values, llm_weights)
        optimizer = _build_adam(config, recipe, groups)
        self._engine, self._optimizer, *_ = deepspeed.initialize(
            model=trained, optimizer=optimizer, config=values, dist_init_required=False
        )
        # DeepSpeed casts buffers too; in bfloat16 the frequencies of rotary positions are wrong beyond some hundred.
        for name, buffer in trained.named_buffers():
            buffer.data = buffers[name].to(device)
        self._trained = {name: one for name, one in trained.named_parameters() if one.requires_grad}
        self._whole = [one for name, one in trained.named_parameters() if not name.startswith("llm.")]
        if config.zero_stage == 3:
            _persist(self._optimizer, self._whole)
        self._state = ShardedState(self._optimizer, self._trained, config.zero_stage, processes)

    def _divide(self, deepspeed: Any, trained: nn.Module, values: dict[str, Any], llm_weights: TensorFile) -> None:
        """Divide all that DeepSpeed knows, and give the LLM's parameters their values meanwhile, one by one.

        DeepSpeed hands out what the main process has, so only that reads; no process holds more of the LLM than its
        share and one parameter.
        """
        zero = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=values, dtype=self._dtype)
        for name, parameter in self._model.llm.named_parameters():
            if self.processes.is_main:
                whole = llm_weights.read(name).to(self._dtype)
            else:
                whole = torch.empty(parameter.shape, dtype=self._dtype)
            # The parameter stays the object that optimizer groups and tied modules hold.
            torch.utils.swap_tensors(  # type: ignore[no-untyped-call]
                parameter, nn.Parameter(whole, parameter.requires_grad)
            )
            zero._convert_to_zero_parameters([parameter])
        for parameter in trained.parameters():
            if not hasattr(parameter, "ds_id"):
                parameter.data = parameter.data.to(self._dtype)
                zero._convert_to_zero_parameters([parameter])

    def losses(self, batch: Batch | None) -> tuple[Tensor, Tensor]:
        """The mean loss over the batch's labelled positions; of every sample its sum and their number.

        Where there is no batch, the mean is that of one padding token.
        """
        num_samples = 0 if batch is None else len(batch.input_ids)
        batch = batch or _stand_in()
        if batch.images is None:
            batch = self._add_blank_image(batch)
        if self._config.zero_stage == 3:
            _hold(self._whole)
        mean, by_sample = self._engine(move_batch(batch, self._device, self._dtype))
        return mean, by_sample[:num_samples]

    def backward(self, loss: Tensor, *, is_last: bool) -> None:
        """Add the loss's gradients to those of the step; the processes add theirs up."""
        self._engine.set_gradient_accumulation_boundary(is_last)
        # DeepSpeed takes the mean over processes where the step's loss is their sum.
        self._engine.backward(loss * self.processes.count, scale_wrt_gas=False)

    def step(self, rate_factor: float) -> float:
        """Clip, update and clear the step's gradients; return their norm before clipping."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["highest_rate"] * rate_factor
        norm = 0.0
        if self._config.zero_stage == 0:
            norm = nn.utils.clip_grad_norm_(self._trained.values(), self._max_gradient_norm).item()
        self._engine.step()
        return norm if self._config.zero_stage == 0 else float(self._engine.get_global_grad_norm())

    def save(self, folder: Path) -> Callable[[], None]:
        """Take this process's share of all weights and moments, whole parameters; return what writes it."""
        share = self._state.take()
        return lambda: write_state(folder, self.processes.rank, share)

    def load(self, folder: Path) -> None:
        """Read what any number of processes wrote, at any ZeRO stage.

        Raises:
            ArtifactError: it was written by another model.
        """
        self._state.put(read_state(folder, {name: _shape(one) for name, one in self._trained.items()}))

    def finish(self) -> None:
        """Give the main process's model the float32 weights, whole."""
        for name, parameter in self._trained.items():
            whole = self._state.weights(name).reshape(_shape(parameter))
            parameter.data = whole.cpu() if self.processes.is_main else whole.new_empty(0)

    def _add_blank_image(self, batch: Batch) -> Batch:
        """Add a sample of one blank image and no label to a batch without images.

        So every process runs every module that learns, as the others wait for it to do. The sample's gradients are
        zeros; frozen encoders are not run for it.
        """
        num_positions = self._model.num_image_positions
        length = max(batch.input_ids.shape[1], num_positions)
        more = (0, length - batch.input_ids.shape[1], 0, 1)
        ids = F.pad(batch.input_ids, more)
        ids[-1, :num_positions] = IMAGE_TOKEN_ID
        mask = F.pad(batch.attention_mask, more)
        mask[-1, :num_positions] = True
        return replace(
            batch,
            input_ids=ids,
            labels=F.pad(batch.labels, more, value=IGNORE_LABEL),
            attention_mask=mask,
            images=self._blank_image(),
        )

    def _blank_image(self) -> ImageBatch:
        sizes = torch.ones(1, 2, dtype=torch.long)
        if "encoders" in dict(self._engine.module.named_children()):
            sides = [spec.side for spec in self._model.image_specs]
            return ImageBatch([torch.zeros(1, 3, side, side) for side in sides], sizes)
        shapes = [shape for encoder in self._model.encoders for shape in encoder.map_shapes]  # type: ignore[union-attr]
        return ImageBatch([], sizes, [torch.zeros(1, channels, grid, grid) for channels, grid in shapes])


def deepspeed_config(
    config: DeepSpeedEngineConfig, recipe: Recipe, num_accumulation_steps: int, device: torch.device
) -> dict[str, Any]:
    """Return DeepSpeed's configuration."""
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": device.type == "cuda",
        "stage3_param_persistence_threshold": config.persistent_elements,
    }
    to_cpu = {"device": "cpu", "pin_memory": device.type == "cuda"}
    if config.offload != "none":
        zero["offload_optimizer"] = to_cpu
    if config.offload == "optimizer-and-parameters":
        zero["offload_param"] = to_cpu
    return {
        "train_batch_size": recipe.global_batch_size,
        "train_micro_batch_size_per_gpu": recipe.micro_batch_size,
        "gradient_accumulation_steps": num_accumulation_steps,
        # at stage 0 DeepSpeed clips but keeps the norm to itself
        "gradient_clipping": recipe.optimizer.max_gradient_norm if config.zero_stage else 0.0,
        "bf16": {"enabled": config.precision == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }


class _Trained(nn.Module):
    """The parts of a model that DeepSpeed knows, under their own names; called, it returns the whole model's losses."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__()
        self._whole = (model,)  # in a tuple, so that it is not registered
        for name, child in model.named_children():
            if name != "encoders" or any(one.requires_grad for one in child.parameters()):
                self.add_module(name, child)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._whole[0].losses(batch)


def _persist(optimizer: Any, parameters: Sequence[Any]) -> None:
    """Let DeepSpeed gather these weights again after each step, and leave them whole."""
    persistent = optimizer.persistent_parameters
    for parameter in parameters:
        if not parameter.ds_persist:
            parameter.ds_persist = True
            persistent.append(parameter)
    if persistent:
        persistent[0].all_gather(persistent)


def _hold(parameters: Sequence[Any]) -> None:
    """Keep persistent weights whole through a forward and a backward pass.

    While DeepSpeed learns the order of modules it releases persistent ones too, and would gather them for the backward
    pass by hooks on tensors that it does not find.
    """
    for parameter in parameters:
        parameter.ds_active_sub_modules.add(_HELD)


def _build_adam(
    config: DeepSpeedEngineConfig, recipe: Recipe, groups: Sequence[dict[str, Any]]
) -> torch.optim.Optimizer:
    settings = recipe.optimizer
    betas = (settings.beta1, settings.beta2)
    if config.adam == "deepspeed-cpu":
        from deepspeed.ops.adam import DeepSpeedCPUAdam

        optimizer: torch.optim.Optimizer = DeepSpeedCPUAdam(list(groups), betas=betas, eps=settings.epsilon)
        return optimizer
    return torch.optim.AdamW(list(groups), betas=betas, eps=settings.epsilon, foreach=True)


def _import_deepspeed() -> Any:
    """Import DeepSpeed (seconds), quietly, and without the operator that it would compile for processes on a CPU."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    try:
        import deepspeed
    except ImportError as error:
        raise ParamsError(
            f"training.engine is deepspeed, which cannot be imported ({error}): `make setup` installs it"
        ) from error
    deepspeed.utils.logger.setLevel(logging.WARNING)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _join_alone() -> None:
    """Make a group of one process where no launcher made one of many."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            store=torch.distributed.HashStore(),  # type: ignore[attr-defined]  # exported, says its documentation
            rank=0,
            world_size=1,
        )
    os.environ.setdefault("LOCAL_RANK", "0")
    import deepspeed

    deepspeed.init_distributed(dist_init_required=False)


def _stand_in() -> Batch:
    ids = torch.zeros(1, 2, dtype=torch.long)
    labels = torch.tensor([[IGNORE_LABEL, 0]])
    return Batch(ids, labels, torch.ones(1, 2, dtype=torch.bool), None)


def _shape(parameter: nn.Parameter) -> torch.Size:
    """The parameter's shape as a whole, where this process holds a part of it."""
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape
