from __future__ import annotations

import hashlib
import json
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from cambrian.artifacts import write_folder
from cambrian.interfaces import ArtifactError, Batch, ParamsError
from cambrian.params import parse_block
from cambrian.runtime import RuntimeConfig
from cambrian.training.checkpoints import TERMINATED, fingerprint
from cambrian.training.config import Recipe
from cambrian.training.engine import LocalEngine
from cambrian.training.phases import Phase, Places, train_phase
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

PHASE = Phase("runs.x", frozenset({"connector", "llm"}), initial=None, use_images=True, seed=0)
NUM_STEPS = 9  # three epochs of twelve records, four at a time


class KilledError(Exception):
    """Stands for a process that ends between two steps."""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.write_backbones(folder / "backbones")
    tiny.write_data(folder, tiny.make_records(12), broken=["r5"])
    return folder


def train(world: Path, name: str, **changes: Any) -> dict[str, str]:
    """Train the phase, and return the hashes of its files."""
    output = Path(name)
    recipe = parse_block(Recipe, {**tiny.RECIPE, "epochs": 3, **changes}, where="recipe")
    at = Places(world / "backbones", world / "mix", world / "pool", output, Path(f"{name}.json"), Path(f"{name}.csv"))
    train_phase(PHASE, tiny.MODEL, recipe, RuntimeConfig(device="cpu", threads=1), tiny.TRAINING, at)
    files = [*sorted(output.iterdir()), at.metrics, Path(f"{name}.csv")]
    return {path.name.replace(name, ""): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stop_before_step(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], None]:
    """Let training die before its step of this number (from 1, counted in this process); return what ends that."""
    whole, done = LocalEngine.step, []

    def step(self: LocalEngine, rate_factor: float) -> float:
        done.append(rate_factor)
        if len(done) == number:
            raise KilledError
        return whole(self, rate_factor)

    monkeypatch.setattr(LocalEngine, "step", step)
    return lambda: monkeypatch.setattr(LocalEngine, "step", whole)


def checkpoints() -> list[Path]:
    return sorted(Path("checkpoints").glob("*/step-*"))


def test_a_loss_that_is_not_finite_leaves_the_ids_of_its_batch_and_what_was_saved(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(world, "whole")
    losses, seen = LocalEngine.losses, []

    def break_one(self: LocalEngine, batch: Batch | None) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch is not None
        seen.append(batch.record_ids)
        mean, by_sample = losses(self, batch)
        return (mean * torch.nan if len(seen) == 4 else mean), by_sample

    monkeypatch.setattr(LocalEngine, "losses", break_one)
    with pytest.raises(ParamsError, match=r"the loss is nan at step 4, records r\d+, .*fault-step-00000004-process-0"):
        train(world, "broken")
    assert not Path("broken").exists()
    assert [path.name for path in checkpoints()] == ["step-00000002"]
    (fault,) = Path("checkpoints").glob("*/fault-*.json")
    found = json.loads(fault.read_text())
    assert found == {"step": 4, "loss": "nan", "records": seen[-1], "sources": ["squares"] * len(seen[-1])}
    monkeypatch.setattr(LocalEngine, "losses", losses)
    assert train(world, "broken") == whole
    assert not fault.exists()


@pytest.mark.parametrize("feature_cache_mib", [0, 1])
@pytest.mark.parametrize("number", [1, 2, 4, 6, NUM_STEPS])
def test_a_phase_that_died_at_any_step_ends_in_the_same_bytes(
    number: int, feature_cache_mib: int, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(world, "whole", feature_cache_mib=feature_cache_mib)
    mend = stop_before_step(monkeypatch, number)
    with pytest.raises(KilledError):
        train(world, "x", feature_cache_mib=feature_cache_mib)
    assert [path.name for path in checkpoints()] == [f"step-{step:08d}" for step in (2, 4, 6, 8) if step < number][-2:]
    mend()
    assert train(world, "x", feature_cache_mib=feature_cache_mib) == expected


def test_a_phase_may_die_more_than_once(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(world, "whole")
    for _ in range(3):
        mend = stop_before_step(monkeypatch, 4)
        with pytest.raises(KilledError):
            train(world, "x")
        mend()
    assert train(world, "x") == expected


def test_a_finished_phase_leaves_no_checkpoint(world: Path) -> None:
    train(world, "x")
    assert checkpoints() == []


@pytest.mark.parametrize("file", ["parameters.safetensors", "optimizers.pt", "progress.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "gone"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    file: str, damage: str, world: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = train(world, "whole")
    mend = stop_before_step(monkeypatch, 7)
    with pytest.raises(KilledError):
        train(world, "x")
    mend()
    newest = checkpoints()[-1] / file
    content = newest.read_bytes()
    if damage == "gone":
        newest.unlink()
    else:
        half = len(content) // 2
        newest.write_bytes(content[:half] + (b"" if damage == "truncated" else bytes(len(content) - half)))
    with caplog.at_level("INFO", "cambrian"):
        assert train(world, "x") == expected
    messages = [record.getMessage() for record in caplog.records]
    assert any("step-00000006 cannot be used and is passed over" in message for message in messages)
    assert any("going on after step 4" in message for message in messages)


@pytest.mark.parametrize("feature_cache_mib", [0, 1])
def test_a_phase_that_is_terminated_in_its_last_step_still_counts_its_samples(
    feature_cache_mib: int, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(world, "whole", feature_cache_mib=feature_cache_mib)
    whole, done = LocalEngine.step, []

    def step(self: LocalEngine, rate_factor: float) -> float:
        done.append(rate_factor)
        if len(done) == NUM_STEPS:
            signal.raise_signal(signal.SIGTERM)
        return whole(self, rate_factor)

    with monkeypatch.context() as patch:
        patch.setattr(LocalEngine, "step", step)
        with pytest.raises(SystemExit):
            train(world, "x", feature_cache_mib=feature_cache_mib)
    assert checkpoints()[-1].name == f"step-{NUM_STEPS:08d}"
    assert not Path("x").exists()
    assert train(world, "x", feature_cache_mib=feature_cache_mib) == expected


def test_a_checkpoint_of_another_run_that_lies_under_the_key_is_refused(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same model with other rates: nothing in its shapes betrays it."""
    rates = {**tiny.RECIPE["learning_rates"], "llm": 0.004}
    expected = train(world, "whole")
    for changes in ({"learning_rates": rates}, {}):
        mend = stop_before_step(monkeypatch, 5)
        with pytest.raises(KilledError):
            train(world, "x", **changes)
        mend()
        ours = {path.parent.name for path in checkpoints()} - (set() if changes else ours)
    (own,) = ours
    foreign = next(path for path in checkpoints() if path.parent.name != own and path.name == "step-00000004")
    shutil.copytree(foreign, foreign.parents[1] / own / "step-00000006")
    with pytest.raises(ArtifactError, match=rf"step-00000006 was written by {foreign.parent.name}, expected {own}: "):
        train(world, "x")
    assert not Path("x").exists()
    shutil.rmtree(foreign.parents[1] / own / "step-00000006")
    assert train(world, "x") == expected


def test_other_inputs_start_from_the_beginning(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {**tiny.RECIPE["learning_rates"], "llm": 0.004}
    expected = train(world, "whole", learning_rates=rates)
    mend = stop_before_step(monkeypatch, 5)
    with pytest.raises(KilledError):
        train(world, "x")
    mend()
    assert train(world, "x", learning_rates=rates) == expected
    assert {path.name for path in checkpoints()} == {"step-00000002", "step-00000004"}  # the other inputs' own


@pytest.mark.parametrize("last_written", [None, "parameters.safetensors"])
def test_a_disk_that_fills_up_while_saving_keeps_what_was_saved(
    last_written: str | None, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(world, "whole")
    save = LocalEngine.save

    def fill_up(self: LocalEngine, folder: Path) -> Callable[[], None]:
        write = save(self, folder)
        if "step-00000004" not in folder.name:
            return write
        num_bytes = (checkpoints()[0] / last_written).stat().st_size if last_written else 100
        return lambda: write_under_a_limit(write, num_bytes)

    monkeypatch.setattr(LocalEngine, "save", fill_up)
    with pytest.raises(ArtifactError, match=r"step-00000004 could not be written: .*free space"):
        train(world, "x")
    assert [path.name for path in checkpoints()] == ["step-00000002"]
    monkeypatch.setattr(LocalEngine, "save", save)
    assert train(world, "x") == expected


def write_under_a_limit(write: Callable[[], None], num_bytes: int) -> None:
    """Let the kernel refuse files beyond this size, as a full disk refuses any: libraries meet a true error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_that_is_stopped_from_outside_goes_on_where_it_was(number: signal.Signals, tmp_path: Path) -> None:
    tiny.write_backbones(tmp_path / "backbones")
    tiny.write_data(tmp_path, tiny.make_records(12))
    settings = {"epochs": 100, "checkpoints": {"folder": "checkpoints", "every_steps": 20, "num_kept": 2}}
    tiny.write_params(tmp_path, **settings)
    assert tiny.run_stage_in(tmp_path, "align").returncode == 0
    expected = (tmp_path / "adapter" / "model.safetensors").read_bytes(), (tmp_path / "align.json").read_bytes()
    subprocess.run(["rm", "-r", "adapter", "align.json"], cwd=tmp_path, check=True)
    process = subprocess.Popen(
        tiny.stage_command("align"), cwd=tmp_path, env=tiny.stage_environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not checkpoints():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=30) == (TERMINATED if number == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "adapter").exists()
    saved = [int(path.name.removeprefix("step-")) for path in checkpoints()]
    done = tiny.run_stage_in(tmp_path, "align")
    assert f"going on after step {saved[-1]}" in done.stderr
    assert (
        (tmp_path / "adapter" / "model.safetensors").read_bytes(),
        (tmp_path / "align.json").read_bytes(),
    ) == expected


def test_a_pool_whose_shards_are_in_a_bucket_names_the_same_checkpoints(tmp_path: Path) -> None:
    with write_folder(tmp_path / "pool") as partial:
        (partial / "00000.tar").write_bytes(b"shard")
    here = fingerprint({}, [tmp_path / "pool"], [])
    (tmp_path / "pool" / "00000.tar").unlink()
    assert fingerprint({}, [tmp_path / "pool"], []) == here
    (tmp_path / "pool" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match="has no manifest"):
        fingerprint({}, [tmp_path / "pool"], [])
