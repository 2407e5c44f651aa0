"""The two training phases: one function, which two sets of values call."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.utils import deterministic

from cambrian.artifacts import write_folder, write_json
from cambrian.data.loading import open_images
from cambrian.data.mapped_records import map_records
from cambrian.data.tokenizer import read_tokenizer
from cambrian.interfaces import ParamsError
from cambrian.models.weights import build_model, load_weights, outline_model, read_stored, write_model
from cambrian.release.templates import find_template
from cambrian.runtime import generator_seed, logged_step
from cambrian.training.checkpoints import Checkpoints, fingerprint
from cambrian.training.engines import build_engine, check_processes, divides_llm
from cambrian.training.features import FeatureCache
from cambrian.training.loop import mean_final_loss
from cambrian.training.processes import LOCAL_RANK, join_processes
from cambrian.training.resumable import train_resumably
from cambrian.training.samples import Samples
from cambrian.training.watch import Watch, count_flops_per_token

if TYPE_CHECKING:
    from cambrian.data.loading import LoadingConfig
    from cambrian.models.config import ModelConfig
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.models.tensor_files import TensorFile
    from cambrian.runtime import RuntimeConfig
    from cambrian.training.config import Recipe, RunRow, TrainingConfig

_log = logging.getLogger("cambrian")

_NUM_LOSS_DIGITS = 6
_LIBRARY = Path(__file__).parents[1]
_CODE = ("data/**/*.py", "models/**/*.py", "training/**/*.py", "release/templates.py")
"""Sources of which a change makes a checkpoint useless."""


@dataclass(frozen=True, slots=True)
class Phase:
    """What differs between the phases of training, and between two rows of one phase."""

    name: str
    """The row's table and name, for messages and for the seed."""
    trained: frozenset[str]
    """Parts that learn; they are what the phase writes."""
    initial: Path | None
    """A folder whose parts replace those of the fresh model: the adapter; None starts from the backbones alone."""
    use_images: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Places:
    """Where a phase finds and leaves its files."""

    backbones: Path
    data: Path
    """A mix's folder."""
    pool: Path
    """The pool whose shards hold the mix's images."""
    output: Path
    metrics: Path
    curve: Path | None
    """Where the loss of every step goes (CSV), if anywhere."""


def train_phase(
    phase: Phase,
    model_config: ModelConfig,
    recipe: Recipe,
    runtime: RuntimeConfig,
    training: TrainingConfig,
    at: Places,
) -> None:
    """Train a model's parts on a mix, and write them with the phase's metrics.

    A mix of no records writes the parts as they start: the adapter of a run without a first phase.

    Raises:
        ParamsError: the recipe does not suit the phase, or the loss was not finite.
        ArtifactError: something that the phase reads is missing, unfinished or of another model, or more records than
            the recipe allows cannot be used.
    """
    processes = join_processes()
    check_processes(training.engine, recipe, processes)
    device = use_device(runtime, generator_seed(phase.seed, phase.name))
    with logged_step(f"{phase.name}: read"):
        model, llm_weights = _read_model(phase, model_config, training, at)
        samples = _read_samples(phase, model, model_config, recipe, training.loading, at)
    model.set_trainable(set(phase.trained))
    num_weights = sum(parameter.numel() for parameter in model.parts()["llm"])
    flops = count_flops_per_token(num_weights, learns="llm" in phase.trained)
    # as `model.to(device)`, which an outline's parameters refuse
    model._apply(lambda tensor: tensor if tensor.is_meta else tensor.to(device))  # type: ignore[no-untyped-call]
    model.train()
    checkpoints = _find_checkpoints(phase, model, model_config, recipe, training, at)
    engine = build_engine(training.engine, model, recipe, processes=processes, device=device, llm_weights=llm_weights)
    watch = Watch(training.watch, what=phase.name, processes=processes, flops_per_token=flops)
    curve = train_resumably(
        engine,
        samples,
        recipe,
        checkpoints,
        watch,
        what=phase.name,
        seed=phase.seed,
        num_steps_ahead=training.loading.num_steps_ahead,
    )
    engine.finish()
    if processes.is_main:
        _write(phase, model, model_config, samples, curve, at)
        checkpoints.remove()
    processes.gather(None)  # nobody ends, and none of them starts again, before the output is there


def _write(
    phase: Phase,
    model: MultimodalModel,
    model_config: ModelConfig,
    samples: Samples,
    curve: list[tuple[int, float]],
    at: Places,
) -> None:
    metrics = {
        "records": len(samples),
        "steps": len(curve),
        "samples": samples.num_samples,
        "tokens": samples.num_tokens,
        "final_loss": _round(mean_final_loss(curve)),
        "truncated_records": samples.num_truncated,
        "unusable_records": len(samples.unusable),
        "unusable": dict(sorted(samples.unusable.items())),
    }
    with write_folder(at.output, phase=phase.name, **metrics) as folder:
        write_model(folder, model, model_config, set(phase.trained))
    write_json(at.metrics, metrics)
    if at.curve is not None:
        write_curve(at.curve, curve)
    _log.info("%s: %s steps, final loss %s", phase.name, metrics["steps"], metrics["final_loss"])


def check_adapter(adapter: Path, name: str, row: RunRow, template: str) -> ModelConfig:
    """The model that an adapter was trained in, which is the model of the run that starts from it.

    Raises:
        ParamsError: the run has other encoders, another LLM or another template than its adapter.
        ArtifactError: the adapter is missing or unfinished.
    """
    config = read_stored(adapter).config
    for what, found, expected in (
        ("encoders", ", ".join(row.encoder_names), ", ".join(config.encoders)),
        ("llm", row.llm, config.llm),
        ("llm's template", template, config.template),
    ):
        if found != expected:
            raise ParamsError(
                f"runs.{name}.{what}: found {found}, but its adapter {row.adapter} was trained with {expected}: "
                "choose an adapter of the same encoders and LLM, or add one to adapters"
            )
    return config


def use_device(runtime: RuntimeConfig, seed: int) -> torch.device:
    """Set threads, seed and deterministic algorithms for this process; return the device.

    Raises:
        ParamsError: the device is not there.
    """
    device = torch.device(runtime.device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ParamsError(f"runtime.device: found {runtime.device!r}, and this machine shows torch no such device")
        if LOCAL_RANK in os.environ:  # one device per process
            device = torch.device("cuda", int(os.environ[LOCAL_RANK]))
        torch.cuda.set_device(device)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it CUDA's matrix products are not repeatable
    torch.set_num_threads(runtime.threads)
    # What torch.use_deterministic_algorithms does, without importing torch's compiler for its flag (1.2 s a process).
    torch._C._set_deterministic_algorithms(True, warn_only=False)
    # Filling costs 3% of a step, and nothing of ours reads memory that it has not written.
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    return device


def write_curve(path: Path, curve: list[tuple[int, float]]) -> None:
    """Write a loss curve as CSV; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    lines = [f"{step},{_round(loss)}\n" for step, loss in curve]
    try:
        partial.write_text("".join(["step,loss\n", *lines]), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _read_model(
    phase: Phase, model_config: ModelConfig, training: TrainingConfig, at: Places
) -> tuple[MultimodalModel, TensorFile | None]:
    """The model at its start; where the engine divides the LLM, without its weights, beside the file that has them."""
    if divides_llm(training.engine):
        return outline_model(model_config, backbones=at.backbones, seed=phase.seed, initial=phase.initial)
    model = build_model(model_config, backbones=at.backbones, seed=phase.seed)
    if phase.initial is not None:
        load_weights(model, phase.initial)
    return model, None


def _read_samples(
    phase: Phase,
    model: MultimodalModel,
    model_config: ModelConfig,
    recipe: Recipe,
    loading: LoadingConfig,
    at: Places,
) -> Samples:
    return Samples(
        map_records(at.data, Path(loading.folder)),
        open_images(at.pool, loading).read,
        specs=model.image_specs,
        num_image_positions=model.num_image_positions,
        template=find_template(model_config.template),
        tokenizer=read_tokenizer(at.backbones / model_config.llm),
        use_images=phase.use_images,
        max_length=recipe.max_length,
        max_unusable_share=recipe.max_unusable_share,
        image_cache_mib=recipe.image_cache_mib,
        num_workers=loading.num_workers,
        features=_cache_features(phase, model, recipe),
    )


def _find_checkpoints(
    phase: Phase,
    model: MultimodalModel,
    model_config: ModelConfig,
    recipe: Recipe,
    training: TrainingConfig,
    at: Places,
) -> Checkpoints:
    """The checkpoints of a phase with these inputs and this code.

    Threads, device and number of processes may change on the way, and all of an engine but its kind.
    """
    values = {
        "phase": {"name": phase.name, "trained": sorted(phase.trained), "images": phase.use_images, "seed": phase.seed},
        "model": model_config.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json", exclude={"checkpoints", "image_cache_mib"}),
        "backbones": model.backbone_hashes,
        "engine": training.engine.kind,
    }
    folders = [at.data, at.pool, *([phase.initial] if phase.initial else [])]
    code = [path for pattern in _CODE for path in _LIBRARY.glob(pattern)]
    key = fingerprint(values, folders, code)
    return Checkpoints(
        Path(recipe.checkpoints.folder) / f"{phase.name}-{key}",
        every_steps=recipe.checkpoints.every_steps,
        num_kept=recipe.checkpoints.num_kept,
    )


def _cache_features(phase: Phase, model: MultimodalModel, recipe: Recipe) -> FeatureCache | None:
    """Where encoders do not learn and images come back, features are computed once."""
    if "encoders" in phase.trained or recipe.feature_cache_mib == 0:
        return None

    @torch.no_grad()
    def encode(pixels: list[torch.Tensor]) -> list[torch.Tensor]:
        weights = [next(encoder.parameters()) for encoder in model.encoders]
        moved = [views.to(own.device, own.dtype) for own, views in zip(weights, pixels, strict=True)]
        return model.encode_views(moved)

    return FeatureCache(encode, max_mib=recipe.feature_cache_mib)


def _round(loss: float | None) -> float | None:
    return None if loss is None else round(loss, _NUM_LOSS_DIGITS)
