from __future__ import annotations

import base64
from pathlib import Path

import pytest

from flows.artifacts import (
    ArtifactFileError,
    build_key,
    find_files,
    read_image,
    read_table,
)


def test_only_what_the_stages_make_is_found_and_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "results/mini/tables/a.csv",
        "results/mini/tables/b.csv",
        "results/paper/tables/a.csv",
        "results/c.csv",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n1\n")
    outs = [tmp_path / "results/mini/tables", tmp_path / "results/c.csv"]
    assert find_files(["results/**/*.csv", "results/mini/tables/b.csv"], outs=outs) == [
        Path("results/c.csv"),
        Path("results/mini/tables/a.csv"),
        Path("results/mini/tables/b.csv"),
    ]


def test_a_table_keeps_its_cells_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('run,score\n"clip, frozen",41.50\nshort\n')
    assert read_table(path) == [{"run": "clip, frozen", "score": "41.50"}, {"run": "short", "score": ""}]


def test_bytes_that_are_no_table_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtifactFileError, match="not a CSV file"):
        read_table(path)


def test_an_image_becomes_a_data_uri(tmp_path: Path) -> None:
    path = tmp_path / "a.SVG"
    path.write_text("<svg/>")
    head, data = read_image(path).split(",")
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(data) == b"<svg/>"


def test_other_files_and_large_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(ArtifactFileError, match="not an image that browsers show"):
        read_image(tmp_path / "a.pdf")
    (tmp_path / "a.png").write_bytes(b"\0" * (4 * 2**20 + 1))
    with pytest.raises(ArtifactFileError, match="4194305 bytes"):
        read_image(tmp_path / "a.png")


def test_keys_are_what_prefect_takes() -> None:
    assert build_key(Path("results/mini/tables/Table_7 (b).csv")) == "results-mini-tables-table-7-b"
