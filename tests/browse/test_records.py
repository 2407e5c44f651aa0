from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pyarrow import parquet

from cambrian.browse.records import KEPT, RecordBrowser
from cambrian.interfaces import ArtifactError, RecordError
from tests.data.collecting.pools import clean as clean_pool
from tests.data.pools import line, picture, write_pool

if TYPE_CHECKING:
    from pathlib import Path


def find(records: RecordBrowser, record_id: str) -> int:
    (number,) = records.select(source=None, category=None, reason=None, text=record_id)
    return number


def test_kept_and_dropped_are_counted_by_source_category_and_reason(clean: Path, pool: Path) -> None:
    records = RecordBrowser(clean, pool)
    assert records.count("reason") == {KEPT: 3, "malformed-json": 1, "missing-image": 1, "starts-with-answer": 1}
    assert records.count("source") == {"ChartQA": 2, "LLaVA150K": 2, "(unreadable)": 1, "MathInstruct": 1}
    assert records.count("category") == {"General": 2, "OCR": 2, "(unknown)": 1, "Math": 1}


def test_filters_hold_together(clean: Path, pool: Path) -> None:
    records = RecordBrowser(clean, pool)

    def ids(**wanted: str) -> list[str]:
        chosen = {"source": None, "category": None, "reason": None, "text": "", **wanted}
        return [records.row(number)["id"] for number in records.select(**chosen)]  # type: ignore[arg-type]

    assert ids() == ["a", "b", "c", "d", "f", "line 5"]
    assert ids(category="OCR") == ["b", "d"]
    assert ids(category="OCR", reason=KEPT) == ["b"]
    assert ids(source="ChartQA", reason="missing-image") == ["d"]
    assert ids(text="line") == ["line 5"]
    assert ids(source="ChartQA", text="zebra") == []


def test_a_kept_record_is_shown_with_its_conversation_and_picture(clean: Path, pool: Path) -> None:
    records = RecordBrowser(clean, pool)
    shown = records.show(find(records, "b"))
    assert shown.record is not None
    assert [turn.text for turn in shown.record.turns] == ["<image>\nhow tall ?", "a cube"]
    assert records.read_image("1.png") == picture(1)


def test_a_dropped_record_is_shown_as_it_stood_in_the_pool(clean: Path, pool: Path) -> None:
    records = RecordBrowser(clean, pool)
    shown = records.show(find(records, "f"))
    assert shown.record is not None
    assert shown.record.turns[0].text == "yes"
    assert shown.row["reason"] == "starts-with-answer"
    broken = records.show(find(records, "line 5"))
    assert broken.record is None
    assert broken.raw == '{"id": "e", "conv'


def test_a_raw_pool_is_read_line_by_line(pool: Path) -> None:
    records = RecordBrowser(pool, pool)
    assert records.count("reason") == {KEPT: 6}
    assert records.show(find(records, "c")).row["category"] == "Math"
    assert records.show(find(records, "line 5")).raw == '{"id": "e", "conv'


def test_a_dropped_record_is_found_however_its_line_writes_the_id(tmp_path: Path) -> None:
    dropped = {**line("größe"), "conversations": [{"from": "gpt", "value": "yes"}]}
    for name, is_ascii in (("escaped", True), ("plain", False)):
        pool = write_pool(tmp_path / "pools" / name, [line("a"), json.dumps(dropped, ensure_ascii=is_ascii)])
        records = RecordBrowser(clean_pool(pool, tmp_path / "clean" / name, max_lost_share=1.0), pool)
        shown = records.show(find(records, "größe"))
        assert shown.record is not None
        assert [turn.text for turn in shown.record.turns] == ["yes"]


class Interrupted(RecordBrowser):
    """Whenever it has read a group of rows, another thread's request for the last row comes in between."""

    is_asking = False

    @property
    def _record_batches(self) -> Any:
        return self.__dict__.get("held")

    @_record_batches.setter
    def _record_batches(self, value: Any) -> None:
        self.__dict__["held"] = value
        if value is not None and not self.is_asking:
            self.is_asking = True
            self.show(self.num_rows - 1)
            self.is_asking = False


def test_a_request_of_another_thread_does_not_change_the_record_that_is_shown(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pools" / "p", [line(str(n), answer=f"it is {n}") for n in range(4)])
    folder = clean_pool(pool, tmp_path / "clean" / "p", max_lost_share=1.0)
    records = Interrupted(folder, pool)
    path = folder / "records.parquet"
    parquet.write_table(parquet.read_table(path), path, row_group_size=1)
    shown = [records.show(number).record for number in range(4)]
    assert [record.id for record in shown if record is not None] == ["0", "1", "2", "3"]


def test_what_is_missing_is_named(clean: Path, pool: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing or was not finished"):
        RecordBrowser(tmp_path, None)
    records = RecordBrowser(clean, None)
    with pytest.raises(RecordError, match="name it with --pool"):
        records.read_image("0.png")
    with pytest.raises(RecordError, match="row 6 is not one of 6"):
        records.show(6)
