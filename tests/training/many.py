"""One of several processes that train in turn with every engine of a plan: `python -m tests.training.many PLAN`.

The plan is JSON: the world's folder, and for each training its name, its engine, its recipe's changes, whether the
encoders learn, which encoder and which LLM it has, and after which step it ends as if killed.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from cambrian.models.config import ModelConfig
from cambrian.params import parse_block
from cambrian.runtime import RuntimeConfig
from cambrian.training.config import ConnectorMeaning, Recipe, TrainingConfig
from cambrian.training.phases import Phase, Places, train_phase
from tests.training import tiny

SVA: dict[str, Any] = {
    "kind": "sva", "side": 3, "depth": 1, "group_sides": [3], "dim": 16, "num_heads": 2, "max_window_side": 1,
    "in_llm": {"start": 0, "stride": 1, "count": 2}, "position_rms": None, "output_rms": None, "newline": True,
    "hide_padding": True,
}  # fmt: skip
MODEL = ModelConfig(
    encoders=("eye",),
    connector=parse_block(ConnectorMeaning, SVA, where="connector").root,
    llm="tongue",
    template="turns",
)
ADAMW = {
    "kind": "adamw", "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "max_gradient_norm": 1.0,
}  # fmt: skip
DEEPSPEED: dict[str, Any] = {
    "kind": "deepspeed", "recompute_activations": False, "zero_stage": 0, "precision": "float32", "offload": "none",
    "adam": "torch", "persistent_elements": 0,
}  # fmt: skip


class EndedError(Exception):
    """Stands for a process that ends without warning."""


def train_one(world: Path, values: dict[str, Any]) -> None:
    """Train as one entry of a plan says, into the folder of its name."""
    from cambrian.training import resumable

    output = world / values["name"]
    trained = {"connector", "llm", "encoders"} if values["train_encoders"] else {"connector", "llm"}
    recipe = parse_block(
        Recipe, {**tiny.RECIPE, "micro_batch_size": 2, "optimizer": ADAMW, **values["recipe"]}, where="recipe"
    )
    training = parse_block(TrainingConfig, {**tiny.LOCAL, "engine": values["engine"]}, where="training")
    steps = resumable._iter_steps

    def iter_some(*arguments: Any) -> Any:
        for number, step in enumerate(steps(*arguments)):
            if number == values["end_after"]:
                raise EndedError
            yield step

    resumable._iter_steps = iter_some
    try:
        train_phase(
            Phase("runs.x", frozenset(trained), initial=None, use_images=True, seed=0),
            MODEL.model_copy(update={"encoders": (values["encoder"],), "llm": values["llm"]}),
            recipe,
            RuntimeConfig(device="cpu", threads=1),
            training,
            Places(
                world / "backbones", world / "mix", world / "pool", output, output.with_suffix(".json"),
                output.with_suffix(".csv"),
            ),
        )  # fmt: skip
    except EndedError:
        assert values["end_after"] is not None
    finally:
        resumable._iter_steps = steps


def entry(name: str, engine: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """One training of a plan."""
    values = {"recipe": {}, "train_encoders": False, "encoder": "eye", "llm": "tongue", "end_after": None}
    return {"name": name, "engine": engine, **values, **changes}


def find_port() -> str:
    """A port on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def run_plan(world: Path, plan: list[dict[str, Any]], *, num_processes: int) -> None:
    """Start the processes of a plan, and wait for them."""
    path = world / f"plan-{num_processes}.json"
    path.write_text(json.dumps(plan))
    run_together(world, "tests.training.many", str(path), num_processes=num_processes)


def run_together(world: Path, module: str, argument: str, *, num_processes: int) -> None:
    """Run a module in processes that find each other, without a launcher, and wait until all have ended well."""
    port = find_port()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", module, argument],
            cwd=world,
            env={
                **tiny.stage_environment(), "RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": port,
                "WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "DS_ACCELERATOR": "cpu",
            },
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(num_processes)
    ]  # fmt: skip
    try:
        errors = [process.communicate(timeout=800)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * num_processes, "\n".join(
        error[-1500:] for error in errors
    )


def main() -> None:
    path = Path(sys.argv[1])
    for values in json.loads(path.read_text()):
        train_one(path.parent, values)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
