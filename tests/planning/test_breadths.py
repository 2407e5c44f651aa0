"""All rows that there are, at the paper's own size: also those that the default breadth leaves out."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cambrian.params import ParamsFiles
from cambrian.planning.experiment import read_experiment
from cambrian.planning.forecast import Change, make_forecast
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.planning.experiment import Experiment

# Llama 3 8B, Vicuna 13B, Hermes 2 Yi 34B: the numbers that their publishers' files hold
FINAL = {"runs.cambrian-8b": 8030261248, "runs.cambrian-13b": 13015864320, "runs.cambrian-34b": 34388917248}


@pytest.fixture
def everything(tmp_path: Path) -> Experiment:
    text, count = re.subn(r"^<<: \*\w+", "<<: *all", (ROOT / "params.yaml").read_text(), flags=re.MULTILINE)
    assert count == 1
    (tmp_path / "params.yaml").write_text(text)
    shutil.copytree(ROOT / "scales", tmp_path / "scales")
    return read_experiment(ParamsFiles(tmp_path, "paper"))


def test_the_largest_models_are_planned_with_every_row_there_is(everything: Experiment) -> None:
    assert len(everything.phases) > len(read_experiment(ParamsFiles(ROOT, "paper")).phases)
    phases = tuple(phase for phase in everything.phases if phase.key in FINAL)
    forecast = make_forecast(replace(everything, phases=phases), Change())
    facts = {phase.facts.plan.key: phase.facts for phase in forecast.phases}
    assert {key: found.model.parameters["llm"] for key, found in facts.items()} == FINAL
    assert all(found.model.parameters["encoders"] > 1e9 for found in facts.values())
    # a step's operations follow the LLM's size: 34B are more than 13B are more than 8B on equal samples
    flops = [facts[key].flops / facts[key].amount.tokens for key in FINAL]
    assert flops == sorted(flops)
    assert forecast.warnings() == [], "the final models fit the scale's own devices"
