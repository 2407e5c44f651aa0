from __future__ import annotations

import errno
import json
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from cambrian.artifacts import read_json, read_manifest
from cambrian.data import cleaning
from cambrian.data.cleaning import CleaningConfig, clean_pool
from cambrian.data.records import read_records
from cambrian.interfaces import ArtifactError
from tests.data.pools import line, picture, recompress, write_pool

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = CleaningConfig(min_image_side=16, hash_side=8, max_duplicate_distance=0, max_lost_share=1.0)


def clean(tmp_path: Path, lines: list[Any], images: dict[str, bytes] | None = None, **changes: Any) -> dict[str, Any]:
    """What a pool of these lines becomes: kept ids, reasons by id, the ledger."""
    pool = write_pool(tmp_path / "pool", lines, images)
    config = CONFIG.model_copy(update=changes)
    clean_pool(config, pool=pool, output=tmp_path / "clean")
    dropped = pq.read_table(tmp_path / "clean/dropped.parquet").to_pylist()
    return {
        "kept": [record.id for record in read_records(tmp_path / "clean/records.parquet")],
        "reasons": {row["id"]: row["reason"] for row in dropped},
        "details": {row["id"]: row["detail"] for row in dropped},
        "ledger": read_json(tmp_path / "clean/ledger.json"),
    }


def with_turns(record_id: str, *speakers: str) -> dict[str, Any]:
    turns = [{"from": speaker, "value": f"{speaker} {number}"} for number, speaker in enumerate(speakers)]
    return {**line(record_id), "conversations": turns}


def test_usable_records_are_kept_in_id_order(tmp_path: Path) -> None:
    lines = [line("b", image="one.png"), line("a", answer="a sphere"), line("c", answer="a cone")]
    found = clean(tmp_path, lines, {"one.png": picture(1)})
    assert found["kept"] == ["a", "b", "c"]
    assert found["reasons"] == {}
    assert read_manifest(tmp_path / "clean")["files"].keys() == {
        "records.parquet", "dropped.parquet", "ledger.json", "sources.json",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "name", "reason"),
    [
        ('{"id": "x", "source": ', "line 2", "malformed-json"),
        ("", "line 2", "malformed-json"),
        ("[1, 2]", "line 2", "wrong-type"),
        (f'{{"id": {"9" * 5000}}}', "line 2", "malformed-json"),
        (b'{"id": "x", "source": "LLaVA150K", "text": "\xff"}', "x", "wrong-encoding"),
        (json.dumps(line("x", answer="\ud800")), "x", "wrong-encoding"),
        ({**line("x"), "conversations": "hello"}, "x", "wrong-type"),
        ({**line("x"), "conversations": []}, "x", "empty-conversation"),
        (line("x", source="LAION"), "x", "unknown-source"),
        (with_turns("x", "gpt", "human"), "x", "starts-with-answer"),
        (with_turns("x", "human"), "x", "no-answer"),
        (with_turns("x", "human", "human"), "x", "speakers-do-not-alternate"),
        (line("x", answer=" "), "x", "empty-field"),
        (line("x", image="one.png", question=" "), "x", "empty-field"),
        ({**line("x"), "image": "one.png"}, "x", "image-placeholder"),
        (line("x", question="<image> what ?"), "x", "image-placeholder"),
        (line("x", image="none.png"), "x", "missing-image"),
        (line("x", image="half.png"), "x", "undecodable-image"),
        (line("x", image="text.png"), "x", "undecodable-image"),
        (line("x", image="empty.png"), "x", "undecodable-image"),
        (line("x", image="small.png"), "x", "image-too-small"),
    ],
)
def test_a_bad_record_is_dropped_with_its_reason_and_the_rest_stays(
    tmp_path: Path, bad: Any, name: str, reason: str
) -> None:
    images = {
        "one.png": picture(1),
        "half.png": picture(2)[:-40],
        "text.png": b"not an image",
        "empty.png": b"",
        "small.png": picture(3, side=12),
    }
    found = clean(tmp_path, [line("a"), bad, line("z", image="one.png")], images)
    assert found["kept"] == ["a", "z"]
    assert found["reasons"] == {name: reason}


def test_the_first_of_equal_records_in_id_order_stays(tmp_path: Path) -> None:
    images = {"one.png": picture(1), "copy.png": picture(1), "other.png": picture(2)}
    lines = [
        line("c", image="copy.png"),
        line("b", image="one.png"),
        line("d", image="other.png"),
        line("e", image="one.png", answer="a sphere"),
    ]
    found = clean(tmp_path, lines, images)
    assert found["kept"] == ["b", "d", "e"]
    assert found["reasons"] == {"c": "exact-duplicate"}
    assert found["details"]["c"] == "same words and image as b"


def test_the_same_picture_in_other_bytes_with_the_same_words_is_a_near_duplicate(tmp_path: Path) -> None:
    images = {"one.png": picture(1), "one.bmp": recompress(picture(1))}
    lines = [line("a", image="one.png"), line("b", image="one.bmp"), line("c", image="one.bmp", answer="a sphere")]
    found = clean(tmp_path, lines, images)
    assert found["kept"] == ["a", "c"]
    assert found["reasons"] == {"b": "near-duplicate"}


def test_texts_that_differ_only_in_case_and_space_are_near_duplicates(tmp_path: Path) -> None:
    found = clean(tmp_path, [line("a", answer="A  Cube"), line("b", answer="a cube"), line("c", image="one.png")],
                  {"one.png": picture(1)})  # fmt: skip
    assert found["kept"] == ["a", "c"]
    assert found["reasons"] == {"b": "near-duplicate"}


def test_a_repeated_id_stays_once(tmp_path: Path) -> None:
    lines = [line("a", answer="a sphere"), line("a", answer="a cube")]
    forward = clean(tmp_path / "1", lines)
    backward = clean(tmp_path / "2", lines[::-1])
    assert forward["kept"] == backward["kept"] == ["a"]
    assert forward["reasons"] == {"a": "duplicate-id"}
    assert (tmp_path / "1/clean/records.parquet").read_bytes() == (tmp_path / "2/clean/records.parquet").read_bytes()


def test_the_ledger_adds_up_per_step_and_source(tmp_path: Path) -> None:
    lines = [
        line("a"), line("b"), "{", line("c", source="ChartQA", image="none.png"), line("d", source="LAION"),
        line("e", source="MathInstruct", question="two and two ?", answer="four"),
    ]  # fmt: skip
    found = clean(tmp_path, lines)
    steps = {step["step"]: step for step in found["ledger"]["steps"]}
    assert list(steps) == ["read", "images", "exact duplicates", "near duplicates"]
    assert [(step["in"], step["out"]) for step in steps.values()] == [(6, 4), (4, 3), (3, 2), (2, 2)]
    assert steps["read"]["dropped"] == {"malformed-json": 1, "unknown-source": 1}
    assert steps["read"]["sources"]["LAION"] == {"in": 1, "out": 0, "dropped": {"unknown-source": 1}}
    assert steps["images"]["sources"]["ChartQA"] == {"in": 1, "out": 0, "dropped": {"missing-image": 1}}
    assert steps["exact duplicates"]["sources"]["LLaVA150K"] == {"in": 2, "out": 1, "dropped": {"exact-duplicate": 1}}
    assert found["ledger"]["lost_share"] == pytest.approx(4 / 6)


def test_too_many_lost_records_stop_the_stage_and_name_the_worst_source(tmp_path: Path) -> None:
    lines = [line("a"), line("b", source="ChartQA", image="none.png"), line("c", source="ChartQA", image="none.png")]
    with pytest.raises(ArtifactError, match=r"2 of 3 records cannot be used \(66\.7%\).*allows 50\.0%.*"
                       r"ChartQA lost 2 of 2 \(as b: missing-image"):  # fmt: skip
        clean(tmp_path, lines, max_lost_share=0.5)
    assert not (tmp_path / "clean").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool"]


def test_an_unfinished_pool_is_refused(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", [line("a")])
    (pool / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"pool has no manifest\.json"):
        clean_pool(CONFIG, pool=pool, output=tmp_path / "clean")


def test_an_empty_pool_gives_an_empty_clean_pool(tmp_path: Path) -> None:
    found = clean(tmp_path, [])
    assert found["kept"] == []
    assert found["ledger"]["lost_share"] == 0.0


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(path: Path, *_: Any) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cleaning, "write_records", fill_disk)
    with pytest.raises(ArtifactError, match=r"clean could not be written: .*No space left on device.*Nothing was left"):
        clean(tmp_path, [line("a")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pool"]


def test_the_same_pool_gives_the_same_bytes(tmp_path: Path) -> None:
    images = {"one.png": picture(1), "half.png": picture(2)[:-40]}
    lines = [line("b", image="one.png"), line("a"), line("c", image="half.png"), "{"]
    clean(tmp_path / "1", lines, images)
    clean(tmp_path / "2", [lines[3 - 3], *lines[1:]], images)
    names = sorted(path.name for path in (tmp_path / "1/clean").iterdir())
    assert len(names) == 5
    for name in names:
        assert (tmp_path / "1/clean" / name).read_bytes() == (tmp_path / "2/clean" / name).read_bytes()
