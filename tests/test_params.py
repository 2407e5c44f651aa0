from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError

from cambrian.interfaces import ParamsError
from cambrian.params import Params, ParamsFiles, look_up, parse_block, read_yaml

if TYPE_CHECKING:
    from pathlib import Path


class Muon(Params):
    kind: Literal["muon"]
    momentum: float


class AdamW(Params):
    kind: Literal["adamw"]


class Recipe(Params):
    epochs: int
    learning_rate: float
    layers: list[int]
    optimizer: Annotated[Muon | AdamW, Field(discriminator="kind")]


GOOD = {"epochs": 2, "learning_rate": 1.0e-3, "layers": [1, 2], "optimizer": {"kind": "muon", "momentum": 0.9}}


def parse(**changes: Any) -> Recipe:
    return parse_block(Recipe, {**GOOD, **changes}, where="recipes.study")


def test_a_block_is_read_and_cannot_be_changed() -> None:
    recipe = parse()
    assert recipe.optimizer == Muon(kind="muon", momentum=0.9)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.epochs = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 2}, r"^recipes\.study\.epoch: unknown field, did you mean 'epochs'\?$"),
        ({"zebra": 2}, r"^recipes\.study\.zebra: unknown field$"),
        ({"epochs": "2"}, r"^recipes\.study\.epochs: found '2', input should be a valid integer$"),
        ({"epochs": 2.0}, r"^recipes\.study\.epochs: found 2\.0, "),
        ({"epochs": True}, r"^recipes\.study\.epochs: found True, "),
        ({"learning_rate": "1e-3"}, r"^recipes\.study\.learning_rate: found '1e-3', input should be a valid number$"),
        ({"layers": [1, None]}, r"^recipes\.study\.layers\.1: found None, "),
        ({"optimizer": {"kind": "sgd"}}, r"^recipes\.study\.optimizer: .*'sgd'.*'muon', 'adamw'"),
    ],
)
def test_a_wrong_field_is_an_error_with_its_place_and_what_was_found(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse(**changes)


def test_a_missing_value_is_an_error_because_nothing_has_a_default() -> None:
    with pytest.raises(ParamsError, match=r"^recipes\.study\.epochs: missing, and it has no default"):
        parse_block(Recipe, {name: GOOD[name] for name in GOOD if name != "epochs"}, where="recipes.study")


def test_every_fault_of_a_block_is_named_at_once() -> None:
    with pytest.raises(ParamsError, match=r"recipes\.study\.epochs: .*; recipes\.study\.zebra: "):
        parse(epochs="2", zebra=1)


def test_a_whole_number_may_stand_where_a_number_is_expected() -> None:
    assert parse(learning_rate=1).learning_rate == 1.0


def test_an_unknown_name_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(ParamsError, match=r"^vision: unknown name 'clip-l-33'; did you mean 'clip-l-336'\?$"):
        look_up({"clip-l-336": 1, "sam": 2}, "clip-l-33", where="vision")
    with pytest.raises(ParamsError, match=r"^vision: unknown name 'zebra'; known: clip, sam$"):
        look_up({"sam": 2, "clip": 1}, "zebra", where="vision")


def write_files(root: Path, *, params: str = "scale: tiny\nseed: 3\n", meanings: str = "samples: 10\n") -> Path:
    (root / "scales").mkdir()
    (root / "params.yaml").write_text(params)
    (root / "scales/tiny.yaml").write_text(meanings)
    return root


def test_rows_meanings_blocks_and_counts_come_from_their_files(tmp_path: Path) -> None:
    params = "scale: tiny\nseed: 3\nruns:\n  clip: {kind: adamw}\n"
    meanings = "samples: 10\nruntime: {kind: adamw}\nrecipes:\n  study: {kind: muon, momentum: 1.0e-1}\n"
    files = ParamsFiles(write_files(tmp_path, params=params, meanings=meanings))
    assert files.seed == 3
    assert files.count("samples") == 10
    assert files.row("runs", "clip", AdamW) == files.block("runtime", AdamW) == AdamW(kind="adamw")
    assert files.meaning("recipes", "study", Muon).momentum == 0.1


def test_numbers_are_read_as_yaml_1_2_reads_them(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("rate: 1e-3\nanswer: no\n")
    assert read_yaml(tmp_path / "a.yaml") == {"rate": 0.001, "answer": "no"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda files: files.row("runs", "clpi", AdamW), r"params\.yaml: runs: unknown name 'clpi'; .*'clip'"),
        (lambda files: files.row("rusn", "clip", AdamW), r"params\.yaml: unknown name 'rusn'; .*'runs'"),
        (lambda files: files.row("runs", "clip", Muon), r"runs\.clip\.kind: found 'adamw'.*runs\.clip\.momentum: miss"),
        (lambda files: files.meaning("recipes", "stdy", Muon), r"scales/tiny\.yaml: .*'stdy'; did you mean 'study'"),
        (lambda files: files.block("runtme", Muon), r"scales/tiny\.yaml: unknown name 'runtme'; .*'runtime'"),
        (lambda files: files.count("sampels"), r"scales/tiny\.yaml: unknown name 'sampels'; .*'samples'"),
        (lambda files: files.count("runtime"), r"scales/tiny\.yaml: runtime: found .*expected a whole number"),
    ],
)
def test_a_name_that_is_not_in_the_files_is_an_error_with_its_file(tmp_path: Path, call: Any, message: str) -> None:
    params = "scale: tiny\nseed: 3\nruns:\n  clip: {kind: adamw}\n"
    meanings = "samples: 10\nruntime: {kind: adamw}\nrecipes:\n  study: {kind: muon, momentum: 1.0e-1}\n"
    files = ParamsFiles(write_files(tmp_path, params=params, meanings=meanings))
    with pytest.raises(ParamsError, match=message):
        call(files)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("scale: tniy\n", r"params\.yaml: scale is 'tniy', expected one of tiny"),
        ("seed: 0\n", r"params\.yaml: unknown name 'scale'"),
        ("scale: [\n", r"params\.yaml is not valid YAML: .* line"),
        ("scale: tiny\nscale: tiny\n", r"params\.yaml is not valid YAML: .*duplicate key"),
        ("scale: \x01\n", r"params\.yaml is not valid YAML: "),
        ("- 1\n", r"params\.yaml holds list, expected a mapping"),
        ("", r"params\.yaml holds NoneType, expected a mapping"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error(tmp_path: Path, params: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        ParamsFiles(write_files(tmp_path, params=params))


def test_a_missing_file_is_an_error_that_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"params\.yaml is missing: run from the project's root"):
        ParamsFiles(tmp_path)


@pytest.mark.parametrize("seed", ["-1", "1.5", "true", "'0'", "null"])
def test_a_seed_that_is_no_whole_number_is_an_error(tmp_path: Path, seed: str) -> None:
    files = ParamsFiles(write_files(tmp_path, params=f"scale: tiny\nseed: {seed}\n"))
    with pytest.raises(ParamsError, match=r"params\.yaml: seed: found .*expected a whole number of at least 0"):
        _ = files.seed
