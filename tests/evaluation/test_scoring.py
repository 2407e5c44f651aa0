from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cambrian.evaluation.replies import read_replies, write_replies
from cambrian.evaluation.scoring import grade_replies, score_replies
from cambrian.interfaces import ArtifactError, Item, Reply

if TYPE_CHECKING:
    from pathlib import Path


def item(benchmark: str, number: int, answer: str) -> Item:
    return Item(
        id=f"{benchmark}/{number}", benchmark=benchmark, question="?", choices=(), answers=(answer,), category="",
        group=str(number), image=None,
    )  # fmt: skip


ITEMS = {"GQA": [item("GQA", 0, "red"), item("GQA", 1, "blue")], "ChartQA": [item("ChartQA", 0, "100")]}
REPLIES = {
    "GQA": [
        Reply("GQA/1", "blue", True),  # any order
        Reply("GQA/0", "red", True),
        Reply("GQA/0", "red", False),
        Reply("GQA/1", "", False),
    ],
    "ChartQA": [Reply("ChartQA/0", "97", True), Reply("ChartQA/0", "7", False)],
}


def test_stored_replies_are_scored_without_a_model() -> None:
    result = score_replies(ITEMS, REPLIES)
    assert result["scores"]["GQA"] == {
        "with_image": 100,
        "without_image": 50,
        "standard_error": 0,
        "chance": 0,
        "items": 2,
    }
    assert result["categories"] == {
        "General": {"with_image": 100, "without_image": 50},
        "OCR & Chart": {"with_image": 100, "without_image": 0},
    }
    assert result["average"] == {"with_image": 100, "without_image": 25}


def test_a_run_without_images_has_no_score_with_them() -> None:
    blind = {name: [reply for reply in replies if not reply.with_image] for name, replies in REPLIES.items()}
    result = score_replies(ITEMS, blind)
    assert result["scores"]["GQA"]["with_image"] is None
    assert result["scores"]["GQA"]["without_image"] == 50
    assert result["scores"]["GQA"]["standard_error"] == pytest.approx(100 * (0.25 / 2) ** 0.5)
    assert result["categories"]["General"] == {"with_image": None, "without_image": 50}
    assert result["average"] == {"with_image": None, "without_image": 25}


def test_an_item_without_a_reply_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"no reply to GQA/1 \(1 items without a reply"):
        grade_replies(ITEMS["GQA"], REPLIES["GQA"][1:], with_image=True)


def test_a_reply_without_an_item_is_named() -> None:
    with pytest.raises(ArtifactError, match="a reply to GQA/9, which is no item"):
        grade_replies(ITEMS["GQA"], [*REPLIES["GQA"], Reply("GQA/9", "", True)], with_image=True)


def test_two_replies_to_one_item_are_refused() -> None:
    with pytest.raises(ArtifactError, match="two replies to GQA/0"):
        grade_replies(ITEMS["GQA"], [*REPLIES["GQA"], Reply("GQA/0", "blue", True)], with_image=True)


def test_replies_come_back_from_their_file_and_score_the_same(tmp_path: Path) -> None:
    path = tmp_path / "results" / "replies.parquet"
    write_replies(path, ITEMS, REPLIES)
    assert score_replies(ITEMS, read_replies(path)) == score_replies(ITEMS, REPLIES)


def test_equal_replies_give_equal_bytes(tmp_path: Path) -> None:
    write_replies(tmp_path / "a", ITEMS, REPLIES)
    write_replies(tmp_path / "b", ITEMS, {name: replies[::-1] for name, replies in REPLIES.items()})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_file_says_what_was_right(tmp_path: Path) -> None:
    import pyarrow.parquet

    write_replies(tmp_path / "a", ITEMS, REPLIES)
    rows = pyarrow.parquet.read_table(tmp_path / "a").to_pylist()
    assert rows[3] == {"item_id": "GQA/1", "benchmark": "GQA", "with_image": False, "reply": "", "correct": 0.0}
    assert len(rows) == 6


def test_a_half_written_file_of_replies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replies.parquet"
    write_replies(path, ITEMS, REPLIES)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ArtifactError, match=r"replies.parquet is not a file of replies"):
        read_replies(path)


def test_nothing_is_left_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "replies.parquet"
    path.mkdir()
    (path / "in the way").touch()
    with pytest.raises(ArtifactError, match="could not be written"):
        write_replies(path, ITEMS, REPLIES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["replies.parquet"]
