from __future__ import annotations

import errno
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import json as arrow_json

from cambrian.artifacts import read_json, read_manifest
from cambrian.data import cleaning
from cambrian.data.cleaning import CleaningConfig, clean_pool
from cambrian.data.lines import LineParser, iter_lines, parse_usable
from cambrian.data.partitions import PartitionsConfig
from cambrian.data.records import read_records
from cambrian.data.scanning import plan_chunks
from cambrian.interfaces import ArtifactError, ParamsError, RecordError
from cambrian.params import parse_block
from tests.data.pools import line, picture, recompress, write_pool

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = CleaningConfig(
    max_line_bytes=10_000, min_image_side=16, hash_side=8, max_duplicate_distance=0, fatal_reasons=[],
    max_lost_share=1.0,
)  # fmt: skip
PARTITIONS = PartitionsConfig(kind="processes", num_processes=1, chunk_bytes=2**20, bucket_bytes=2**20)


def clean(tmp_path: Path, lines: list[Any], images: dict[str, bytes] | None = None, **changes: Any) -> dict[str, Any]:
    """What a pool of these lines becomes: kept ids, reasons by id, the ledger."""
    pool = write_pool(tmp_path / "pool", lines, images)
    config = CONFIG.model_copy(update=changes)
    clean_pool(config, PARTITIONS, pool=pool, output=tmp_path / "clean")
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
        (line("x", answer="long " * 3000), "line 2", "line-too-long"),
        ("x" * 3_000_000, "line 2", "line-too-long"),
        (line("x", image="../one.png"), "x", "unsafe-image-name"),
        (line("x", image="/one.png"), "x", "unsafe-image-name"),
        (with_turns("x", "human", "system"), "x", "unknown-speaker"),
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
    assert found["details"] == {"b": "same words as a without an image"}


def test_a_repeated_id_stays_once(tmp_path: Path) -> None:
    lines = [line("a", answer="a sphere"), line("a", answer="a cube")]
    forward = clean(tmp_path / "1", lines)
    backward = clean(tmp_path / "2", lines[::-1])
    assert forward["kept"] == backward["kept"] == ["a"]
    assert forward["reasons"] == {"a": "duplicate-id"}
    assert (tmp_path / "1/clean/records.parquet").read_bytes() == (tmp_path / "2/clean/records.parquet").read_bytes()


def test_of_records_of_one_id_and_the_same_words_one_stays_wherever_it_stood(tmp_path: Path) -> None:
    lines = [line("a", answer=answer) for answer in ("a cube", "A CUBE", "a  cube")]
    found = [clean(tmp_path / str(turn), lines[turn:] + lines[:turn]) for turn in range(3)]
    stored = [(tmp_path / str(turn) / "clean/records.parquet").read_bytes() for turn in range(3)]
    assert stored[0] == stored[1] == stored[2]
    assert found[0]["ledger"]["steps"][2]["dropped"] == {"duplicate-id": 2}


def test_where_a_turn_ends_tells_two_records_apart(tmp_path: Path) -> None:
    lines = [line("a", question="one two", answer="three"), line("b", question="one", answer="twothree")]
    found = clean(tmp_path, [*lines, line("c", question="one", answer=" twothree")])
    assert found["kept"] == ["a", "b"]
    assert found["reasons"] == {"c": "near-duplicate"}


def test_a_broken_line_among_many_is_found_without_trying_all(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def read_json(lines: Any, **options: Any) -> Any:
        sizes.append(len(lines.read_buffer()))
        lines.seek(0)
        return arrow_json_read(lines, **options)

    arrow_json_read = arrow_json.read_json
    monkeypatch.setattr(arrow_json, "read_json", read_json)
    lines = [json.dumps(line(f"r{number}")) for number in range(1000)]
    lines[700] = lines[700].replace('"from": "gpt"', '"from" "gpt"')
    parsed = LineParser(["LLaVA150K"], 1000).parse_many("".join(f"{text}\n" for text in lines).encode())
    assert [number for number, _, _ in parsed.faults] == [700]
    assert len(sizes) == 4  # all, those before, the one, those after


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
        clean_pool(CONFIG, PARTITIONS, pool=pool, output=tmp_path / "clean")


def test_an_empty_pool_gives_an_empty_clean_pool(tmp_path: Path) -> None:
    found = clean(tmp_path, [])
    assert found["kept"] == []
    assert found["ledger"]["lost_share"] == 0.0


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(path: Path, *_: Any) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cleaning, "write_dropped_table", fill_disk)
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


@pytest.mark.parametrize(
    ("num_processes", "chunk_bytes", "bucket_bytes", "max_duplicate_distance"),
    [(1, 300, 4000, 0), (1, 1000, 2**20, 2), (2, 3000, 3000, 2)],
)
def test_a_clean_pool_is_the_same_bytes_however_it_is_cut_and_ordered(
    tmp_path: Path, num_processes: int, chunk_bytes: int, bucket_bytes: int, max_duplicate_distance: int
) -> None:
    """Copies lie in other chunks than what they copy; lines in another order, so no `line N` among them."""
    images = {f"{number}.png": picture(number % 4) for number in range(6)} | {"copy.bmp": recompress(picture(1))}
    lines = [
        line(f"r{number:02d}", image=f"{number % 6}.png", question=f"what is {number % 8} ?") for number in range(40)
    ]
    lines += [line("x", image="copy.bmp", question="What is  1 ?"), line("ü", answer="ß"), line("ä", answer="SS")]
    lines += [line("r07", source="ChartQA"), with_turns("y", "human"), line("z", image="none.png")]
    config = CONFIG.model_copy(update={"max_duplicate_distance": max_duplicate_distance})
    partitions = PartitionsConfig(
        kind="processes", num_processes=num_processes, chunk_bytes=chunk_bytes, bucket_bytes=bucket_bytes
    )
    pool = write_pool(tmp_path / "pool", lines, images)
    clean_pool(config, PARTITIONS, pool=pool, output=tmp_path / "1")
    write_pool(pool, lines[::-1], images)
    clean_pool(config, partitions, pool=pool, output=tmp_path / "2")
    steps = read_json(tmp_path / "1/ledger.json")["steps"]
    assert steps[2]["dropped"].keys() == {"duplicate-id", "exact-duplicate"}
    assert steps[3]["dropped"] == {"near-duplicate": 1}
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()


def test_lines_are_numbered_across_chunks(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", [line("a"), "{", line("b", answer="a cone"), "[", "{"])
    partitions = PARTITIONS.model_copy(update={"chunk_bytes": 40})
    clean_pool(CONFIG, partitions, pool=pool, output=tmp_path / "clean")
    dropped = pq.read_table(tmp_path / "clean/dropped.parquet").column("id").to_pylist()
    assert dropped == ["line 2", "line 4", "line 5"]


def test_a_line_of_100_mb_is_dropped_and_never_whole_in_memory(tmp_path: Path) -> None:
    """In the chunks and buckets that all scales have: the line lies in several chunks."""
    num_bytes, most = 100_000_000, 40_000_000
    pool = write_pool(tmp_path / "pool", [line("a"), "{" + "x" * num_bytes, line("b", answer="a cone")])
    partitions = PARTITIONS.model_copy(update={"chunk_bytes": 2**25, "bucket_bytes": 2**28})
    tracemalloc.start()
    clean_pool(CONFIG, partitions, pool=pool, output=tmp_path / "clean")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < most
    assert pq.read_table(tmp_path / "clean/records.parquet").column("id").to_pylist() == ["a", "b"]
    [dropped] = pq.read_table(tmp_path / "clean/dropped.parquet").to_pylist()
    assert (dropped["id"], dropped["reason"]) == ("line 2", "line-too-long")


def test_a_reason_that_is_fatal_stops_the_stage_and_names_the_record(tmp_path: Path) -> None:
    lines = [line("a"), line("b", image="none.png"), line("c", answer="a cone")]
    with pytest.raises(ArtifactError, match=r"1 records have a fault .*fatal_reasons .*b of LLaVA150K: missing-image"):
        clean(tmp_path, lines, fatal_reasons=["missing-image", "wrong-encoding"])
    assert not (tmp_path / "clean").exists()


def test_a_fatal_reason_that_does_not_exist_is_refused() -> None:
    values = CONFIG.model_dump() | {"fatal_reasons": ["misssing-image"]}
    with pytest.raises(ParamsError, match=r"cleaning\.fatal_reasons.*Unknown misssing-image; known: duplicate-id"):
        parse_block(CleaningConfig, values, where="cleaning")


@settings(deadline=None)  # the first call imports
@given(st.binary(max_size=60).filter(lambda junk: b"\n" not in junk), st.sampled_from(["text", "id", "tail", "value"]))
def test_a_line_is_judged_alike_at_first_and_second_sight(junk: bytes, place: str) -> None:
    """Typed decoding accepts nothing that the strict reading refuses, and reads the same."""
    fields = {
        "text": b'{"id": "a", "source": "S", "conversations": [{"from": "human", "value": "' + junk + b'"}, '
        b'{"from": "gpt", "value": "b"}]}',
        "id": b'{"id": "' + junk + b'", "source": "S", "conversations": [{"from": "human", "value": "a"}, '
        b'{"from": "gpt", "value": "b"}]}',
        "tail": b'{"id": "a", "source": "S", "conversations": [{"from": "human", "value": "a"}, '
        b'{"from": "gpt", "value": "b"}]}' + junk,
        "value": b'{"id": "a", "source": "S", "conversations": [{"from": "human", "value": ' + junk + b"}, "
        b'{"from": "gpt", "value": "b"}]}',
    }
    found: list[object] = []
    for parse in (read_among_many, read_slowly):
        try:
            found.append(parse(fields[place]))
        except RecordError as error:
            found.append((error.reason, str(error)))
    assert found[0] == found[1]


def read_among_many(raw: bytes) -> tuple[str, str, str | None, list[str]]:
    parsed = LineParser(["S"], 1000).parse_many(raw + b"\n")
    if parsed.faults:
        raise parsed.faults[0][2]
    [row] = [record for record, usable in zip(parsed.rows.to_pylist(), parsed.is_usable, strict=True) if usable]
    assert row["source"] == 0
    return row["id"], "S", row["image"], [turn["value"] for turn in row["conversations"]]


def read_slowly(raw: bytes) -> tuple[str, str, str | None, list[str]]:
    record = parse_usable(raw)
    return record.id, record.source, record.image, [turn.text for turn in record.turns]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("max_bytes", [3, 10, 100])
def test_ranges_of_bytes_hold_every_line_once(tmp_path: Path, size: int, max_bytes: int) -> None:
    lines = [b"", b"a", b"bb\r", b"c" * 9, b"d" * 10, b"e" * 11, b"f" * 200, b"", b"g" * 13, b"last"]
    path = tmp_path / "lines"
    path.write_bytes(b"\n".join(lines))
    found = [
        found for chunk in plan_chunks(path, size) for found in iter_lines(path, chunk.start, chunk.end, max_bytes)
    ]
    expected = [text.rstrip(b"\r") for text in lines]
    assert [text[: max_bytes + 1] for text in found] == [text[: max_bytes + 1] for text in expected]
    assert max(map(len, found)) <= max_bytes + 3


def test_what_becomes_of_a_line_does_not_depend_on_the_lines_beside_it() -> None:
    """Lines that cannot be decoded, among many that can: a field twice, two objects, another type, halves."""
    good = [
        json.dumps(line(f"r{number}", answer=f"cube {number} ü"), ensure_ascii=number % 2 == 0) for number in range(40)
    ]
    odd = [
        good[0].replace('"id"', '"id": "x", "id"'),
        good[1] * 2,
        good[2].replace('"id": "r2"', '"id": 2'),
        good[3].replace('"source"', '"depth": [[{"a": 1}], 2e400], "source"'),
        good[4].replace("cube", "\\ud800"),
        good[5][: good[5].index("}") + 1],
        good[6].replace("{", "{ ", 1) + " ",
        good[7].replace('"conversations": [', '"conversations": [null, '),
        "{}", "", "}{", '{"id": "a"}}', '{"conversations": 3}', "\0", good[8] + "\0}", "x" * 2000,
    ]  # fmt: skip
    lines = [text.encode() for pair in zip(good, odd * 3, strict=False) for text in pair]
    lines.insert(20, good[9].encode().replace("ü".encode(), b"\xfc"))
    parser = LineParser(["LLaVA150K"], 1000)
    together = parser.parse_many(b"".join(text + b"\n" for text in lines))
    faults = {number: (error.reason, str(error)) for number, _, error in together.faults}
    usable = set(together.numbers[together.is_usable].tolist())
    assert usable | faults.keys() == set(range(len(lines)))
    assert not usable & faults.keys()
    for number, text in enumerate(lines):
        alone = parser.parse_many(text + b"\n")
        assert [(error.reason, str(error)) for _, _, error in alone.faults] == (
            [faults[number]] if number in faults else []
        )
    assert sum(number in faults for number in range(len(lines))) > 20


def test_a_fault_keeps_nothing_in_memory_but_itself() -> None:
    """An error that was raised holds the frames that it passed through, and these the tables of a block."""
    parsed = LineParser(["S"], 1000).parse_many(b'{"id": "a"}\nno line\n\xff\n')
    assert [(error.reason, error.__traceback__, error.__context__) for _, _, error in parsed.faults] == [
        ("missing-field", None, None), ("malformed-json", None, None), ("wrong-encoding", None, None),
    ]  # fmt: skip
