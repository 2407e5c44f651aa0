"""The aggregator's 13 layers at the 8B model's size, against the form that projects every feature.

    python -m benchmarks.sva                                    one core, float32
    python -m benchmarks.sva --device cuda --dtype bfloat16     a GPU, with and without the kernel

Three layers before the LLM and ten inside it read the same windows of one image, forward and backward. The plain form
is the release's; its scripts run the ten layers inside the LLM under activation checkpointing, so it is measured with
and without. All forms share one set of parameters, and take turns in one process. Times on a CPU are the process's own
(seconds of processor, not of the clock), so that a neighbour on the machine counts little.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import describe_machine
from benchmarks.plain_aggregator import PlainAggregator
from cambrian.models.aggregator import Aggregator, AggregatorLayer, Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

OURS, THEIRS = ("ours", "fused"), ("checkpointed", "plain")

GOALS = {
    "cpu": {"checkpointed_to_ours": 2.3, "plain_to_ours": 2.0},
    "cuda": {"checkpointed_to_ours": 2.0, "checkpointed_to_fused": 3.0},
}
"""How many times longer the plain form is to take; `fused` is ours with the Triton kernel."""

MEMORY_GOAL = 0.25
"""Of what the plain form without checkpointing keeps for its backward pass."""

EXACT = 1e-10
"""Largest difference in double precision, relative to the largest value where that exceeds 1."""

MEBIBYTE = 2**20
PEAK_FILE, RESET_FILE, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs"), "5"


@dataclass(frozen=True)
class Sizes:
    """The dimensions of a stack of aggregators."""

    queries: int
    images: int
    dim: int
    llm_dim: int
    num_heads: int = 16
    window_sides: tuple[int, ...] = (1, 1, 1, 4)
    before_llm: int = 3
    inside_llm: int = 10

    @property
    def window_lengths(self) -> list[int]:
        """Features that a query sees of each encoder."""
        return [side**2 for side in self.window_sides]


class Stack(nn.Module):
    """The aggregators of a model, with inputs in place of what stands between them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.before = self._build(sizes.before_llm, sizes.dim)
        self.inside = nn.ModuleList(self._build(1, sizes.llm_dim) for _ in range(sizes.inside_llm))

    def _build(self, depth: int, query_dim: int) -> Aggregator:
        return Aggregator(
            depth=depth,
            query_dim=query_dim,
            dim=self.sizes.dim,
            context_dim=self.sizes.dim,
            window_sides=self.sizes.window_sides,
            num_heads=self.sizes.num_heads,
        )


@dataclass
class Inputs:
    """What a stack reads, and the gradient of what it gives."""

    visual: Tensor
    hidden: Tensor
    features: Tensor
    context: Tensor
    mask: Tensor | None
    gradients: tuple[Tensor, Tensor]

    @property
    def leaves(self) -> list[Tensor]:
        """The tensors that get gradients."""
        return [self.visual, self.hidden, self.features, self.context]


def make_inputs(sizes: Sizes, *, is_masked: bool, device: str, dtype: torch.dtype) -> Inputs:
    """Draw inputs of a stack; every image has its own context."""
    rows = sizes.queries * sizes.images

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    mask = None
    if is_masked:
        mask = torch.rand(rows, sum(sizes.window_lengths), device=device) < 0.7
        mask[:, 0] = True
    return Inputs(
        visual=draw(rows, sizes.dim).requires_grad_(),
        hidden=draw(rows, sizes.llm_dim).requires_grad_(),
        features=draw(rows, sum(sizes.window_lengths), sizes.dim).requires_grad_(),
        context=draw(sizes.images, sizes.dim).requires_grad_(),
        mask=mask,
        gradients=(draw(rows, sizes.dim), draw(rows, sizes.llm_dim)),
    )


def forward(form: str, stack: Stack, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Run the stack in one of the forms: `ours`, `fused`, `plain` or `checkpointed`."""
    sizes = stack.sizes
    context = inputs.context.repeat_interleave(sizes.queries, dim=0, output_size=sizes.queries * sizes.images)
    evidence = Evidence(inputs.features, inputs.mask, context)
    before: nn.Module = stack.before
    inside: list[nn.Module] = list(stack.inside)
    if form in OURS:
        for layer in stack.modules():
            if isinstance(layer, AggregatorLayer):
                layer.is_fused = form == "fused"
        rows = torch.full((sizes.images,), sizes.queries, device=context.device)
        evidence.standardised = evidence.standardise(sizes.window_lengths, rows_per_context=rows)
    else:
        before = PlainAggregator(stack.before, is_checkpointed=False)
        inside = [
            PlainAggregator(aggregator, is_checkpointed=form == "checkpointed")
            for aggregator in stack.inside
            if isinstance(aggregator, Aggregator)
        ]
    hidden = inputs.hidden
    for aggregator in inside:
        hidden = aggregator(hidden, evidence)
    return before(inputs.visual, evidence), hidden


def differences(forms: list[str]) -> float:
    """Return the largest relative difference of outputs and gradients from the plain form, in double precision.

    The stack has as many layers, heads and windows, fewer and narrower queries, two images, and a mask.
    """
    sizes = Sizes(queries=16, images=2, dim=256, llm_dim=512)
    torch.manual_seed(0)
    stack = Stack(sizes).double()
    inputs = make_inputs(sizes, is_masked=True, device="cpu", dtype=torch.float64)
    results = []
    for form in ["plain", *forms]:
        outputs = forward(form, stack, inputs)
        gradients = torch.autograd.grad(outputs, [*inputs.leaves, *stack.parameters()], inputs.gradients)
        results.append([*(output.detach() for output in outputs), *gradients])
    return max(
        float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
        for result in results[1:]
        for found, expected in zip(result, results[0], strict=True)
    )


def count_flops(form: str, sizes: Sizes) -> int:
    """Return the floating-point operations of the matrix products of a forward and backward pass, computing none."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        stack = Stack(sizes)
        inputs = make_inputs(sizes, is_masked=False, device="cpu", dtype=torch.float32)
        torch.autograd.backward(forward(form, stack, inputs), inputs.gradients)
    return int(counter.get_total_flops())


def count_kept_bytes(form: str, stack: Stack, inputs: Inputs) -> int:
    """Return the bytes that a forward pass keeps for the backward pass: unique storages, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in stack.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = forward(form, stack, inputs)
    del outputs  # lived until here, so that no storage was freed and counted under another one's address
    return sum(saved.values())


@dataclass
class Sample:
    """One forward and backward pass."""

    forward_s: float
    backward_s: float

    @property
    def total_s(self) -> float:
        """Both passes."""
        return self.forward_s + self.backward_s


def run_once(form: str, stack: Stack, inputs: Inputs) -> Sample:
    """Time one pass of a form; gradients of earlier passes are dropped before."""
    for tensor in [*inputs.leaves, *stack.parameters()]:
        tensor.grad = None
    gc.collect()
    device = inputs.features.device.type
    marks = [_mark(device)]
    outputs = forward(form, stack, inputs)
    marks.append(_mark(device))
    torch.autograd.backward(outputs, inputs.gradients)
    marks.append(_mark(device))
    return Sample(*_seconds(marks))


def measure_peak(form: str, sizes: Sizes, *, device: str, dtype: torch.dtype) -> int:
    """Return the most bytes that one pass takes beyond parameters and inputs; gradients of the parameters are in it.

    On a CPU this is resident memory, read in a process of its own, because an allocator keeps what it once had. The
    process is a new one, not a fork: a fork of a process whose threads hold locks may wait for them for ever.

    Raises:
        RuntimeError: the process ended without a number.
    """
    if device == "cuda":
        return _peak_of_pass(form, sizes, device, dtype)
    receiver, sender = (context := multiprocessing.get_context("spawn")).Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, form, sizes, dtype))
    process.start()
    sender.close()  # so that a child that fails ends the wait
    try:
        peak: int = receiver.recv()
    except EOFError as error:
        process.join()
        raise RuntimeError(f"the process that measures {form!r} ended with status {process.exitcode}") from error
    process.join()
    return peak


def _send_peak(sender: Connection, form: str, sizes: Sizes, dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    sender.send(_peak_of_pass(form, sizes, "cpu", dtype))


def _peak_of_pass(form: str, sizes: Sizes, device: str, dtype: torch.dtype) -> int:
    few = replace(sizes, queries=1)
    for queries in (few, sizes):  # what libraries take at their first use is no form's
        stack = Stack(queries).to(device, dtype)
        inputs = make_inputs(queries, is_masked=False, device=device, dtype=dtype)
        before = _reset_peak(device)
        run_once(form, stack, inputs)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else _status_bytes("VmHWM")
    return peak - before


def _reset_peak(device: str) -> int:
    """Let the peak begin anew; return what is taken now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    RESET_FILE.write_text(RESET_PEAK)
    return _status_bytes("VmRSS")


def _mark(device: str) -> float | torch.cuda.Event:
    if device == "cpu":
        return time.process_time()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _seconds(marks: list[float | torch.cuda.Event]) -> Iterator[float]:
    for first, second in itertools.pairwise(marks):
        if isinstance(first, float) and isinstance(second, float):
            yield second - first
        elif isinstance(first, torch.cuda.Event) and isinstance(second, torch.cuda.Event):
            second.synchronize()
            yield first.elapsed_time(second) / 1000


def _status_bytes(name: str) -> int:
    """Read one of the process's memory counters (Linux)."""
    (line,) = (line for line in PEAK_FILE.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


@dataclass(frozen=True)
class Measured:
    """What a run found."""

    ratios: dict[str, float]
    """`THEIRS_to_OURS`: how many times longer the first takes, the median over the rounds."""
    flops: dict[str, int]
    fraction_of_flop_ratio: dict[str, float]
    """How much of what the saved operations promise became time."""
    kept_mib: dict[str, float]
    """For the backward pass, parameters left out."""
    peak_mib: dict[str, float]
    """As `measure_peak` says."""
    samples: dict[str, list[Sample]]


def measure(forms: list[str], sizes: Sizes, *, device: str, dtype: torch.dtype, rounds: int) -> Measured:
    """Let the forms take turns."""
    torch.manual_seed(0)
    stack = Stack(sizes).to(device, dtype)
    inputs = make_inputs(sizes, is_masked=False, device=device, dtype=dtype)
    # also each form's first pass, which the times leave out; under checkpointing little is kept and more is used later
    kept = {form: count_kept_bytes(form, stack, inputs) for form in forms if form != "checkpointed"}
    peaks = {form: measure_peak(form, sizes, device=device, dtype=dtype) for form in forms}
    samples: dict[str, list[Sample]] = {form: [] for form in forms}
    for _ in range(rounds):
        for form in forms:
            samples[form].append(run_once(form, stack, inputs))
            print(f"{form}: {samples[form][-1]}", file=sys.stderr)
    ratios = {
        f"{other}_to_{mine}": statistics.median(
            slow.total_s / fast.total_s for slow, fast in zip(samples[other], samples[mine], strict=True)
        )
        for mine in forms
        if mine in OURS
        for other in THEIRS
    }
    flops = {form: count_flops(form, sizes) for form in forms if form != "fused"}
    return Measured(
        ratios=ratios,
        flops=flops,
        fraction_of_flop_ratio={other: ratios[f"{other}_to_ours"] / (flops[other] / flops["ours"]) for other in THEIRS},
        kept_mib={form: number / MEBIBYTE for form, number in kept.items()},
        peak_mib={form: number / MEBIBYTE for form, number in peaks.items()},
        samples=samples,
    )


def judge(result: Measured, difference: float, *, device: str) -> dict[str, object]:
    """Say by goal what was reached; `meets` is true only if every goal was."""
    reached = {**result.ratios, "kept_of_plain": result.kept_mib["ours"] / result.kept_mib["plain"]}
    goals = GOALS[device]
    is_met = {name: reached[name] >= goal for name, goal in goals.items()}
    is_met["kept_of_plain"] = reached["kept_of_plain"] <= MEMORY_GOAL
    is_met["largest_difference_float64"] = difference <= EXACT
    first, goal = next(iter(goals.items()))
    return {
        "name": "sva" if device == "cpu" else f"sva_{device}",
        "ratio": round(reached[first], 3),
        "goal": goal,
        "meets": all(is_met.values()),
        "goals": {**goals, "kept_of_plain": MEMORY_GOAL, "largest_difference_float64": EXACT},
        "reached": {name: round(value, 3) for name, value in reached.items()}
        | {"largest_difference_float64": difference},
        "is_met": is_met,
    }


def main() -> None:
    """Measure, and print one JSON object as the last line.

    Raises:
        SystemExit: a CUDA device is asked for where there is none.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--images", type=int, help="in one batch; 1 on a CPU and 8 on a GPU unless told")
    parser.add_argument("--rounds", type=int, default=2, help="passes of each form, in turn")
    parser.add_argument("--output", type=Path, help="also write the result here, indented")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("benchmarks.sva: torch finds no CUDA device here, so nothing was measured on one")
    torch.set_num_threads(1)
    forms = ["ours", "plain", "checkpointed"] + (["fused"] if args.device == "cuda" else [])
    sizes = Sizes(images=args.images or (1 if args.device == "cpu" else 8), queries=576, dim=1024, llm_dim=4096)
    machine = describe_machine(args.device)
    difference = differences(["ours", "checkpointed"])
    result = measure(forms, sizes, device=args.device, dtype=getattr(torch, args.dtype), rounds=args.rounds)
    judged = judge(result, difference, device=args.device)
    report = {
        **judged,
        **asdict(result),
        "sizes": asdict(sizes),
        "dtype": args.dtype,
        "machine": machine,
        "command": " ".join(["python -m benchmarks.sva", *sys.argv[1:]]),
    }
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
