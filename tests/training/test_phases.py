from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from ruamel.yaml import YAML

from cambrian.artifacts import read_manifest
from cambrian.data.collate import collate
from cambrian.data.conversation import TURNS
from cambrian.data.images import preprocess
from cambrian.data.tokenizer import read_tokenizer
from cambrian.interfaces import ArtifactError, Batch, ParamsError
from cambrian.models.tensor_files import read_tensors
from cambrian.models.weights import build_model
from cambrian.params import parse_block
from cambrian.runtime import RuntimeConfig
from cambrian.training.config import Recipe, RunRow
from cambrian.training.phases import Phase, Places, check_adapter, train_phase, use_device
from tests.interrupts import listen_to_ctrl_c
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.models.multimodal import MultimodalModel

RUNTIME = RuntimeConfig(device="cpu", threads=1)
ROW = RunRow(
    encoders=["eye", "none"], llm="tongue", adapter="squares", mix="mix", recipe="tune", train_encoders=False,
    use_images=True, seed=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints lie in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    tiny.write_backbones(folder / "backbones")
    tiny.write_data(folder, tiny.make_records(12))
    tiny.write_params(folder)
    return folder


@pytest.fixture
def own_world(world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(world, tmp_path / "world")


def places(world: Path, output: Path, **changes: Path) -> Places:
    values = {
        "backbones": world / "backbones", "data": world / "mix", "pool": world / "pool", "output": output / "model",
        "metrics": output / "metrics.json", "curve": output / "loss.csv",
    }  # fmt: skip
    return Places(**{**values, **changes})


def phase(*trained: str, initial: Path | None = None, use_images: bool = True, seed: int = 0) -> Phase:
    return Phase("runs.x", frozenset(trained), initial=initial, use_images=use_images, seed=seed)


def recipe(**changes: Any) -> Recipe:
    return parse_block(Recipe, {**tiny.RECIPE, **changes}, where="recipe")


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "logs" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_trainings_are_byte_identical(world: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_phase(
            phase("connector", "llm"), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, places(world, tmp_path / name)
        )
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert len(hashes(tmp_path / "one")) == 5


def test_another_seed_trains_another_model(world: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        train_phase(
            phase("connector", seed=seed),
            tiny.MODEL,
            recipe(),
            RUNTIME,
            tiny.TRAINING,
            places(world, tmp_path / str(seed)),
        )
    assert hashes(tmp_path / "0" / "model") != hashes(tmp_path / "1" / "model")


def test_the_metrics_count_what_was_trained_on(world: Path, tmp_path: Path) -> None:
    at = places(world, tmp_path)
    train_phase(phase("connector", "llm"), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, at)
    metrics = json.loads(at.metrics.read_text())
    curve = at.curve.read_text().splitlines() if at.curve else []
    # Nine positions of an image in three of four records; two questions and their answers, 5 + 2 and 1 + 4 words, in
    # all, with user and end markers around each.
    assert metrics == {
        "records": 12, "steps": 6, "samples": 24, "tokens": 2 * (9 * 9 + 12 * (4 + 1 + 1 + 3 + 2 * 2)),
        "final_loss": float(curve[-1].split(",")[1]), "truncated_records": 0, "unusable_records": 0, "unusable": {},
    }  # fmt: skip
    assert curve[0] == "step,loss"
    assert [line.split(",")[0] for line in curve[1:]] == ["1", "2", "3", "4", "5", "6"]


def test_training_lowers_the_loss(world: Path, tmp_path: Path) -> None:
    at = places(world, tmp_path)
    rates = {"connector": 0.02, "aggregators": 0.02, "llm": 0.02, "encoders": 0.0}
    train_phase(
        phase("connector", "llm"), tiny.MODEL, recipe(epochs=60, learning_rates=rates), RUNTIME, tiny.TRAINING, at
    )
    assert at.curve is not None
    losses = [float(line.split(",")[1]) for line in at.curve.read_text().splitlines()[1:]]
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize(
    "trained", [{"connector"}, {"connector", "llm"}, {"connector", "llm", "encoders"}], ids=lambda parts: len(parts)
)
def test_only_the_trained_parts_move_and_only_they_are_written(trained: set[str], world: Path, tmp_path: Path) -> None:
    at = places(world, tmp_path)
    train_phase(phase(*trained), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, at)
    written = read_tensors(at.output / "model.safetensors")
    fresh = build_model(tiny.MODEL, backbones=world / "backbones", seed=0).state_dict()
    modules = {"connector": {"connector", "layout"}, "llm": {"llm"}, "encoders": {"encoders"}}
    assert {name.split(".")[0] for name in written} == {module for part in trained for module in modules[part]}
    moved = {name.split(".")[0] for name in written if not torch.equal(written[name], fresh[name])}
    assert moved == {module for part in trained for module in modules[part]}


def test_a_run_starts_from_its_adapter(world: Path, tmp_path: Path) -> None:
    train_phase(
        phase("connector", seed=5), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, places(world, tmp_path / "adapter")
    )
    adapter = tmp_path / "adapter" / "model"
    empty = tmp_path / "empty"
    tiny.write_data(empty, [])
    at = places(world, tmp_path / "run", data=empty / "mix")
    train_phase(phase("connector", "llm", initial=adapter), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, at)
    run, start = read_tensors(at.output / "model.safetensors"), read_tensors(adapter / "model.safetensors")
    assert len(start) > 4
    assert all(torch.equal(run[name], start[name]) for name in start)


def test_a_mix_of_no_records_writes_the_connector_as_it_starts(world: Path, tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "empty", [])
    at = places(world, tmp_path, data=tmp_path / "empty" / "mix")
    train_phase(phase("connector"), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, at)
    written = read_tensors(at.output / "model.safetensors")
    fresh = build_model(tiny.MODEL, backbones=world / "backbones", seed=0).state_dict()
    assert all(torch.equal(written[name], fresh[name]) for name in written)
    metrics = json.loads(at.metrics.read_text())
    assert (metrics["records"], metrics["steps"], metrics["final_loss"]) == (0, 0, None)


def test_a_blind_run_leaves_the_connector_as_it_was(world: Path, tmp_path: Path) -> None:
    at = places(world, tmp_path)
    train_phase(phase("connector", "llm", use_images=False), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, at)
    written = read_tensors(at.output / "model.safetensors")
    fresh = build_model(tiny.MODEL, backbones=world / "backbones", seed=0).state_dict()
    moved = {name.split(".")[0] for name in written if not torch.equal(written[name], fresh[name])}
    assert moved == {"llm"}


def make_batch(world: Path, model: MultimodalModel, *, with_long_row: bool) -> Batch:
    tokenizer, records = read_tokenizer(world / "backbones" / "tongue"), tiny.make_records(4)
    chosen = [records[0], records[3]] if with_long_row else [records[3]]
    encoded = [TURNS.encode_conversation(record.turns, tokenizer, model.num_image_positions) for record in chosen]
    views = [
        preprocess(tiny.encode_png((255, 0, 0), 8, 8), model.image_specs) if record.image else None for record in chosen
    ]
    return collate(encoded, views, [None if view is None else (8, 8) for view in views], tokenizer.pad_id)


def test_padding_never_reaches_the_loss(world: Path) -> None:
    use_device(RUNTIME, 0)
    model = build_model(tiny.MODEL, backbones=world / "backbones", seed=0)
    padded = make_batch(world, model, with_long_row=True)
    alone = make_batch(world, model, with_long_row=False)
    assert not padded.attention_mask[1].all()
    padded.labels[0] = -100
    # Sums of another length round differently in float32.
    assert model.loss(padded).item() == pytest.approx(model.loss(alone).item(), abs=1e-5)
    before = model.loss(padded).item()
    padded.input_ids[1][~padded.attention_mask[1]] = 5
    assert model.loss(padded).item() == before


def test_unusable_records_stand_in_the_metrics_by_name(world: Path, tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "data", tiny.make_records(12), broken=["r4"])
    at = places(world, tmp_path, data=tmp_path / "data" / "mix", pool=tmp_path / "data" / "pool")
    train_phase(phase("connector"), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, at)
    metrics = json.loads(at.metrics.read_text())
    assert (metrics["unusable"], metrics["unusable_records"]) == ({"r4": "undecodable-image"}, 1)
    assert (metrics["records"], metrics["samples"]) == (12, 22)


def test_more_unusable_records_than_allowed_leave_no_output(world: Path, tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "data", tiny.make_records(12), broken=["r0", "r1", "r4"])
    at = places(world, tmp_path, data=tmp_path / "data" / "mix", pool=tmp_path / "data" / "pool")
    with pytest.raises(ArtifactError, match="3 of 12 records cannot be used"):
        train_phase(phase("connector"), tiny.MODEL, recipe(), RUNTIME, tiny.TRAINING, at)
    assert not at.output.exists()
    assert not at.metrics.exists()


def test_a_rate_at_which_training_diverges_names_the_batch_and_leaves_no_output(world: Path, tmp_path: Path) -> None:
    at = places(world, tmp_path)
    rates = {"connector": 1e30, "aggregators": 1e30, "llm": 1e30, "encoders": 1.0}
    with pytest.raises(ParamsError, match=r"is (nan|inf) at step \d, records r\d+, "):
        train_phase(phase("connector", "llm"), tiny.MODEL, recipe(learning_rates=rates), RUNTIME, tiny.TRAINING, at)
    assert not at.output.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoders": ["lens", "none"]}, r"runs\.x\.encoders: found lens, .* squares was trained with eye"),
        ({"llm": "other"}, r"runs\.x\.llm: found other, .* trained with tongue"),
    ],
)
def test_a_run_whose_adapter_is_of_another_model_is_refused(
    change: dict[str, Any], message: str, world: Path, tmp_path: Path
) -> None:
    train_phase(phase("connector"), tiny.MODEL, recipe(epochs=1), RUNTIME, tiny.TRAINING, places(world, tmp_path))
    assert check_adapter(tmp_path / "model", "x", ROW, "turns") == tiny.MODEL
    with pytest.raises(ParamsError, match=message):
        check_adapter(tmp_path / "model", "x", ROW.model_copy(update=change), "turns")
    with pytest.raises(ParamsError, match="template: found chat"):
        check_adapter(tmp_path / "model", "x", ROW, "chat")


def test_a_device_that_is_not_there_is_named() -> None:
    if torch.cuda.is_available():
        return
    with pytest.raises(ParamsError, match=r"runtime\.device: found 'cuda'"):
        use_device(RuntimeConfig(device="cuda", threads=1), 0)


def test_both_stages_run_one_after_the_other_and_again_to_the_same_bytes(own_world: Path) -> None:
    found = []
    for stages in (["align", "finetune"], ["finetune"]):
        for stage in stages:
            done = tiny.run_stage_in(own_world, stage)
            assert done.returncode == 0, done.stderr
        found.append(hashes(own_world))
    assert found[0] == found[1]
    assert read_manifest(own_world / "run")["phase"] == "runs.squares"


@pytest.mark.parametrize(
    ("file", "table", "change", "message"),
    [
        ("params.yaml", "adapters", {"encoders": ["ear"]}, "ear"),
        ("params.yaml", "adapters", {"recipe": "tuna"}, "unknown name 'tuna'; did you mean 'tune'?"),
        ("params.yaml", "adapters", {"colour": "red"}, "adapters.squares.colour: unknown field"),
        ("params.yaml", "adapters", {"mix": 3}, "adapters.squares.mix: found 3, input should be a valid string"),
        ("scales/tiny.yaml", "recipes", {"epochs": 1.5}, "recipes.tune.epochs: found 1.5"),
        ("scales/tiny.yaml", "llms", {"template": "chat"}, "conversation template: unknown name 'chat'; known: chatml"),
    ],
)
def test_wrong_params_end_a_stage_with_one_line(
    file: str, table: str, change: dict[str, Any], message: str, own_world: Path
) -> None:
    yaml = YAML(typ="safe")
    value = yaml.load((own_world / file).read_text())
    next(iter(value[table].values())).update(change)
    with (own_world / file).open("w") as stream:
        yaml.dump(value, stream)
    done = tiny.run_stage_in(own_world, "align")
    assert done.returncode == 1
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (own_world / "adapter").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stage_that_is_stopped_in_the_middle_leaves_nothing(
    number: signal.Signals, code: int, own_world: Path
) -> None:
    tiny.write_params(own_world, epochs=100_000)
    log = own_world / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            tiny.stage_command("align"),
            cwd=own_world,
            env=tiny.stage_environment(),
            stderr=stream,
            preexec_fn=listen_to_ctrl_c,
        )
        deadline = time.monotonic() + 60
        while "read:" not in log.read_text():  # the model is read, training begins
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(timeout=30) == code
    assert not (own_world / "adapter").exists()
    assert not (own_world / "align.json").exists()


def test_features_that_are_kept_train_the_same_model(world: Path, tmp_path: Path) -> None:
    for size in (0, 1):
        at = places(world, tmp_path / str(size))
        train_phase(phase("connector", "llm"), tiny.MODEL, recipe(feature_cache_mib=size), RUNTIME, tiny.TRAINING, at)
    losses = [
        [float(line.split(",")[1]) for line in (tmp_path / str(size) / "loss.csv").read_text().splitlines()[1:]]
        for size in (0, 1)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_an_encoder_that_learns_is_asked_anew_at_every_step(world: Path, tmp_path: Path) -> None:
    for size in (0, 1):
        at = places(world, tmp_path / str(size))
        train_phase(
            phase("connector", "llm", "encoders"),
            tiny.MODEL,
            recipe(feature_cache_mib=size),
            RUNTIME,
            tiny.TRAINING,
            at,
        )
    assert hashes(tmp_path / "0" / "model") == hashes(tmp_path / "1" / "model")
