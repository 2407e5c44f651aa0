from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pytest
from PIL import Image

from cambrian.data.collecting.names import clean_name
from cambrian.data.shards import ImageStore
from cambrian.data.sources import read_catalog
from cambrian.interfaces import ArtifactError, RecordError
from tests.data.collecting.pools import LENIENT, collect, origin, pool, read_dropped, read_lines
from tests.data.pools import line, picture

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = {"image": "picture", "conversations": None, "question": "question", "answer": "answer"}


def write_dataset(path: Path, count: int) -> None:
    """What the hub's data sets are: Parquet as `datasets` writes it, pictures within."""
    features = datasets.Features(
        {"picture": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    )
    rows = {
        "picture": [Image.open(io.BytesIO(picture(number))) for number in range(count)],
        "question": ["what is it ?"] * count,
        "answer": [f"number {number}" for number in range(count)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


def test_a_data_set_in_parquet_becomes_records_and_pictures(tmp_path: Path) -> None:
    write_dataset(tmp_path / "source" / "train.parquet", 3)
    place = {"kind": "folder", "path": str(tmp_path / "source")}
    row = origin(place, records=["*.parquet"], archives=[], columns=COLUMNS, source="charts")
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    records = read_lines(folder)
    assert [turn["value"] for turn in records[1]["conversations"]] == ["<image>\nwhat is it ?", "number 1"]
    with ImageStore(folder) as store:
        found = [np.asarray(Image.open(io.BytesIO(store.read(record["image"])))) for record in records]
    expected = [np.asarray(Image.open(io.BytesIO(picture(number)))) for number in range(3)]
    assert all((one == other).all() for one, other in zip(found, expected, strict=True))


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_dataset(tmp_path / "source" / "train.parquet", 1)
    place = {"kind": "folder", "path": str(tmp_path / "source")}
    columns = {**COLUMNS, "answer": "reply"}
    row = origin(place, records=["*.parquet"], archives=[], columns=columns, source="charts")
    with pytest.raises(ArtifactError, match=r"train\.parquet has no column 'reply', it has picture, question, answer"):
        collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")


def test_a_list_is_read_object_by_object(tmp_path: Path) -> None:
    lines = [line(str(number), source="charts", answer="a cube, [or] {two}") for number in range(40)]
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "all.json").write_text(json.dumps(lines, indent=1))
    row = origin({"kind": "folder", "path": str(tmp_path / "source")}, records=["all.json"], archives=[])
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert len(read_lines(folder)) == 40
    assert read_dropped(folder) == []


def test_a_list_of_nothing_has_no_rows_and_one_that_is_too_deep_is_a_fault(tmp_path: Path) -> None:
    files = {"none.json": "[ ]", "deep.json": f"[{json.dumps(line('x', source='charts'))}, {'[' * 100_000}"}
    (tmp_path / "source").mkdir()
    for name, text in files.items():
        (tmp_path / "source" / name).write_text(text)
    row = origin({"kind": "folder", "path": str(tmp_path / "source")}, records=["*.json"], archives=[])
    folder = collect(pool(tmp_path, {"charts": row}, policies=LENIENT), tmp_path / "pool")
    assert len(read_lines(folder)) == 1
    assert read_dropped(folder) == [("charts/deep/00000002", "(unreadable)", "malformed-json")]


@pytest.mark.parametrize("image", ["", "None", "nan", None, float("nan")])
def test_every_way_to_say_no_image_is_understood(tmp_path: Path, image: object) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "all.jsonl").write_text(json.dumps({**line("x", source="charts"), "image": image}))
    row = origin({"kind": "folder", "path": str(tmp_path / "source")}, archives=[])
    assert "image" not in read_lines(collect(pool(tmp_path, {"charts": row}), tmp_path / "pool"))[0]


@pytest.mark.parametrize("name", ["/a.png", "a/../../b.png", "C:\\a.png", "..", "", "a\0.png", "\\\\host\\a.png"])
def test_names_that_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(RecordError, match=r"does not stay inside|control character"):
        clean_name(name)


def test_names_are_brought_to_one_form() -> None:
    assert clean_name("./a//b\\c.png", prefix="x/") == "x/a/b/c.png"
    assert clean_name("cafe\u0301.png") == "caf\u00e9.png"


def test_every_source_of_the_paper_says_where_it_comes_from_or_why_that_is_unknown() -> None:
    catalog = read_catalog()
    rows = {**catalog.instruction, **catalog.alignment}
    assert (len(catalog.instruction), len(catalog.alignment)) == (68, 3)
    for name, row in rows.items():
        assert row.origin in catalog.origins, name
        assert row.licence, name
        assert row.archive.endswith((".tar.gz", ".tar.gz_part*")) or row.archive.startswith(("unknown: ", "none: ")), (
            name
        )
    for row in catalog.origins.values():
        assert row.place.kind == "hub"
        assert len(row.place.revision) == 40
        assert row.sha256_unknown
