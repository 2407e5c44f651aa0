from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from cambrian.interfaces import ParamsError
from cambrian.params import ParamsFiles
from cambrian.planning.experiment import read_experiment
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCALES = ["mini"]


def edit(folder: Path, name: str, change: Callable[[Any], None]) -> ParamsFiles:
    """The project's params with one change."""
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "scales", folder / "scales")
    yaml = YAML(typ="safe")
    value = yaml.load((folder / name).read_text())
    change(value)
    with (folder / name).open("w") as file:
        yaml.dump(value, file)
    return ParamsFiles(folder, "mini")


@pytest.mark.parametrize("scale", SCALES)
def test_every_row_of_every_scale_resolves(scale: str) -> None:
    files = ParamsFiles(ROOT, scale)
    experiment = read_experiment(files)
    assert len(experiment.phases) == len(files.rows("adapters")) + len(files.rows("runs")) > 20
    assert all(phase.num_records > 0 for phase in experiment.phases if phase.mix != "none")


def test_a_misspelt_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    files = edit(tmp_path, "params.yaml", lambda params: params["runs"]["sva"].update(recipe="stduy"))
    with pytest.raises(ParamsError, match=r"runs\.sva\.recipe: unknown name 'stduy'; did you mean 'study'\?"):
        read_experiment(files)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    def spoil(params: Any) -> None:
        params["runs"]["sva"]["mix"] = "instruct-736k"
        params["runs"]["clip-5m"]["adapter"] = "clip-1201k"
        params["adapters"]["clip-558k"]["connector"] = "mpl"

    with pytest.raises(ParamsError) as error:
        read_experiment(edit(tmp_path, "params.yaml", spoil))
    text = str(error.value)
    assert "runs.sva.mix" in text
    assert "runs.clip-5m.adapter: unknown name 'clip-1201k'; did you mean 'clip-1200k'?" in text
    assert "adapters.clip-558k.connector: unknown name 'mpl'; did you mean 'mlp'?" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"encoders": ["vicuna-7b", "none", "none", "none"]},
            "'vicuna-7b' is a trained-language-model, expected an enc",
        ),
        ({"llm": "clip-l-336"}, "'clip-l-336' is a trained-encoder, expected a language model"),
        ({"mix": "instruct-737k"}, "is of pool 'instruction', but align reads the images of 'alignment'"),
    ],
)
def test_a_name_of_the_wrong_kind_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    files = edit(tmp_path, "params.yaml", lambda params: params["adapters"]["clip-558k"].update(change))
    with pytest.raises(ParamsError, match=message):
        read_experiment(files)


def test_a_run_has_its_adapters_encoders(tmp_path: Path) -> None:
    files = edit(tmp_path, "params.yaml", lambda params: params["runs"]["sva"].update(adapter="clip-1200k"))
    with pytest.raises(ParamsError, match=r"runs\.sva\.encoders: found .* but its adapter clip-1200k has"):
        read_experiment(files)


def test_a_pool_without_assumptions_is_refused(tmp_path: Path) -> None:
    files = edit(tmp_path, "scales/mini.yaml", lambda scale: scale["forecast"]["samples"].pop("alignment"))
    with pytest.raises(ParamsError, match=r"forecast\.samples: unknown name 'alignment'"):
        read_experiment(files)
