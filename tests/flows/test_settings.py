from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flows.settings import Needs, Settings, SettingsError, fill_path, read_settings

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(text)
    return path


def test_patterns_come_from_pyproject(tmp_path: Path) -> None:
    settings = read_settings(write(tmp_path, '[tool.flows]\ntable_artifacts = ["results/*.csv"]\n'))
    assert (settings.table_artifacts, settings.image_artifacts) == (("results/*.csv",), ())


def test_without_a_block_or_a_file_nothing_is_set(tmp_path: Path) -> None:
    for path in (write(tmp_path, "[project]\n"), tmp_path / "none.toml"):
        assert read_settings(path) == Settings(
            table_artifacts=(),
            image_artifacts=(),
            link_artifacts=(),
            noise_metric="standard_error",
            compare=(),
            difference_file="",
            actual_file="",
            needs=(),
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "tables = []",
            r"tool\.flows\.tables is unknown; expected table_artifacts, image_artifacts, link_artifacts, noise",
        ),
        ('table_artifacts = "a.csv"', r"tool\.flows\.table_artifacts is 'a\.csv'; expected a list"),
        ("image_artifacts = [1]", r"tool\.flows\.image_artifacts is \[1\]; expected a list"),
        ("noise_metric = 1", r"tool\.flows\.noise_metric is 1; expected a name"),
        ("actual_file = 1", r"tool\.flows\.actual_file is 1; expected a name"),
        ('compare."a.csv" = {title = "A"}', r"compare\.a\.csv is .*; expected title, keys and word"),
        (
            'compare."a.csv" = {title = "A", keys = "id", word = "verdict"}',
            r"compare\.a\.csv\.keys is 'id'; expected a list of columns",
        ),
        (
            'compare."a.csv" = {title = "A", keys = ["id"], word = "verdict", effect = "x"}',
            r"expected title, keys and word, and of title, keys, word, number",
        ),
        ("compare = 3", r"tool\.flows\.compare is 3; expected a table of file patterns"),
        ("needs = 3", r"tool\.flows\.needs is 3; expected a table"),
        ("needs.train = 3", r"tool\.flows\.needs\.train is 3; expected a table of cpus"),
        (
            "needs.train = {gpu = 1}",
            r"tool\.flows\.needs\.train\.gpu is unknown; expected cpus, memory_gib, gpus, limit_s",
        ),
        ("needs.train = {gpus = 0.5}", r"train\.gpus is 0\.5; expected a whole number"),
        ("needs.train = {cpus = true}", r"train\.cpus is True; expected a whole number"),
        ("needs.train = {limit_s = -1}", r"train\.limit_s is -1; expected a number from 0 on"),
    ],
)
def test_a_wrong_block_is_refused(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(write(tmp_path, f"[tool.flows]\n{line}\n"))


def make(**needs: dict[str, Any]) -> Settings:
    return Settings(
        table_artifacts=(),
        image_artifacts=(),
        link_artifacts=(),
        noise_metric="standard_error",
        compare=(),
        difference_file="",
        actual_file="",
        needs=tuple(needs.items()),
    )


def test_a_stage_of_which_nothing_is_said_takes_one_processor() -> None:
    assert make().find_needs("train", meta=None, params={}) == Needs(cpus=1, memory_gib=0, gpus=None, limit_s=None)


def test_later_patterns_win_and_the_stage_itself_wins_over_them() -> None:
    settings = Settings(
        (), (), (), "noise", needs=(("train@*", {"gpus": 1, "cpus": 2}), ("train@large", {"gpus": 4}), ("x", {}))
    )
    assert settings.find_needs("train@small", meta={"other": 1}, params={}).gpus == 1
    large = settings.find_needs("train@large", meta={"flows": {"cpus": 8}}, params={})
    assert (large.gpus, large.cpus) == (4, 8)
    assert settings.find_needs("sub/dvc.yaml:train@small", meta=None, params={}).gpus == 1
    assert settings.find_needs("test", meta=None, params={}).gpus is None


def test_a_need_may_be_a_param_that_the_stage_tracks() -> None:
    settings = make(train={"cpus": "runtime.threads", "memory_gib": "size"})
    params = {"size": 1.5, "scales/mini.yaml:runtime": {"threads": 2}}
    assert settings.find_needs("train", meta=None, params=params) == Needs(2, 1.5, None, None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, r"train is to need as much as its param 'runtime\.threads' says, which it does not track"),
        ({"runtime": {"device": "cpu"}}, "which it does not track"),
        ({"runtime": {"threads": "two"}}, "train: runtime.threads, as its cpus, is 'two'; expected a number"),
        ({"runtime.threads": 0.5}, r"train: runtime\.threads as\.cpus is 0\.5; expected a whole number"),
    ],
)
def test_a_param_that_is_no_number_is_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make(train={"cpus": "runtime.threads"}).find_needs("train", meta=None, params=params)


def test_a_wrong_need_in_dvc_yaml_names_its_stage() -> None:
    with pytest.raises(SettingsError, match=r"dvc\.yaml: train@small: meta\.flows\.gpu is unknown"):
        make().find_needs("train@small", meta={"flows": {"gpu": 1}}, params={})


def test_a_path_is_filled_with_values_of_params_yaml(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("scale: mini\n")
    assert str(fill_path("results/{scale}/actual.json", params)) == "results/mini/actual.json"
    with pytest.raises(SettingsError, match="names 'size', which is no top-level value"):
        fill_path("results/{size}/actual.json", params)
    with pytest.raises(SettingsError, match="is no path with names in braces"):
        fill_path("results/{scale/actual.json", params)
