from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest

from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.params import ParamsFiles
from cambrian.planning.expected import check_expected, compare, list_facts, read_expected, write_expected
from cambrian.planning.experiment import read_experiment
from cambrian.planning.forecast import Change, Forecast, make_forecast
from cambrian.planning.memory import GIB
from cambrian.planning.report import forecast_to_json, write_forecast
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.planning.experiment import Experiment

AS_IT_IS = Change()
KEYS = ("adapters.clip-1200k", "runs.clip-1200k", "runs.sva")


@cache
def read_some() -> Experiment:
    experiment = read_experiment(ParamsFiles(ROOT, "mini"))
    return replace(experiment, phases=tuple(phase for phase in experiment.phases if phase.key in KEYS))


@cache
def forecast(change: Change = AS_IT_IS) -> Forecast:
    return make_forecast(read_some(), change)


def with_budget(hours: float) -> Forecast:
    made = forecast()
    budget = made.config.budget.model_copy(update={"device_hours": hours})
    return replace(made, config=made.config.model_copy(update={"budget": budget}))


def test_facts_are_those_that_were_committed() -> None:
    expected = read_expected(ROOT / "tests/golden/plan/mini.txt")
    found = {name: value for phase in forecast().phases for name, value in list_facts(phase.facts).items()}
    assert len(found) > 30
    assert compare(found, {name: value for name, value in expected.items() if name in found}) == []


def test_steps_and_samples_are_those_of_the_finished_run() -> None:
    phase = next(phase for phase in forecast().phases if phase.facts.plan.key == "runs.clip-1200k")
    found = json.loads((ROOT / "results/mini/runs/clip-1200k/training.json").read_text())
    assert (phase.facts.steps, phase.facts.amount.samples) == (found["steps"], found["samples"])
    assert phase.facts.amount.tokens == pytest.approx(found["tokens"], rel=0.1)  # lengths are assumed


def test_a_budget_that_holds_is_written_and_one_that_does_not_stops(tmp_path: Path) -> None:
    output, verdict = tmp_path / "forecast.json", tmp_path / "budget.json"
    with pytest.raises(ParamsError, match=r"device-hours, forecast\.budget\.device_hours allows 1e-06; the largest: "):
        write_forecast(with_budget(1e-6), output, verdict)
    assert output.exists()
    assert not verdict.exists()
    write_forecast(with_budget(10.0), output, verdict)
    first = verdict.read_bytes()
    write_forecast(with_budget(20.0), output, verdict)
    assert verdict.read_bytes() == first


def test_a_phase_that_cannot_fit_is_warned_about() -> None:
    made = forecast()
    assert made.warnings() == []
    hardware = made.config.hardware.model_copy(update={"memory_gib": 0.501})
    warnings = replace(made, config=made.config.model_copy(update={"hardware": hardware})).warnings()
    assert len(warnings) == len(KEYS)
    assert "raise the ZeRO stage (0), lower micro_batch_size (16), offload, or take more devices" in warnings[0]


def test_sharding_leaves_each_device_its_part() -> None:
    whole = forecast().phases[-1].memory
    parts = [forecast(Change(num_devices=4, zero_stage=stage)).phases[-1].memory for stage in range(4)]
    assert parts[0].total == whole.total
    assert [part.optimizer for part in parts] == [whole.optimizer, *[whole.optimizer / 4] * 3]
    assert [part.gradients for part in parts] == [whole.gradients] * 2 + [whole.gradients / 4] * 2
    assert parts[2].weights == whole.weights > parts[3].weights > whole.weights / 4  # frozen encoders stay whole


def test_a_smaller_micro_batch_keeps_less() -> None:
    small = forecast(Change(micro_batch_size=4)).phases[-1].memory
    assert small.activations == pytest.approx(forecast().phases[-1].memory.activations / 4)


def test_the_json_holds_what_the_report_needs() -> None:
    value = json.loads(json.dumps(forecast_to_json(forecast())))
    phase = value["phases"]["runs.sva"]
    assert phase["stage"] == "finetune@sva"
    assert phase["flops"]["total"] == pytest.approx(
        sum(phase["flops"][part] for part in ("encoders", "connector", "llm")), rel=1e-3
    )
    assert phase["memory_gib"]["total"] * GIB > sum(phase["parameters"].values()) * 4
    assert value["total"]["device_hours"] == pytest.approx(
        sum(phase["device_hours"] for phase in value["phases"].values()), rel=1e-3
    )


def test_facts_that_changed_are_named_with_the_way_to_accept_them(tmp_path: Path) -> None:
    write_expected(tmp_path / "facts.txt", {"a": "1", "b": "2"})
    check_expected({"a": "1", "b": "2"}, tmp_path / "facts.txt")
    with pytest.raises(
        ArtifactError, match=r"2 facts .* b: expected 2, found 3; c: expected nothing, found 4.*--write"
    ):
        check_expected({"a": "1", "b": "3", "c": "4"}, tmp_path / "facts.txt")
    with pytest.raises(ArtifactError, match="`cambrian plan --write` makes it"):
        read_expected(tmp_path / "absent.txt")
