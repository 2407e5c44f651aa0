"""The first linear layer of the ConvNeXt projector at the 8B model's size: before the resize of its maps, or after.

    python -m benchmarks.projector

Four stages of ConvNeXt-XXL at 1024 px are brought to one grid, joined, and projected to the aggregator's width. The
plain form resizes them all and then projects every place, as the release does. Ours projects the coarse stages on their
own grids. Both take turns in one process on one core, forward, and forward with a backward to the layer (the encoder is
frozen). Times are the process's own (seconds of processor, not of the clock), so that a neighbour counts little.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import describe_machine
from cambrian.models.joined_maps import JoinedLinear, join_maps
from cambrian.release.encoders import RELEASED_ENCODERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GOAL = 1.5
"""How many times faster than the plain form, forward and backward (the shared research, section 5)."""

EXACT = 1e-10
"""Largest difference of outputs and gradients in double precision."""

ENCODER = "clip-convnext-XXL-multi-stage"
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Sizes:
    """The maps of one image, and what becomes of them."""

    widths: tuple[int, ...]
    """Channels of every map."""
    grids: tuple[int, ...]
    """Places per side of every map."""
    side: int
    """Places per side that all are delivered on."""
    dim: int
    """Width that they are projected to."""

    def make_maps(self, dtype: torch.dtype) -> list[Tensor]:
        """Return features of one image, the same at every call."""
        generator = torch.Generator().manual_seed(0)
        shapes = zip(self.widths, self.grids, strict=True)
        return [torch.randn(1, width, grid, grid, generator=generator, dtype=dtype) for width, grid in shapes]

    def make_layer(self, dtype: torch.dtype) -> JoinedLinear:
        """Return a layer with fresh weights."""
        return JoinedLinear(sum(self.widths), self.dim, dtype=dtype)


def released_sizes() -> Sizes:
    """Return the sizes of the released 8B model, from the encoder's row."""
    row = RELEASED_ENCODERS[ENCODER]
    return Sizes(widths=row.widths, grids=row.native_grids, side=row.grid, dim=1024)  # `vision_hidden_size`


def project_after(layer: JoinedLinear, maps: Sequence[Tensor], side: int) -> Tensor:
    """Resize and join the maps, then project every place (release, `cambrian_arch.py`)."""
    joined = rearrange(join_maps(maps, side), "images channels row column -> images (row column) channels")
    return F.linear(joined, layer.weight, layer.bias)


def project_joined(layer: JoinedLinear, maps: Sequence[Tensor], side: int) -> Tensor:
    """Project each map where that is cheaper: the project's form."""
    projected: Tensor = layer(maps, side)
    return projected


FORMS: dict[str, Callable[[JoinedLinear, Sequence[Tensor], int], Tensor]] = {
    "plain": project_after,
    "ours": project_joined,
}


def largest_difference(sizes: Sizes) -> float:
    """Return by how much outputs and gradients of the two forms differ in double precision."""
    maps, layer = sizes.make_maps(torch.float64), sizes.make_layer(torch.float64)
    results = []
    for form in FORMS.values():
        output = form(layer, maps, sizes.side)
        direction = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
        results.append([output.detach(), *torch.autograd.grad(output, list(layer.parameters()), direction)])
    return max(float((one - other).abs().max()) for one, other in zip(*results, strict=True))


def count_flops(form: Callable[..., Tensor], layer: JoinedLinear, maps: Sequence[Tensor], side: int) -> int:
    """Return the operations of the matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        _backward(form(layer, maps, side))
    return int(counter.get_total_flops())


def kept_mebibytes(form: Callable[..., Tensor], layer: JoinedLinear, maps: Sequence[Tensor], side: int) -> float:
    """Return what the forward pass keeps for the backward pass, beside the weights and the encoder's maps."""
    given = {tensor.untyped_storage().data_ptr() for tensor in [*maps, *layer.parameters()]}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in given:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = form(layer, maps, side)  # alive until the sizes are summed, so that no address is used twice
    total = sum(kept.values())
    del output
    return total / MEBIBYTE


def measure(sizes: Sizes, *, repeats: int) -> dict[str, object]:
    """Compare both forms; the returned object is the benchmark's result.

    Raises:
        ValueError: the two forms do not agree, so that there is nothing to compare.
    """
    difference = largest_difference(sizes)
    if not difference <= EXACT:
        raise ValueError(f"the forms differ by {difference:.1e} in double precision, expected at most {EXACT:.0e}")
    maps, layer = sizes.make_maps(torch.float32), sizes.make_layer(torch.float32)
    seconds: dict[str, dict[str, list[float]]] = {name: {"forward": [], "both": []} for name in FORMS}
    for repeat in range(repeats + 1):
        for name, form in FORMS.items():
            layer.zero_grad()
            started = time.process_time()
            output = form(layer, maps, sizes.side)
            forward = time.process_time()
            _backward(output)
            ended = time.process_time()
            if repeat:  # the first is a warm-up
                seconds[name]["forward"].append(forward - started)
                seconds[name]["both"].append(ended - started)
    medians = {name: {part: statistics.median(times) for part, times in of.items()} for name, of in seconds.items()}
    ratios = {part: medians["plain"][part] / medians["ours"][part] for part in ("forward", "both")}
    flops = {name: count_flops(form, layer, maps, sizes.side) for name, form in FORMS.items()}
    kept = {name: kept_mebibytes(form, layer, maps, sizes.side) for name, form in FORMS.items()}
    return {
        "name": "projector",
        "ratio": round(ratios["both"], 2),
        "goal": GOAL,
        "meets": ratios["both"] >= GOAL and ratios["forward"] >= GOAL,
        "forward_ratio": round(ratios["forward"], 2),
        "cpu_seconds": {name: {part: round(value, 3) for part, value in of.items()} for name, of in medians.items()},
        "spread": {name: [round(min(of["both"]), 3), round(max(of["both"]), 3)] for name, of in seconds.items()},
        "repeats": repeats,
        "flops": flops,
        "flop_ratio": round(flops["plain"] / flops["ours"], 2),
        "reached_of_flop_ratio": round(ratios["both"] * flops["ours"] / flops["plain"], 2),
        "kept_mebibytes": {name: round(value, 1) for name, value in kept.items()},
        "largest_difference_float64": difference,
        "dtype": "float32",
        "sizes": asdict(sizes),
    }


def _backward(output: Tensor) -> None:
    torch.autograd.backward(output, torch.ones_like(output))


def main() -> None:
    """Measure at the released model's size on one core; the last line is the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="turns that each form takes, after one to warm up")
    repeats: int = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = measure(released_sizes(), repeats=repeats)
    for name in FORMS:
        part = {key: result[key][name] for key in ("cpu_seconds", "spread", "flops", "kept_mebibytes")}  # type: ignore[index]
        print(f"{name}: {part}")
    print(json.dumps({**result, "command": "python -m benchmarks.projector", "machine": describe_machine("cpu")}))


if __name__ == "__main__":
    main()
