"""One of two processes under ZeRO-3: `python -m tests.training.divided WORLD` writes `found-RANK.json` into the world.

It reads an LLM whole and as an outline, and says what that took of memory and what came of it; and it saves onto a disk
that is full for the second process.
"""

from __future__ import annotations

import ctypes
import gc
import json
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cambrian.interfaces import ArtifactError
from cambrian.models.tensor_files import read_tensors
from cambrian.models.weights import build_model, outline_model
from cambrian.params import parse_block
from cambrian.training.checkpoints import Checkpoints, Progress
from cambrian.training.config import Recipe, TrainingConfig
from cambrian.training.engines import build_engine
from cambrian.training.processes import join_processes
from tests.training import many, tiny

if TYPE_CHECKING:
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.models.tensor_files import TensorFile
    from cambrian.training.engine import Engine
    from cambrian.training.processes import Processes


_M_MMAP_THRESHOLD = -3
"""Of malloc.h; setting it keeps it from growing."""


def read(world: Path, processes: Processes, *, as_outline: bool) -> tuple[MultimodalModel, Engine]:
    """Read the model and give it to the engine, as a phase does that trains the connector."""
    recipe = parse_block(Recipe, {**tiny.RECIPE, "micro_batch_size": 2, "optimizer": many.ADAMW}, where="recipe")
    training = parse_block(
        TrainingConfig, {**tiny.LOCAL, "engine": {**many.DEEPSPEED, "zero_stage": 3}}, where="training"
    )
    weights: TensorFile | None = None
    if as_outline:
        model, weights = outline_model(many.MODEL, backbones=world / "backbones", seed=0, initial=None)
    else:
        model = build_model(many.MODEL, backbones=world / "backbones", seed=0)
    model.set_trainable({"connector"})
    device = torch.device("cpu")
    engine = build_engine(training.engine, model, recipe, processes=processes, device=device, llm_weights=weights)
    return model, engine


def count_differences(world: Path, model: MultimodalModel) -> list[str]:
    """The LLM's parameters that are not to the bit what its file has."""
    import deepspeed

    expected = read_tensors(world / "backbones" / "tongue" / "model.safetensors")
    different = []
    for name, parameter in model.llm.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter]):
            if not torch.equal(parameter, expected[name]):
                different.append(name)
    return different


def memory_mib(what: str) -> float:
    """`VmRSS`, what this process holds, or `VmHWM`, the most since `forget_peak`."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def forget_peak() -> None:
    """Give back what earlier readings left, so that it neither counts nor makes room, and begin to look for a peak."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def save_with_a_full_disk(folder: Path, engine: Engine) -> dict[str, Any]:
    """Save twice; the second time the kernel refuses every file of the second process beyond a hundred bytes."""
    checkpoints = Checkpoints(folder, every_steps=1, num_kept=2)
    counted = {"num_samples": 0, "num_tokens": 0, "truncated": [], "unusable": {}}
    checkpoints.save(engine, Progress(1, [(1, 0.5)], counted))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not engine.processes.is_main:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    error = ""
    try:
        checkpoints.save(engine, Progress(2, [(1, 0.5), (2, 0.5)], counted))
    except ArtifactError as caught:
        error = str(caught)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    newest = checkpoints.load_newest(engine)
    return {"error": error, "goes_on_after": newest and newest.num_steps}


def return_freed_memory() -> None:
    """Let malloc give blocks back at once, as it does with the parameters of a real LLM.

    It keeps those below a limit that grows to 32 MiB, and what it keeps of this small LLM's parameters of a megabyte
    depends on the order of what is freed: half a model in one run, nothing in the next.
    """
    assert ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024) == 1


def main() -> None:
    return_freed_memory()
    world = Path(sys.argv[1])
    processes = join_processes()
    read(world, processes, as_outline=True)  # imports are no part of what is measured
    found: dict[str, Any] = {}
    for name in ("outline", "whole"):
        forget_peak()
        before = memory_mib("VmRSS")
        model, engine = read(world, processes, as_outline=name == "outline")
        found[f"{name}_mib"] = memory_mib("VmHWM") - before
        found[f"{name}_different"] = count_differences(world, model)
    found |= save_with_a_full_disk(world / "checkpoints", engine)
    (world / f"found-{processes.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
