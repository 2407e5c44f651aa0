"""Cambrian-8B with random weights on one GPU: tokens a second, and how much of the GPU's arithmetic that uses.

    python -m benchmarks.model_8b

The LLM with its ten aggregators, and the connector before it, forward and backward, on packed rows in bfloat16. The
encoders are left out: they are frozen, and their features are drawn at random. There is no other form to compare with;
the share of the GPU's peak is what a reader can compare.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.machine import describe_machine
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch
from cambrian.models.aggregator import AggregatorLayer

if TYPE_CHECKING:
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.release.config import ReleaseConfig

NAME = "cambrian-8b"
TOKENS_PER_SAMPLE = 714
"""Mean length that the project assumes in the second training phase: 600 positions of an image, and text."""

LABELLED_SHARE = 0.22
"""Of a sample's tokens, as assumed there."""

GOAL = 0.45
"""Of the GPU's peak, in the second training phase, where connector and LLM learn."""

PEAK_FLOPS = {"NVIDIA H200": 989e12, "NVIDIA H100": 989e12, "NVIDIA A100": 312e12}
"""Dense bfloat16 operations a second by the beginning of the device's name. Source: the maker's data sheets."""


def build(config: ReleaseConfig, *, device: str, dtype: torch.dtype) -> MultimodalModel:
    """Build a released model without encoders, with small random weights, connector and LLM trainable."""
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
    model.set_trainable({"connector", "llm"})
    return model.train()


def make_batch(config: ReleaseConfig, model: MultimodalModel, *, samples: int) -> Batch:
    """Draw samples of one square image and some text each; the last tokens are labelled."""
    image = model.num_image_positions
    length = max(TOKENS_PER_SAMPLE, image + 2)
    parameter = next(model.parameters())
    device, dtype = parameter.device, parameter.dtype
    ids = torch.randint(0, model.llm.config.vocab_size, (samples, length), device=device)
    ids[:, 1 : 1 + image] = IMAGE_TOKEN_ID
    num_labelled = min(round(LABELLED_SHARE * length), length - image - 1)
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


def time_step(model: MultimodalModel, batch: Batch) -> float:
    """Return the seconds of one forward and backward pass."""
    model.zero_grad(set_to_none=True)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    torch.autograd.backward(model.loss(batch))
    end.record()
    end.synchronize()
    seconds: float = start.elapsed_time(end) / 1000
    return seconds


def peak_flops(device_name: str) -> float:
    """Return the device's dense bfloat16 peak in operations a second.

    Raises:
        ValueError: a device whose peak is not known.
    """
    for beginning, peak in PEAK_FLOPS.items():
        if device_name.startswith(beginning):
            return peak
    raise ValueError(f"the peak of {device_name} is not known, only of {', '.join(PEAK_FLOPS)}: add its data sheet's")


def main() -> None:
    """Measure, and print one JSON object as the last line.

    Raises:
        SystemExit: there is no GPU.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda"], default="cuda")
    parser.add_argument("--samples", type=int, default=8, help="in the packed row")
    parser.add_argument("--steps", type=int, default=10, help="timed passes, of which the median counts")
    parser.add_argument("--fused", action="store_true", help="use the Triton kernel in the aggregators")
    parser.add_argument("--output", type=Path, help="also write the result here, indented")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.model_8b: torch finds no CUDA device here, so nothing was measured")
    from cambrian.release.config import read_released

    peak = peak_flops(torch.cuda.get_device_name())
    config = read_released(NAME)
    model = build(config, device="cuda", dtype=torch.bfloat16)
    batch = make_batch(config, model, samples=args.samples)
    flops = count_flops(model, batch)  # before the kernel is switched on, into which the counter does not see
    fuse(model, is_fused=args.fused)
    time_step(model, batch)  # the first compiles
    seconds = statistics.median(time_step(model, batch) for _ in range(args.steps))
    utilisation = flops / seconds / peak
    report = {
        "name": "model_8b",
        "ratio": round(utilisation, 3),
        "goal": GOAL,
        "meets": utilisation >= GOAL,
        "tokens_per_second": round(batch.input_ids.numel() / seconds),
        "seconds_per_step": round(seconds, 4),
        "flops_per_step": flops,
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
        "sizes": {"samples": args.samples, "tokens_per_sample": batch.input_ids.shape[1], "fused": args.fused},
        "machine": describe_machine("cuda"),
        "command": " ".join(["python -m benchmarks.model_8b", *sys.argv[1:]]),
    }
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
