"""Processes under a launcher that are stopped, killed, or of which one alone has a fault: all end, nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]  # DVC depends on it; its stubs are a package of their own
import pytest
import torch

from cambrian.artifacts import read_manifest
from cambrian.interfaces import Record, Turn
from cambrian.models.tensor_files import read_tensors, write_tensors
from cambrian.training.checkpoints import TERMINATED
from cambrian.training.processes import RANK
from cambrian.training.sampler import deal, iter_batches
from tests.training import many, tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
TORCHRUN = [str(BIN / "torchrun"), "--nproc-per-node", "2", "--master-port"]
DEEPSPEED = [str(BIN / "deepspeed"), "--num_accelerators", "2", "--no_local_rank", "--master_port"]
PATIENCE_S = 300
"""Within it all processes have to be gone; a busy machine needs half a minute."""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which no process is left over."""
    monkeypatch.delenv(RANK, raising=False)  # the tests themselves may run under a launcher
    yield tmp_path
    left = find_living(tmp_path)
    for process in left:
        process.kill()
    assert not left


def write_world(world: Path, records: list[Record], launcher: list[str], last: str, **recipe: Any) -> None:
    tiny.write_backbones(world / "backbones")
    tiny.write_data(world, records)
    write_params(world, launcher, last, **recipe)


def write_params(world: Path, launcher: list[str], last: str, **recipe: Any) -> None:
    training = {
        **tiny.LOCAL, "launch": [*launcher, many.find_port(), last], "engine": {**many.DEEPSPEED, "zero_stage": 2}
    }  # fmt: skip
    tiny.write_params(world, training=training, optimizer=many.ADAMW, micro_batch_size=2, **recipe)


def start(world: Path) -> subprocess.Popen[bytes]:
    with (world / "log").open("w") as log:
        return subprocess.Popen(
            tiny.stage_command("align"),
            cwd=world,
            env={**tiny.stage_environment(), "DS_ACCELERATOR": "cpu"},
            stdout=log,
            stderr=log,
        )


def find_living(world: Path) -> list[psutil.Process]:
    """Processes that work in this folder."""
    living = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == world:
                living.append(process)
        except psutil.Error:
            continue
    return living


def find_workers(world: Path) -> list[psutil.Process]:
    return [process for process in find_living(world) if RANK in process.environ()]


def wait_until_nobody_lives(world: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while find_living(world):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def saved_steps(world: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in world.glob("checkpoints/*/step-*"))


def wait_for_step(process: subprocess.Popen[bytes], world: Path, number: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not (saved := saved_steps(world)) or saved[-1] <= number:
        assert process.poll() is None, (world / "log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def written(world: Path) -> tuple[bytes, bytes]:
    return (world / "adapter" / "model.safetensors").read_bytes(), (world / "align.json").read_bytes()


def test_a_loss_that_is_not_finite_in_one_process_ends_both_and_its_records_are_kept(world: Path) -> None:
    records = tiny.make_records(12)
    third_step = list(iter_batches(12, 4, 1, seed=0))[2]
    first, second = (deal(third_step, 2, rank=rank, num_processes=2)[0] for rank in range(2))
    bad = records[second[0]]
    records[second[0]] = Record(
        id=bad.id, source=bad.source, image=bad.image, turns=(*bad.turns, Turn("human", "answer"), Turn("gpt", "it is"))
    )
    write_world(world, records, TORCHRUN, "-m")
    # the one word that no other record has is embedded as no number
    path = world / "backbones" / "tongue" / "model.safetensors"
    tensors = read_tensors(path)
    tensors["model.embed_tokens.weight"][tiny.TOKENS.index("answer")] = torch.nan
    write_tensors(path, tensors)
    assert read_manifest(path.parent)
    process = start(world)
    assert process.wait(timeout=PATIENCE_S) != 0
    wait_until_nobody_lives(world)
    named = [records[index].id for index in second]
    assert f"the loss is nan at step 3, records {', '.join(named)} " in (world / "log").read_text()
    (fault,) = world.glob("checkpoints/*/fault-*.json")
    assert fault.name == "fault-step-00000003-process-1.json"
    assert json.loads(fault.read_text())["records"] == named
    assert not set(named) & {records[index].id for index in first}
    assert saved_steps(world) == [2]
    assert not (world / "adapter").exists()


def test_processes_that_are_killed_or_stopped_go_on_and_end_in_the_same_bytes(world: Path) -> None:
    settings = {"epochs": 40, "checkpoints": {"folder": "checkpoints", "every_steps": 10, "num_kept": 2}}
    write_world(world, tiny.make_records(12), TORCHRUN, "-m", **settings)
    whole = start(world)
    assert whole.wait(timeout=PATIENCE_S) == 0, (world / "log").read_text()
    expected = written(world)
    subprocess.run(["rm", "-r", "adapter", "align.json"], cwd=world, check=True)

    process = start(world)
    wait_for_step(process, world, 0)
    find_workers(world)[1].kill()
    assert process.wait(timeout=PATIENCE_S) != 0
    wait_until_nobody_lives(world)
    killed_at = saved_steps(world)[-1]

    write_params(world, DEEPSPEED, "--module", **settings)
    process = start(world)
    wait_for_step(process, world, killed_at)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=PATIENCE_S) == TERMINATED
    wait_until_nobody_lives(world)
    log = (world / "log").read_text()
    assert f"going on after step {killed_at}" in log
    stopped_at = saved_steps(world)[-1]
    assert log.count(f"terminated after step {stopped_at}, which is saved") == 2
    assert not (world / "adapter").exists()

    process = start(world)
    wait_for_step(process, world, stopped_at)
    workers = find_workers(world)
    for worker in workers:
        worker.suspend()
    for one in find_living(world):
        if one not in workers and one.pid != process.pid:
            one.kill()  # DeepSpeed's launcher, both halves
    assert process.wait(timeout=PATIENCE_S) == 128 + signal.SIGKILL
    for worker in workers:  # nobody ends them but who starts again, as the docs say
        worker.terminate()
        worker.resume()
    wait_until_nobody_lives(world)
    left_at = saved_steps(world)[-1]
    assert left_at > stopped_at
    assert not (world / "adapter").exists()

    write_params(world, TORCHRUN, "-m", **settings)
    assert start(world).wait(timeout=PATIENCE_S) == 0
    assert f"going on after step {left_at}" in (world / "log").read_text()
    assert written(world) == expected
