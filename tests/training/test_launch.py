from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cambrian.interfaces import ParamsError
from cambrian.models.tensor_files import read_tensors
from cambrian.params import parse_block
from cambrian.training.config import TrainingConfig
from cambrian.training.launch import ALONE, launch
from tests.training import many, tiny
from tests.training.test_engines import WEIGHT_TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

DEEPSPEED = str(Path(sys.executable).parent / "deepspeed")


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests themselves may run under one."""
    monkeypatch.delenv("RANK", raising=False)


def test_a_stage_under_deepspeeds_launcher_trains_what_one_process_trains(tmp_path: Path, no_launcher: None) -> None:
    command = [DEEPSPEED, "--num_accelerators", "2", "--no_local_rank", "--master_port", many.find_port(), "--module"]
    forms = {
        "alone": tiny.LOCAL,
        "together": {**tiny.LOCAL, "launch": command, "engine": {**many.DEEPSPEED, "zero_stage": 2}},
    }
    for name, training in forms.items():
        world = tmp_path / name
        tiny.write_backbones(world / "backbones")
        tiny.write_data(world, tiny.make_records(12), broken=["r5"])
        tiny.write_params(world, training=training, optimizer=many.ADAMW, micro_batch_size=2)
        done = tiny.run_stage_in(world, "align")
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("6 steps, final loss") == 1  # the main process speaks
        assert ("dist_world_size=2" in done.stdout) == (name == "together")
    found, expected = (json.loads((tmp_path / name / "align.json").read_text()) for name in forms)
    assert found.pop("final_loss") == pytest.approx(expected.pop("final_loss"), abs=2e-6)
    assert found == expected
    assert found["unusable"] == {"r5": "undecodable-image"}
    ours, whole = (read_tensors(tmp_path / name / "adapter" / "model.safetensors") for name in forms)
    assert ours.keys() == whole.keys()
    for tensor, value in whole.items():
        assert (ours[tensor] - value).abs().max() < WEIGHT_TOLERANCE, tensor


def test_a_launcher_that_is_not_installed_is_named(no_launcher: None) -> None:
    with pytest.raises(
        ParamsError, match=r"launch: 'nolauncher' is not on this machine's PATH: .* come with `make setup` \("
    ):
        launch(["nolauncher", "-m"], "stages.align")


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
