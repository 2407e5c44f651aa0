from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cambrian.data.records import format_record, parse_record, read_records, write_records
from cambrian.interfaces import ArtifactError, Record, RecordError, Turn

if TYPE_CHECKING:
    from pathlib import Path

PICTURED = Record(
    id="gqa-1",
    source="GQA",
    turns=(Turn("human", "<image>\nwhat is it"), Turn("gpt", "a “cube”")),
    image="gqa/1.png",
)
TEXT = Record(id="orca-1", source="OpenOrca", turns=(Turn("human", "why"), Turn("gpt", "so")), image=None)


def line(**changes: Any) -> str:
    value = {
        "id": "1",
        "image": "1.png",
        "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}],
        "source": "GQA",
    } | changes
    return json.dumps({name: entry for name, entry in value.items() if entry != "absent"})


def test_a_line_of_the_release_is_a_record() -> None:
    assert parse_record(line()) == Record("1", "GQA", (Turn("human", "<image>\nq"), Turn("gpt", "a")), "1.png")


def test_a_record_without_an_image_has_none() -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert parse_record(line(image="absent", conversations=turns)).image is None
    assert parse_record(line(image=None, conversations=turns)).image is None


def test_fields_of_the_release_that_nobody_needs_are_not_read() -> None:
    assert parse_record(line(model="gpt-4")).id == "1"


def test_a_conversation_may_start_with_the_assistant() -> None:
    turns = [{"from": "gpt", "value": "hi"}, {"from": "human", "value": "<image> q"}, {"from": "gpt", "value": "a"}]
    assert parse_record(line(conversations=turns)).turns[0].speaker == "gpt"


@pytest.mark.parametrize("record", [PICTURED, TEXT])
def test_a_formatted_record_parses_to_itself(record: Record) -> None:
    assert parse_record(format_record(record)) == record


@given(st.text().filter(str.strip).filter(lambda text: "<image>" not in text))
def test_any_text_survives_the_format(text: str) -> None:
    record = Record(id="1", source="s", turns=(Turn("human", text), Turn("gpt", text)), image=None)
    formatted = format_record(record)
    assert "\n" not in formatted
    assert parse_record(formatted) == record


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ('{"id": "1", "conv', "malformed-json", "is not JSON"),
        ("", "malformed-json", "is not JSON"),
        ("[" * 100_000, "malformed-json", "is not JSON"),
        ("[1]", "wrong-type", "is a list, expected an object"),
        (line(id="absent"), "missing-field", "record has no field 'id', it has conversations, image, source"),
        (line(source="absent"), "missing-field", "record '1' has no field 'source'"),
        (line(conversations="absent"), "missing-field", "no field 'conversations'"),
        (line(id=7), "wrong-type", "field 'id' is a int, expected str"),
        (line(image=["1.png"]), "wrong-type", "field 'image' is a list, expected str"),
        (line(conversations={"from": "human"}), "wrong-type", "field 'conversations' is a dict, expected list"),
        (line(conversations=["hi"]), "wrong-type", "turn 0 is a str, expected an object"),
        (line(conversations=[{"from": "human"}]), "missing-field", "turn 0 has no field 'value', it has from"),
        (line(conversations=[{"from": "system", "value": "x"}]), "unknown-speaker", "is from 'system'"),
        (line(conversations=[]), "empty-conversation", "has no turns"),
        (line(conversations=[{"from": "human", "value": " "}]), "empty-field", "field 'value' is empty"),
        (line(id=""), "empty-field", "field 'id' is empty"),
        (line(conversations=[{"from": "human", "value": "q"}]), "image-placeholder", "0 times in its text, expected 1"),
        (line(image=None), "image-placeholder", "1 times in its text, expected 0"),
    ],
)
def test_a_line_that_is_no_record_says_what_it_is(text: str, reason: str, message: str) -> None:
    with pytest.raises(RecordError) as error:
        parse_record(text)
    assert error.value.reason == reason
    assert message in str(error.value)


def test_parquet_gives_back_the_records_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "records.parquet"
    write_records(path, [TEXT, PICTURED], {"GQA": "General", "OpenOrca": "Language"})
    assert read_records(path) == [TEXT, PICTURED]


def test_parquet_holds_the_category_of_each_source(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "records.parquet"
    write_records(path, [TEXT, PICTURED], {"GQA": "General", "OpenOrca": "Language"})
    assert parquet.read_table(path)["category"].to_pylist() == ["Language", "General"]


def test_parquet_of_no_records_reads_as_none(tmp_path: Path) -> None:
    write_records(tmp_path / "records.parquet", [], {})
    assert read_records(tmp_path / "records.parquet") == []


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_records(tmp_path / name, [TEXT, PICTURED] * 100, {"GQA": "General", "OpenOrca": "Language"})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_a_missing_file_of_records_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"records\.parquet is missing"):
        read_records(tmp_path / "records.parquet")


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "records.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ArtifactError, match=r"records\.parquet is not a file of records"):
        read_records(tmp_path / "records.parquet")
