from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.interfaces import ParamsError
from cambrian.models.tensor_files import read_tensors
from cambrian.params import parse_block
from cambrian.training.config import TrainingConfig
from cambrian.training.launch import ALONE, launch
from tests.training import many, tiny
from tests.training.test_engines import LOSS_TOLERANCE, WEIGHT_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

DEEPSPEED, TORCHRUN = (str(Path(sys.executable).parent / name) for name in ("deepspeed", "torchrun"))


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves may run under one."""
    monkeypatch.delenv("RANK", raising=False)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains."""
    world = tmp_path_factory.mktemp("alone")
    write_world(world, tiny.LOCAL)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RANK", raising=False)
        done = tiny.run_stage_in(world, "align")
    assert done.returncode == 0, done.stderr
    return world


def write_world(world: Path, training: dict[str, Any]) -> None:
    tiny.write_backbones(world / "backbones")
    tiny.write_data(world, tiny.make_records(12), broken=["r5"])
    tiny.write_params(world, training=training, optimizer=many.ADAMW, micro_batch_size=2)


def under(command: list[str]) -> dict[str, Any]:
    return {**tiny.LOCAL, "launch": command, "engine": {**many.DEEPSPEED, "zero_stage": 2}}


def check_same(world: Path, alone: Path) -> None:
    found, expected = (json.loads((one / "align.json").read_text()) for one in (world, alone))
    assert found.pop("final_loss") == pytest.approx(expected.pop("final_loss"), abs=LOSS_TOLERANCE)
    assert found == expected
    assert found["unusable"] == {"r5": "undecodable-image"}
    ours, whole = (read_tensors(one / "adapter" / "model.safetensors") for one in (world, alone))
    assert ours.keys() == whole.keys()
    for tensor, value in whole.items():
        assert (ours[tensor] - value).abs().max() < WEIGHT_TOLERANCE, tensor


def test_a_stage_under_deepspeeds_launcher_trains_what_one_process_trains(
    alone: Path, tmp_path: Path, no_launcher: None
) -> None:
    command = [DEEPSPEED, "--num_accelerators", "2", "--no_local_rank", "--master_port", many.find_port(), "--module"]
    write_world(tmp_path, under(command))
    done = tiny.run_stage_in(tmp_path, "align")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("6 steps, final loss") == 1  # the main process speaks
    assert "dist_world_size=2" in done.stdout
    check_same(tmp_path, alone)


def test_two_nodes_train_what_one_process_trains(alone: Path, tmp_path: Path, no_launcher: None) -> None:
    command = [
        TORCHRUN, "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "tiny",
        "--rdzv-endpoint", f"127.0.0.1:{many.find_port()}", "--local-addr", "127.0.0.1", "-m",
    ]  # fmt: skip
    write_world(tmp_path, under(command))
    nodes = [
        subprocess.Popen(
            tiny.stage_command("align"),
            cwd=tmp_path,
            env=tiny.stage_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        logs = [node.communicate(timeout=300)[1] for node in nodes]
    finally:
        for node in nodes:
            node.terminate()
    assert [node.returncode for node in nodes] == [0, 0], logs
    assert sorted(log.count("6 steps, final loss") for log in logs) == [0, 1]
    check_same(tmp_path, alone)


PDSH = """#!/bin/bash
# pdsh -S -f FANOUT -w HOSTS COMMAND: on each host a shell that knows nothing of this one's environment
echo "pdsh $5" >> "$TOLD"
IFS=, read -ra hosts <<< "$5"
shift 5
for number in "${!hosts[@]}"; do
  env -i HOME="$HOME" PATH=/usr/bin:/bin bash -c "${*//%n/$number}" & running+=($!)
done
status=0
for one in "${running[@]}"; do wait "$one" || status=$?; done
exit $status
"""
SSH = """#!/bin/bash
echo "ssh $*" >> "$TOLD"
"""


def test_several_machines_of_a_hostfile_train_what_one_process_trains(
    alone: Path, tmp_path: Path, no_launcher: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DeepSpeed's own launcher of several machines; only what reaches them is a stand-in."""
    for name, script in (("pdsh", PDSH), ("ssh", SSH)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    (tmp_path / "hosts").write_text("first slots=1\nsecond slots=1\n")
    write_world(
        tmp_path,
        under(
            [
                DEEPSPEED, "--hostfile", "hosts", "--no_local_rank", "--master_addr", "127.0.0.1", "--master_port",
                many.find_port(), "--module",
            ]
        ),
    )  # fmt: skip
    done = tiny.run_stage_in(tmp_path, "align")
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "told").read_text().splitlines()
    assert told == ["ssh -o PasswordAuthentication=no first hostname", "pdsh first,second"]
    assert done.stderr.count("6 steps, final loss") == 1
    assert "dist_world_size=2" in done.stdout
    check_same(tmp_path, alone)


def test_a_launcher_that_is_not_installed_is_named(no_launcher: None) -> None:
    with pytest.raises(
        ParamsError, match=r"launch: 'nolauncher' is not on this machine's PATH: .* come with `make setup` \("
    ):
        launch(["nolauncher", "-m"], "stages.align")


def test_a_command_that_is_no_launcher_does_not_start_the_stage_without_end(tmp_path: Path, no_launcher: None) -> None:
    tiny.write_params(tmp_path, training={**tiny.LOCAL, "launch": [sys.executable, "-m"]})
    done = tiny.run_stage_in(tmp_path, "align")
    assert done.returncode == 1
    assert done.stderr.count("started the stage without RANK in its environment, as no launcher does") == 1


@pytest.mark.parametrize(("command", "rank"), [(ALONE, None), (["nolauncher"], "0")])
def test_a_stage_that_runs_as_it_should_goes_on(
    command: Sequence[str], rank: str | None, no_launcher: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    launch(command, "stages.align")


def test_deepspeeds_launcher_must_not_add_an_argument_that_stages_do_not_take() -> None:
    with pytest.raises(ParamsError, match=r"training\.launch: .*write \[deepspeed, --no_local_rank"):
        parse_block(TrainingConfig, {**tiny.LOCAL, "launch": ["deepspeed", "--module"]}, where="training")
