"""Cambrian-8B with random weights on one GPU, in the form of either training phase: tokens a second, share of the peak.

    python -m benchmarks.model_8b --phase align
    python -m benchmarks.model_8b --phase finetune
    python -m benchmarks.model_8b --phase finetune --without-optimizer

A step is the training's own: loop, DeepSpeed engine, packed rows in bfloat16, the paper's recipe, an update after all
micro batches. The LLM has its ten aggregators and the connector before it; encoders are left out: they are frozen, and
their features are drawn at random. In the second phase the optimizer's state (12 bytes a weight) lies in the machine's
memory, with sums of gradients (4 bytes) beside it: 130 GB for 8 billion weights. A machine with less measures forward
and backward passes alone. There is no other form to compare with; the share of the GPU's peak is what a reader can
compare, and operations that run twice do not count into it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.machine import describe_machine
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch
from cambrian.models.aggregator import AggregatorLayer
from cambrian.params import parse_block, read_yaml
from cambrian.planning.config import SampleConfig
from cambrian.training.config import DeepSpeedEngineConfig, Recipe
from cambrian.training.engines import build_engine
from cambrian.training.loop import train
from cambrian.training.processes import Processes

if TYPE_CHECKING:
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.release.config import ReleaseConfig

NAME = "cambrian-8b"
SCALE = Path(__file__).parents[1] / "scales" / "paper.yaml"
"""Says how long samples are and how the phases train."""


@dataclass(frozen=True)
class Form:
    """One phase of training."""

    trained: frozenset[str]
    samples: str
    """The pool whose lengths the scale assumes."""
    recipe: str
    offload: str
    goal: float
    """Share of the GPU's peak (the issue)."""


FORMS = {
    "align": Form(frozenset({"connector"}), "alignment", "align-final", offload="none", goal=0.40),
    "finetune": Form(frozenset({"connector", "llm"}), "instruction", "final", offload="optimizer", goal=0.45),
}

PEAK_FLOPS = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}
"""Dense bfloat16 operations a second by the beginning of the device's name. Source: the maker's data sheets."""


def build(config: ReleaseConfig, *, device: str, dtype: torch.dtype) -> MultimodalModel:
    """Build a released model without encoders, with small random weights."""
    from cambrian.models.connector import TokenLayout
    from cambrian.release.building import build_on_meta

    model = build_on_meta(config, config.shapes()).to(dtype).to_empty(device=device)
    # what is computed rather than learned had no values on the meta device
    rotary = model.llm.model.rotary_emb
    model.llm.model.rotary_emb = type(rotary)(config=model.llm.config).to(device)
    layout = TokenLayout(config.connector(), num_tokens=config.image_token_len, dim=config.hidden_size)
    model.layout.token_index = layout.token_index.to(device)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.02)
            else:
                parameter.fill_(1.0)
    return model.train()


def make_batch(config: ReleaseConfig, model: MultimodalModel, about: SampleConfig, *, samples: int) -> Batch:
    """Draw samples of one square image and the assumed length of text each; the last tokens are labelled."""
    image = model.num_image_positions
    length = image + round(about.text_tokens)
    parameter = next(model.parameters())
    device, dtype = parameter.device, parameter.dtype
    ids = torch.randint(0, model.llm.config.vocab_size, (samples, length), device=device)
    ids[:, 1 : 1 + image] = IMAGE_TOKEN_ID
    num_labelled = min(round(about.labelled_share * about.text_tokens), length - image - 1)
    labels = torch.full_like(ids, IGNORE_LABEL)
    labels[:, -num_labelled:] = ids[:, -num_labelled:]
    features = [
        torch.randn(samples, shape.channels, shape.grid, shape.grid, device=device, dtype=dtype)
        for shape in config.shapes()
    ]
    images = ImageBatch(pixels=[], sizes=torch.tensor([[768, 768]] * samples, device=device), features=features)
    return Batch(ids, labels, torch.ones_like(ids, dtype=torch.bool), images)


def fuse(model: MultimodalModel, *, is_fused: bool) -> None:
    """Let all aggregators use the Triton kernel, or not."""
    for module in model.modules():
        if isinstance(module, AggregatorLayer):
            module.is_fused = is_fused


def count_flops(model: MultimodalModel, batch: Batch) -> int:
    """Return the operations of one forward and backward pass as the model needs them: nothing runs twice."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(model.loss(batch))
    return int(counter.get_total_flops())


def time_passes(model: MultimodalModel, batch: Batch, *, steps: int) -> list[float]:
    """Return the seconds of each forward and backward pass after the first, which compiles."""
    times = []
    for _ in range(steps + 1):
        model.zero_grad(set_to_none=True)
        started = _now()
        torch.autograd.backward(model.loss(batch))
        times.append(_now() - started)
    return times[1:]


def time_steps(
    model: MultimodalModel, batch: Batch, engine: DeepSpeedEngineConfig, recipe: Recipe, *, steps: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of each whole step after the first, and the loss of every step, all on one batch."""
    device = batch.input_ids.device
    ready = build_engine(engine, model, recipe, processes=Processes(0, 1), device=device)
    micro_batches = [batch] * (recipe.global_batch_size // recipe.micro_batch_size)
    times = [_now()]
    curve = train(
        ready,
        [micro_batches] * (steps + 1),
        num_steps=steps + 1,
        rate_factor=lambda step: 1.0,
        what="model_8b",
        before=[],
        first_step=0,
        after_batch=lambda batch, by_sample: None,
        after_step=lambda num_done, curve: times.append(_now()),
        write_fault=lambda step, values: Path("nowhere: losses of random weights are not kept"),
    )
    return [after - before for before, after in itertools.pairwise(times[1:])], [loss for _, loss in curve]


def _now() -> float:
    """The time at which all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_flops(device_name: str) -> float:
    """Return the device's dense bfloat16 peak in operations a second.

    Raises:
        ValueError: a device whose peak is not known.
    """
    for beginning, peak in PEAK_FLOPS.items():
        if device_name.startswith(beginning):
            return peak
    raise ValueError(f"the peak of {device_name} is not known, only of {', '.join(PEAK_FLOPS)}: add its data sheet's")


def read_form(form: Form, *, samples: int, micro_batches: int) -> tuple[SampleConfig, Recipe]:
    """Return what the scale says of the phase's samples and training, for this batch."""
    scale = read_yaml(SCALE)
    about = parse_block(SampleConfig, scale["forecast"]["samples"][form.samples], where=f"samples.{form.samples}")
    batch = {"micro_batch_size": samples, "global_batch_size": samples * micro_batches}
    recipe = parse_block(Recipe, {**scale["recipes"][form.recipe], **batch}, where=f"recipes.{form.recipe}")
    return about, recipe


def measure(
    config: ReleaseConfig,
    form: Form,
    engine: DeepSpeedEngineConfig | None,
    *,
    samples: int,
    micro_batches: int,
    steps: int,
    fused: bool,
    device: str,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Time steps under an engine, or without one passes alone; operations are those of the passes in both."""
    about, recipe = read_form(form, samples=samples, micro_batches=micro_batches)
    model = build(config, device=device, dtype=dtype)
    model.set_trainable(set(form.trained))
    # before the kernel is switched on, into which the counter does not see; samples see only themselves, so each costs
    # what the second does, and rows that would not fit beside whole gradients are counted too
    one, two = (count_flops(model, make_batch(config, model, about, samples=count)) for count in (1, 2))
    flops = one + (samples - 1) * (two - one)
    model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # counting took memory that no step takes
    fuse(model, is_fused=fused)
    batch = make_batch(config, model, about, samples=samples)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    losses: list[float] = []
    if engine is None:
        micro_batches = 1
        seconds = statistics.median(time_passes(model, batch, steps=steps))
    else:
        times, losses = time_steps(model, batch, engine, recipe, steps=steps)
        seconds = statistics.median(times)
    return {
        "tokens_per_second": round(micro_batches * batch.input_ids.numel() / seconds),
        "seconds_per_step": round(seconds, 4),
        "flops_per_step": flops * micro_batches,
        "flops_per_second": flops * micro_batches / seconds,
        "losses": losses,
        "sizes": {
            "trained_weights": trained,
            "samples": samples,
            "micro_batches": micro_batches,
            "tokens_per_sample": batch.input_ids.shape[1],
            "fused": fused,
            "engine": None if engine is None else engine.model_dump(mode="json"),
        },
    }


def main() -> None:
    """Measure, and print one JSON object as the last line.

    Raises:
        SystemExit: there is no GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda"], default="cuda")
    parser.add_argument("--phase", choices=list(FORMS), default="finetune")
    parser.add_argument("--samples", type=int, default=4, help="in a packed row")
    parser.add_argument("--micro-batches", type=int, default=16, help="rows of a step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps or passes, of which the median counts")
    parser.add_argument("--zero-stage", type=int, default=2)
    parser.add_argument("--offload", help="as in params; the phase's own otherwise")
    parser.add_argument("--recompute", action="store_true", help="keep only each LLM layer's input")
    parser.add_argument("--without-optimizer", action="store_true", help="forward and backward passes alone")
    parser.add_argument("--fused", action="store_true", help="use the Triton kernel in the aggregators")
    parser.add_argument("--output", type=Path, help="also write the result here, indented")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.model_8b: torch finds no CUDA device here, so nothing was measured")
    from cambrian.release.config import read_released

    form = FORMS[args.phase]
    peak = peak_flops(torch.cuda.get_device_name())
    offload = args.offload or form.offload
    engine = None
    if not args.without_optimizer:
        values = {
            "kind": "deepspeed",
            "recompute_activations": args.recompute,
            "zero_stage": args.zero_stage,
            "precision": "bfloat16",
            "offload": offload,
            "adam": "torch" if offload == "none" else "deepspeed-cpu",
            "persistent_elements": 100_000,
        }
        engine = parse_block(DeepSpeedEngineConfig, values, where="engine")
    found = measure(
        read_released(NAME),
        form,
        engine,
        samples=args.samples,
        micro_batches=args.micro_batches,
        steps=args.steps,
        fused=args.fused,
        device="cuda",
        dtype=torch.bfloat16,
    )
    utilisation = found["flops_per_second"] / peak
    report = {
        "name": "model_8b",
        "phase": args.phase,
        "ratio": round(utilisation, 3),
        "goal": form.goal,
        "meets": utilisation >= form.goal and engine is not None,
        **found,
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
        "host_peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
        "machine": describe_machine("cuda"),
        "command": " ".join(["python -m benchmarks.model_8b", *sys.argv[1:]]),
    }
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
