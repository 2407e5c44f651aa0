from __future__ import annotations

import os
import pickle
from itertools import count
from typing import TYPE_CHECKING

import pytest

from cambrian.artifacts import write_folder
from cambrian.data.image_index import map_index
from cambrian.data.made_once import make_once
from cambrian.data.mapped_records import LINES_NAME, MappedRecords, map_records, write_mapped
from cambrian.data.records import read_records, write_records
from cambrian.interfaces import ArtifactError, Record, Turn
from tests.data.test_shards import IMAGES, write_images

if TYPE_CHECKING:
    from pathlib import Path

TURNS = (Turn("human", "<image>\nwas\u2028"), Turn("gpt", "rot\n"))
RECORDS = [Record(f"r{n}", "Quelle ä", TURNS, f"{n}.png" if n % 3 else None) for n in range(10)]


def write_mix(folder: Path, records: list[Record]) -> None:
    with write_folder(folder) as partial:
        write_records(partial / "records.parquet", records, {"Quelle ä": "General"})


def test_mapped_records_are_those_of_the_mix(tmp_path: Path) -> None:
    write_mix(tmp_path / "mix", RECORDS)
    mapped = map_records(tmp_path / "mix", tmp_path / "mapped")
    assert list(mapped) == read_records(tmp_path / "mix/records.parquet") == RECORDS
    assert (mapped[-1], mapped[2:4]) == (RECORDS[-1], RECORDS[2:4])
    with pytest.raises(IndexError, match="record 10 of 10"):
        mapped[10]


def test_a_mix_is_mapped_once_and_another_mix_apart(tmp_path: Path) -> None:
    write_mix(tmp_path / "mix", RECORDS)
    map_records(tmp_path / "mix", tmp_path / "mapped")
    (folder,) = (tmp_path / "mapped").iterdir()
    before = (folder / LINES_NAME).stat().st_mtime_ns
    map_records(tmp_path / "mix", tmp_path / "mapped")
    assert (folder / LINES_NAME).stat().st_mtime_ns == before
    write_mix(tmp_path / "mix", RECORDS[:3])
    assert len(map_records(tmp_path / "mix", tmp_path / "mapped")) == 3


def test_no_records_can_be_mapped(tmp_path: Path) -> None:
    write_mix(tmp_path / "mix", [])
    assert list(map_records(tmp_path / "mix", tmp_path / "mapped")) == []


def test_workers_read_beside_each_other(tmp_path: Path) -> None:
    make_once(tmp_path / "mapped", lambda folder: write_mapped(folder, RECORDS))
    mapped = MappedRecords(tmp_path / "mapped")
    assert pickle.loads(pickle.dumps(mapped))[7] == RECORDS[7]
    child = os.fork()
    if child == 0:
        os._exit(0 if list(mapped) == RECORDS else 1)
    assert list(mapped) == RECORDS
    assert os.waitpid(child, 0)[1] == 0


def test_lines_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    make_once(tmp_path / "mapped", lambda folder: write_mapped(folder, RECORDS))
    os.truncate(tmp_path / "mapped" / LINES_NAME, 100)
    with pytest.raises(ArtifactError, match=r"records\.jsonl has 100 bytes, the manifest says"):
        MappedRecords(tmp_path / "mapped")


def test_a_mapped_index_finds_every_image_and_nothing_else(tmp_path: Path) -> None:
    write_images(tmp_path / "pool", max_bytes=3000)
    index = map_index(tmp_path / "pool/images.json", tmp_path / "mapped")
    assert len(index) == len(IMAGES)
    assert all(index.find(name) is not None for name in IMAGES)
    assert index.find("absent") is None
    assert pickle.loads(pickle.dumps(index)).find("source/3.png") == index.find("source/3.png")


def test_a_pool_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"images\.json is missing"):
        map_index(tmp_path / "images.json", tmp_path / "mapped")


def test_the_first_of_several_makers_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = count()
    monkeypatch.setattr(os, "getpid", lambda: next(processes))

    def write(folder: Path) -> None:  # while this one writes, another is done
        make_once(tmp_path / "made", lambda other: write_mapped(other, RECORDS[:2]))
        write_mapped(folder, RECORDS[:2])

    make_once(tmp_path / "made", write)
    assert list(MappedRecords(tmp_path / "made")) == RECORDS[:2]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
