"""Analysis sets: what is drawn and what is published have one format, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest

from cambrian.data.analysis_sets import AnalysisSet, write_analysis_set
from cambrian.data.world.words import SOLID_CLASSES
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.params import parse_block, read_yaml
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from pathlib import Path

WORLD: dict[str, Any] = read_yaml(ROOT / "scales" / "mini.yaml")["world"]
ONE_SOLID = {**WORLD, "scene": {**WORLD["scene"], "max_solids": 1}}


def build(values: dict[str, Any], output: Path, *, seed: int = 0) -> Path:
    write_analysis_set(parse_block(AnalysisSet, values, where="set"), name="a-set", seed=seed, output=output)
    return output


def read(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    return rows


def write_hub_folder(folder: Path, split: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """A folder as a clone of a hub's data set, and the row of a scale's file that names it."""
    kinds = {int: "int64", str: "string"}
    features = {
        key: {"_type": "Image"} if isinstance(value, dict) else {"dtype": kinds[type(value)], "_type": "Value"}
        for key, value in rows[0].items()
    }
    table = pyarrow.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    folder.mkdir(parents=True)
    pyarrow.parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return {
        "source": {"kind": "folder", "path": str(folder)},
        "layout": {"kind": "table", "configurations": ["default"], "split": split},
        "fields": list(rows[0]),
    }


def test_labels_are_drawn_evenly_and_the_parts_are_different_pictures(tmp_path: Path) -> None:
    values = {"kind": "generated-labels", "world": ONE_SOLID, "num_train": 300, "num_test": 60}
    folder = build(values, tmp_path / "a")
    train, test = read(folder / "train.parquet"), read(folder / "test.parquet")
    assert (len(train), len(test)) == (300, 60)
    assert {row["label"] for row in train} == set(range(len(SOLID_CLASSES)))
    assert not {row["image"]["bytes"] for row in train} & {row["image"]["bytes"] for row in test}
    again = build(values, tmp_path / "b")
    assert (again / "train.parquet").read_bytes() == (folder / "train.parquet").read_bytes()
    other = build(values, tmp_path / "c", seed=1)
    assert read(other / "train.parquet") != train


def test_a_label_of_several_solids_is_refused() -> None:
    values = {"kind": "generated-labels", "world": WORLD, "num_train": 3, "num_test": 3}
    with pytest.raises(ParamsError, match=r"max_solids is 4, expected 1"):
        parse_block(AnalysisSet, values, where="set")


def test_dialogues_follow_their_recipes_in_order(tmp_path: Path) -> None:
    recipes = {"captions": 4, "scenes": 2}
    folder = build({"kind": "generated-dialogues", "world": WORLD, "recipes": recipes}, tmp_path / "a")
    rows = read(folder / "dialogues.parquet")
    assert [len(row["turns"]) == 1 for row in rows] == [True] * 4 + [False] * 2
    assert {row["turns"][0]["question"] for row in rows[:4]} == {"describe the picture"}
    assert all(row["image"]["bytes"].startswith(b"\x89PNG") for row in rows)


def test_a_recipe_without_pictures_is_refused(tmp_path: Path) -> None:
    values = {"kind": "generated-dialogues", "world": WORLD, "recipes": {"facts": 3}}
    with pytest.raises(ParamsError, match="the recipe facts has conversations without a picture"):
        build(values, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_published_sets_are_brought_into_the_same_format(tmp_path: Path) -> None:
    picture = {"bytes": b"a picture", "path": "a.jpg"}
    parts = {
        part: write_hub_folder(tmp_path / part, split, [{"image": picture, "label": label} for label in labels])
        for part, split, labels in (("train", "train", [0, 1, 1]), ("test", "validation", [1]))
    }
    folder = build({"kind": "published-labels", **parts}, tmp_path / "labels")
    assert [row["label"] for row in read(folder / "train.parquet")] == [0, 1, 1]
    assert read(folder / "test.parquet") == [{"image": picture, "label": 1}]
    rows = [{"image": picture, "question": f"why {n}", "answer": "because"} for n in range(3)]
    questions = write_hub_folder(tmp_path / "questions", "test", rows)
    values = {"kind": "published-dialogues", "questions": questions, "num_dialogues": 2}
    folder = build(values, tmp_path / "dialogues")
    turns = [row["turns"] for row in read(folder / "dialogues.parquet")]
    assert turns == [[{"question": f"why {n}", "answer": "because"}] for n in range(2)]


def test_labels_that_are_no_numbers_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    picture = {"bytes": b"a picture", "path": "a.jpg"}
    part = write_hub_folder(tmp_path / "set", "train", [{"image": picture, "label": "cat"}])
    with pytest.raises(ArtifactError, match=r"a-set, train, rows 0 to 0: .*a whole number as label"):
        build({"kind": "published-labels", "train": part, "test": part}, tmp_path / "labels")
    assert not (tmp_path / "labels").exists()


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_the_published_sets_of_a_scale_stop_until_their_revision_is_known(scale: str, tmp_path: Path) -> None:
    sets = read_yaml(ROOT / "scales" / f"{scale}.yaml")["analysis_sets"]
    for name in ("labelled", "dialogues"):
        with pytest.raises(ParamsError, match=r"source.revision is unknown: look up the commit"):
            build(sets[name], tmp_path / name)


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    part = {
        "source": {"kind": "folder", "path": str(tmp_path / "nowhere")},
        "layout": {"kind": "table", "configurations": ["default"], "split": "train"},
        "fields": ["image", "label"],
    }
    with pytest.raises(ArtifactError, match=r"nowhere.*cannot be read"):
        build({"kind": "published-labels", "train": part, "test": part}, tmp_path / "labels")
