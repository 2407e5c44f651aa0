from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.artifacts import write_folder
from cambrian.interfaces import ParamsError
from cambrian.models.tensor_files import read_tensors
from cambrian.params import parse_block
from cambrian.training.config import Recipe, TrainingConfig
from cambrian.training.deepspeed_engine import _import_deepspeed
from cambrian.training.engines import check_processes, count_accumulation_steps
from cambrian.training.processes import Processes
from tests.training import many, tiny
from tests.training.many import DEEPSPEED, entry

if TYPE_CHECKING:
    from pathlib import Path

LOCAL = {"kind": "local", "recompute_activations": False}
ZERO_2 = {**DEEPSPEED, "zero_stage": 2}
ZERO_3 = {**DEEPSPEED, "zero_stage": 3}
CALM = {"optimizer": {**many.ADAMW, "epsilon": 1e-3}}
"""No gradient near 0 is magnified (see WEIGHT_TOLERANCE), as one of 13,872 of the tied LLM's was, to 1.3e-5."""
PLAN = [
    entry("zero-2", ZERO_2),
    entry("zero-3", {**ZERO_3, "recompute_activations": True}),
    entry("offloaded", {**ZERO_3, "offload": "optimizer-and-parameters"}, train_encoders=True),
    entry("bfloat16", {**ZERO_2, "precision": "bfloat16"}),
    # micro batches of one: some have no image, and get a blank one with a map for every layer
    entry("two-maps", ZERO_2, encoder="deep", recipe={"micro_batch_size": 1}),
    entry("zero-0", {**DEEPSPEED, "zero_stage": 0}),
    entry("zero-1-offloaded", {**DEEPSPEED, "zero_stage": 1, "offload": "optimizer"}),
    entry("zero-3-tied", ZERO_3, llm="tied", recipe=CALM),
    # ends without warning after three steps, of which the first two are saved; then goes on elsewhere, see below
    entry("resumed", ZERO_3, end_after=3),
]
OF_FOUR = [
    entry("zero-2-of-four", ZERO_2, recipe={"micro_batch_size": 1}),
    entry("zero-3-of-four", ZERO_3, recipe={"micro_batch_size": 1}),
]
LOSS_TOLERANCE = 2e-6
"""The order of sums differs, and the curve is rounded to six digits."""
WEIGHT_TOLERANCE = 5e-6
"""AdamW's step is the rate times a quotient near 1 or -1 at first: rounding of gradients near 0 is magnified, up to the
rate (0.005) times its share of such a gradient. Measured: 7e-7 after six steps; a lost or doubled batch gives 1e-3.
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All trainings of the plans, by two and by four processes, and what one process makes of the same."""
    world = tmp_path_factory.mktemp("world")
    tiny.write_backbones(world / "backbones")
    with write_folder(world / "backbones" / "tied") as partial:
        tiny.write_language_model(partial, len(tiny.TOKENS), num_positions=64, tied=True)
        tiny.write_tokenizer(partial)
    tiny.write_data(world, tiny.make_records(14), broken=["r6"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        many.train_one(world, entry("local", LOCAL))
        shutil.rmtree(world / "checkpoints", ignore_errors=True)
        many.train_one(world, entry("local-encoders", LOCAL, train_encoders=True))
        many.train_one(world, entry("local-tied", LOCAL, llm="tied", recipe=CALM))
        many.train_one(world, entry("local-two-maps", LOCAL, encoder="deep", recipe={"micro_batch_size": 1}))
    many.run_plan(world, OF_FOUR, num_processes=4)
    many.run_plan(world, PLAN, num_processes=2)
    shutil.copytree(world / "checkpoints", world / "left")
    many.run_plan(world, [entry("resumed", {**ZERO_2, "recompute_activations": True})], num_processes=1)
    return world


def losses(world: Path, name: str) -> list[float]:
    return [float(line.split(",")[1]) for line in (world / f"{name}.csv").read_text().splitlines()[1:]]


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("zero-2", "local"),
        ("zero-3", "local"),
        ("zero-0", "local"),
        ("zero-1-offloaded", "local"),
        ("zero-2-of-four", "local"),
        ("zero-3-of-four", "local"),
        ("offloaded", "local-encoders"),
        ("zero-3-tied", "local-tied"),
        ("two-maps", "local-two-maps"),
        ("resumed", "local"),
    ],
)
def test_many_processes_train_what_one_trains(world: Path, name: str, reference: str) -> None:
    assert len(losses(world, reference)) == 8
    assert losses(world, name) == pytest.approx(losses(world, reference), abs=LOSS_TOLERANCE)
    found, expected = (read_tensors(world / one / "model.safetensors") for one in (name, reference))
    assert found.keys() == expected.keys()  # whole parameters by the same names, whatever divided them
    for tensor, value in expected.items():
        assert (found[tensor] - value).abs().max() < WEIGHT_TOLERANCE, tensor


@pytest.mark.parametrize("name", ["zero-2", "zero-3", "zero-2-of-four", "zero-3-of-four", "bfloat16", "resumed"])
def test_counts_are_those_of_all_processes(world: Path, name: str) -> None:
    counts = [json.loads((world / f"{one}.json").read_text()) for one in (name, "local")]
    for count in counts:
        del count["final_loss"]
    assert counts[0] == counts[1]
    assert counts[0]["unusable"] == {"r6": "undecodable-image"}
    assert counts[0]["samples"] == 26


def test_bfloat16_stays_near_float32(world: Path) -> None:
    # three significant digits a weight; the loss of two wrong batches differs by a tenth
    assert losses(world, "bfloat16") == pytest.approx(losses(world, "local"), abs=0.03)
    assert losses(world, "bfloat16") != losses(world, "local")


def test_another_number_of_processes_goes_on_from_a_checkpoint(world: Path) -> None:
    (folder,) = (world / "left").iterdir()
    assert [path.name for path in folder.iterdir()] == ["step-00000002"]
    assert len(list(folder.glob("*/state-*.safetensors"))) == 2
    assert not (world / "checkpoints").exists() or not list((world / "checkpoints").iterdir())


def config(**engine: Any) -> Any:
    return parse_block(TrainingConfig, {**tiny.LOCAL, "engine": engine}, where="training").engine


def recipe(**changes: Any) -> Recipe:
    return parse_block(Recipe, {**tiny.RECIPE, "optimizer": many.ADAMW, **changes}, where="recipe")


def test_accumulation_follows_from_batch_and_processes() -> None:
    one = recipe(global_batch_size=512, micro_batch_size=8)
    assert [count_accumulation_steps(one, count) for count in (1, 2, 64)] == [64, 32, 1]


def test_a_global_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"global_batch_size 4 does not divide among 3 .* choose a multiple of 6"):
        check_processes(config(**ZERO_2), recipe(micro_batch_size=2), Processes(0, 3))


def test_the_local_engine_refuses_company() -> None:
    with pytest.raises(ParamsError, match=r"engine is local and 2 processes were started.*choose \{kind: deepspeed"):
        check_processes(config(**LOCAL), recipe(), Processes(0, 2))


def test_a_missing_deepspeed_names_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(
        ParamsError, match=r"engine is deepspeed, which cannot be imported .*: `make setup` installs it"
    ):
        _import_deepspeed()


def test_deepspeed_refuses_muon() -> None:
    with pytest.raises(ParamsError, match=r"muon-adamw.*choose \{kind: adamw"):
        check_processes(config(**ZERO_2), recipe(optimizer=tiny.RECIPE["optimizer"]), Processes(0, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zero_stage": 4}, r"training\.engine\.deepspeed\.zero_stage: found 4"),
        ({"zero_stage": 2, "offload": "optimizer-and-parameters"}, "needs zero_stage 3 or more, found 2"),
        ({"zero_stage": 0, "precision": "bfloat16"}, "precision 'bfloat16' needs zero_stage 1"),
        ({"zero_stage": 2, "adam": "deepspeed-cpu"}, "adam 'deepspeed-cpu' needs an offload"),
    ],
)
def test_engines_that_deepspeed_does_not_have_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        config(**{**DEEPSPEED, **changes})
