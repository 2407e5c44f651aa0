from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest

from cambrian.artifacts import read_manifest
from cambrian.data.benchmark_sets import BenchmarksBlock, write_benchmarks
from cambrian.data.published.config import PublishedSet
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.params import parse_block
from tests.data.published.hub import COMMIT, serve_hub

if TYPE_CHECKING:
    from pathlib import Path

GQA = {"kind": "joined", "rows": "instructions", "pictures": "images", "row_key": "imageId", "picture_key": "id",
       "split": "testdev"}  # fmt: skip
MMVP = {"kind": "files", "table": "Questions.csv", "picture": "MMVP Images/{Index}.jpg", "picture_column": "image",
        "archive": None, "renamed": {"lndex": "Index"}}  # fmt: skip
QBENCH = {"kind": "files", "table": "dev.json", "picture": "images/{img_path}", "picture_column": "image",
          "archive": "images.tar", "renamed": {}}  # fmt: skip


def picture(name: str) -> dict[str, Any]:
    return {"bytes": f"file of {name}".encode(), "path": name}


def write_table(folder: Path, configuration: str, split: str, rows: list[dict[str, Any]]) -> None:
    """A Parquet file as the hub keeps it, with the columns' features, and the card that names its configuration."""
    features = {
        key: {"_type": "Image"} if isinstance(value, dict) else {"dtype": "string", "_type": "Value"}
        for key, value in rows[0].items()
    }
    table = pyarrow.Table.from_pylist(rows)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    (folder / configuration).mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(
        table.replace_schema_metadata(metadata), folder / configuration / f"{split}-00000-of-00001.parquet"
    )
    names = sorted(path.parent.name for path in folder.glob("*/*.parquet"))
    card = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: {split}\n    path: {name}/{split}-*\n" for name in names
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{card}---\n")


def write_gqa(folder: Path) -> None:
    write_table(folder, "images", "testdev", [{"id": name, "image": picture(f"{name}.jpg")} for name in ("n1", "n2")])
    write_table(
        folder,
        "instructions",
        "testdev",
        [
            {"id": str(number), "imageId": shown, "question": "Which?", "answer": "red", "fullAnswer": "It is red."}
            for number, shown in enumerate(("n2", "n1", "n2"))
        ],
    )


def write_mmvp(folder: Path) -> None:
    (folder / "MMVP Images").mkdir(parents=True)
    for number in (1, 2):
        (folder / "MMVP Images" / f"{number}.jpg").write_bytes(f"picture {number}".encode())
    (folder / "Questions.csv").write_text(
        "\ufefflndex,Question,Options,Correct Answer\n"
        '1,"Are the eyes open, or shut?",(a) Open (b) Shut,(a)\n'
        '2,"Are the eyes open, or shut?",(a) Open (b) Shut,(b)\n',
        encoding="utf-8",
    )


def write_qbench(folder: Path) -> None:
    folder.mkdir(parents=True)
    rows = [{"img_path": "a.jpg", "question": "Blurred?", "candidates": ["Yes", "No"], "correct_ans": "No", "type": 0}]
    (folder / "dev.json").write_text(json.dumps(rows))
    with tarfile.open(folder / "images.tar", "w") as archive:
        member = tarfile.TarInfo("images/a.jpg")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"jpg"))


def published_set(source: dict[str, Any], layout: dict[str, Any], fields: list[str]) -> dict[str, Any]:
    return {"source": source, "layout": layout, "fields": fields}


def block(sets: dict[str, Any]) -> BenchmarksBlock:
    return BenchmarksBlock.model_validate({"kind": "published", "sets": sets})


def in_folder(path: Path) -> dict[str, Any]:
    return {"kind": "folder", "path": str(path)}


def build(sets: dict[str, Any], output: Path) -> dict[str, list[dict[str, Any]]]:
    write_benchmarks(block(sets), seed=0, output=output)
    return {name: pyarrow.parquet.read_table(output / name / "test.parquet").to_pylist() for name in sets}


GQA_FIELDS = ["id", "question", "answer", "image"]


def test_rows_and_pictures_of_two_tables_are_joined(tmp_path: Path) -> None:
    write_gqa(tmp_path / "gqa")
    found = build({"GQA": published_set(in_folder(tmp_path / "gqa"), GQA, GQA_FIELDS)}, tmp_path / "out")
    assert [(row["id"], row["image"]["bytes"]) for row in found["GQA"]] == [
        ("0", b"file of n2.jpg"), ("1", b"file of n1.jpg"), ("2", b"file of n2.jpg"),
    ]  # fmt: skip
    assert set(found["GQA"][0]) == set(GQA_FIELDS)
    assert json.loads((tmp_path / "out" / "items.json").read_text()) == {"GQA": 3}
    assert read_manifest(tmp_path / "out")["sources"]["GQA"]["path"] == str(tmp_path / "gqa")


def test_a_table_of_questions_finds_its_picture_files(tmp_path: Path) -> None:
    write_mmvp(tmp_path / "mmvp")
    fields = ["Index", "Question", "Options", "Correct Answer", "image"]
    found = build({"MMVP": published_set(in_folder(tmp_path / "mmvp"), MMVP, fields)}, tmp_path / "out")
    assert found["MMVP"][1] == {
        "Index": "2", "Question": "Are the eyes open, or shut?", "Options": "(a) Open (b) Shut",
        "Correct Answer": "(b)", "image": {"bytes": b"picture 2", "path": "MMVP Images/2.jpg"},
    }  # fmt: skip


def test_a_cell_may_have_lines_and_a_line_any_character(tmp_path: Path) -> None:
    write_mmvp(tmp_path / "mmvp")
    table = '\ufefflndex,Question,Options,Correct Answer\r\n1,"Open?\nOr shut?",(a) Open (b) Shut,(a)\r\n'
    (tmp_path / "mmvp" / "Questions.csv").write_bytes(table.encode())
    row = {"Index": "1", "Question": "a\u2028b\u0085c"}
    (tmp_path / "mmvp" / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    sets = {
        name: published_set(in_folder(tmp_path / "mmvp"), {**MMVP, "table": file}, ["Question", "image"])
        for name, file in (("csv", "Questions.csv"), ("jsonl", "rows.jsonl"))
    }
    found = build(sets, tmp_path / "out")
    assert [row["Question"] for row in found["csv"]] == ["Open?\nOr shut?"]
    assert [row["Question"] for row in found["jsonl"]] == ["a\u2028b\u0085c"]


def test_pictures_may_lie_in_an_archive(tmp_path: Path) -> None:
    write_qbench(tmp_path / "q")
    fields = ["question", "candidates", "correct_ans", "image"]
    found = build({"Q-Bench": published_set(in_folder(tmp_path / "q"), QBENCH, fields)}, tmp_path / "out")
    assert found["Q-Bench"][0]["image"]["bytes"] == b"jpg"
    assert found["Q-Bench"][0]["candidates"] == ["Yes", "No"]


def test_several_configurations_are_read_one_after_the_other(tmp_path: Path) -> None:
    for name in ("Counting", "IQ_Test"):
        write_table(tmp_path / "blink", name, "val", [{"idx": f"val_{name}_1", "image_1": picture("x.jpg")}])
    layout = {"kind": "table", "configurations": ["IQ_Test", "Counting"], "split": "val"}
    found = build({"B": published_set(in_folder(tmp_path / "blink"), layout, ["idx", "image_1"])}, tmp_path / "out")
    assert [row["idx"] for row in found["B"]] == ["val_IQ_Test_1", "val_Counting_1"]


def test_a_revision_that_changed_its_fields_is_named(tmp_path: Path) -> None:
    write_gqa(tmp_path / "gqa")
    sets = {"GQA": published_set(in_folder(tmp_path / "gqa"), GQA, ["id", "query", "answer", "image"])}
    with pytest.raises(ArtifactError, match=r"has no column query \(it has id, imageId, question.*changed its fields"):
        build(sets, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_not_there_is_named(tmp_path: Path) -> None:
    write_mmvp(tmp_path / "mmvp")
    (tmp_path / "mmvp" / "MMVP Images" / "2.jpg").unlink()
    with pytest.raises(ArtifactError, match=r"row 1: no picture MMVP Images/2.jpg"):
        build({"MMVP": published_set(in_folder(tmp_path / "mmvp"), MMVP, ["Index", "image"])}, tmp_path / "out")


def test_half_an_archive_is_named(tmp_path: Path) -> None:
    write_qbench(tmp_path / "q")
    (tmp_path / "q" / "images.tar").write_bytes((tmp_path / "q" / "images.tar").read_bytes()[:514])
    with pytest.raises(ArtifactError, match=r"images.tar is no whole tar file"):
        build({"Q": published_set(in_folder(tmp_path / "q"), QBENCH, ["question", "image"])}, tmp_path / "out")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"):
        build({"GQA": published_set(in_folder(tmp_path / "nowhere"), GQA, GQA_FIELDS)}, tmp_path / "out")
    with pytest.raises(ArtifactError, match="nowhere is not a folder"):
        build({"MMVP": published_set(in_folder(tmp_path / "nowhere"), MMVP, ["Index"])}, tmp_path / "out")


def test_an_unknown_revision_says_where_to_look_it_up(tmp_path: Path) -> None:
    source = {"kind": "hub", "repository": "lmms-lab/GQA", "revision": "unknown"}
    with pytest.raises(ParamsError, match=r"benchmarks.sets.GQA.source.revision is unknown.*datasets/lmms-lab/GQA"):
        build({"GQA": published_set(source, GQA, GQA_FIELDS)}, tmp_path / "out")


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123456789abcdef"])
def test_a_branch_a_tag_or_a_short_id_is_no_revision(revision: str) -> None:
    source = {"kind": "hub", "repository": "lmms-lab/GQA", "revision": revision}
    with pytest.raises(ParamsError, match="expected a commit id of 40 digits"):
        parse_block(PublishedSet, published_set(source, GQA, GQA_FIELDS), where="benchmarks.sets.GQA")


HUB_SCRIPT = """
import json, sys
from pathlib import Path
from cambrian.data.benchmark_sets import BenchmarksBlock, write_benchmarks
write_benchmarks(BenchmarksBlock.model_validate(json.loads(sys.argv[1])), seed=0, output=Path(sys.argv[2]))
"""


def test_a_hub_gives_what_a_folder_gives(tmp_path: Path) -> None:
    write_gqa(tmp_path / "hub" / "lmms-lab" / "GQA")
    write_mmvp(tmp_path / "hub" / "MMVP" / "MMVP")

    def sets(where: str) -> dict[str, Any]:
        def source(repository: str) -> dict[str, Any]:
            if where == "folder":
                return in_folder(tmp_path / "hub" / repository)
            return {"kind": "hub", "repository": repository, "revision": COMMIT}

        return {
            "GQA": published_set(source("lmms-lab/GQA"), GQA, GQA_FIELDS),
            "MMVP": published_set(source("MMVP/MMVP"), MMVP, ["Index", "Question", "image"]),
        }

    expected = build(sets("folder"), tmp_path / "from-folder")
    with serve_hub(tmp_path / "hub") as address:
        environment = {
            **os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1",
        }  # fmt: skip
        argument = json.dumps({"kind": "published", "sets": sets("hub")})
        done = subprocess.run(
            [sys.executable, "-c", HUB_SCRIPT, argument, str(tmp_path / "from-hub")],
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name, rows in expected.items():
        assert pyarrow.parquet.read_table(tmp_path / "from-hub" / name / "test.parquet").to_pylist() == rows
    manifest = read_manifest(tmp_path / "from-hub")
    assert manifest["sources"]["MMVP"] == {"kind": "hub", "repository": "MMVP/MMVP", "revision": COMMIT}
