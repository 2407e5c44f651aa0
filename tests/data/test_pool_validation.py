"""The gate between cleaning and curation: every fault of a clean pool, caused here, stops it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cambrian.artifacts import read_json, write_folder, write_json
from cambrian.data.cleaning import CleaningConfig, clean_pool
from cambrian.data.expectations import ValidationConfig
from cambrian.data.partitions import PartitionsConfig
from cambrian.data.pool_validation import count_by_source, validate_pool
from cambrian.data.record_checks import FAILED_REPORTS_DIR
from cambrian.interfaces import ArtifactError
from tests.data.pools import SOURCES, line, picture, recompress, write_pool

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = ValidationConfig(
    max_turns=6, max_turn_characters=60, min_image_side=16, hash_side=16, max_hash_distance=0,
    max_near_duplicate_share=0.0, max_contradicted_share=0.0, max_shortfall_share=0.0, max_missing_share=0.0,
    max_category_deviation=0.11, max_leaked_share=0.0,
)  # fmt: skip
CLEANING = CleaningConfig(
    max_line_bytes=1000, min_image_side=16, hash_side=16, max_duplicate_distance=0, fatal_reasons=[],
    max_lost_share=0.5,
)  # fmt: skip
PARTITIONS = PartitionsConfig(kind="processes", num_processes=1, chunk_bytes=2**20, bucket_bytes=2**20)
SAMPLES_PER_RECORD = 100_000
"""So two records of LLaVA150K, one of ChartQA and three of MathInstruct are all that was published."""

LINES: list[dict[str, Any] | str] = [
    line("a1", image="1.png", question="what is it ?"),
    line("a2", image="2.png", question="what is that ?"),
    line("b1", source="ChartQA", image="3.png", question="how much ?", answer="12"),
    *(line(f"c{number}", source="MathInstruct", question=f"{number} + 1 ?", answer="some") for number in range(3)),
    line("c9", source="MathInstruct", image="9.png"),
    '{"id": "half',
]
"""The last two cannot be used."""


@pytest.fixture(autouse=True)
def _work_on_a_clean_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pool(Path("pool"), LINES, {f"{number}.png": picture(number) for number in (1, 2, 3)})
    clean_pool(CLEANING, PARTITIONS, pool=Path("pool"), output=Path("clean"))
    write_benchmark([picture(100)])


def write_benchmark(pictures: list[bytes]) -> None:
    Path("benchmarks/GQA").mkdir(parents=True, exist_ok=True)
    images = pa.array([{"bytes": data, "path": ""} for data in pictures])
    pq.write_table(pa.table({"image": images}), "benchmarks/GQA/test.parquet")


def validate(**changes: Any) -> dict[str, Any]:
    validate_pool(
        CONFIG.model_copy(update=changes), name="trial", samples_per_record=SAMPLES_PER_RECORD, pool=Path("pool"),
        clean=Path("clean"), benchmarks=Path("benchmarks"), verdict=Path("trial.json"), report=Path("report"),
    )  # fmt: skip
    verdict: dict[str, Any] = read_json(Path("trial.json"))
    return verdict


def rewrite(
    records: Callable[[list[dict[str, Any]]], object] = lambda rows: None,
    dropped: Callable[[list[dict[str, Any]]], object] = lambda rows: None,
    ledger: Callable[[list[dict[str, Any]]], object] = lambda steps: None,
    row_group_size: int = 100,
) -> None:
    """Change the lists in a finished clean pool, as a fault in cleaning would."""
    tables = {name: pq.read_table(f"clean/{name}.parquet") for name in ("records", "dropped")}
    rows = {name: table.to_pylist() for name, table in tables.items()}
    account = read_json(Path("clean/ledger.json"))
    records(rows["records"])
    dropped(rows["dropped"])
    ledger(account["steps"])
    with write_folder(Path("clean")) as folder:
        for name, table in tables.items():
            changed = pa.Table.from_pylist(rows[name], schema=table.schema)
            pq.write_table(changed, folder / f"{name}.parquet", row_group_size=row_group_size)
        write_json(folder / "ledger.json", account)
        write_json(folder / "sources.json", SOURCES)


def test_a_sound_pool_passes_with_a_verdict_and_a_report_the_same_twice() -> None:
    verdict = validate()
    first = Path("trial.json").read_bytes(), Path("report/index.html").read_bytes()
    assert verdict["pool"] == "trial"
    assert verdict["success"]
    assert len(verdict["expectations"]) == 21
    assert (verdict["records"], verdict["turns"], verdict["images"]) == (6, 12, 3)
    assert verdict["leakage"]["benchmarks"] == {"GQA": {"images": 1, "found": 0}}
    assert "Pool trial is fit for curation" in Path("report/index.html").read_text()
    validate()
    assert (Path("trial.json").read_bytes(), Path("report/index.html").read_bytes()) == first


def test_a_pool_in_shards_has_the_verdict_of_the_whole() -> None:
    whole = validate()
    rewrite(row_group_size=1)
    assert validate() == whole


def change(row: int, **values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda rows: rows[row].update(values)


def say(row: int, *turns: tuple[str, str]) -> Callable[[list[dict[str, Any]]], None]:
    return change(row, conversations=[{"from": speaker, "value": text} for speaker, text in turns])


def ask_of_the_first_picture(answer: str) -> Callable[[list[dict[str, Any]]], None]:
    """The second record becomes the first one's question with this answer."""
    turns = [{"from": "human", "value": "<image>\nwhat is it ?"}, {"from": "gpt", "value": answer}]
    return change(1, image="1.png", conversations=turns)


def miscount(steps: list[dict[str, Any]]) -> None:
    steps[0]["sources"]["ChartQA"]["in"] += 1


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (
            {"records": list.pop},
            r"the ledger counts what is kept \(sources: .*1 of 4 wrong.*what was published .*0\.16",
        ),
        ({"dropped": list.pop}, r"every dropped record is listed \(sources: .*1 of 4 wrong"),
        ({"ledger": miscount}, r"what came in went on or was dropped \(sources: .*1 of 4 wrong"),
        ({"records": change(0, id="b1")}, r"ids are unique .*2 of 6 wrong: b1"),
        ({"records": change(2, category="Cooking")}, r"stored categories are those of the sources .*1 of 6 wrong"),
        ({"records": change(2, source="Nobody")}, r"categories are known .*wrong: \(unknown\)"),
        ({"records": change(0, image="4.png")}, r"images can be read .*missing-image"),
        ({"records": change(0, image=None)}, r"image markers match images .*1 of 6 wrong"),
        (
            {"records": ask_of_the_first_picture("no")},
            r"few contradictions .*2 of 6 wrong",
        ),
        ({"records": say(3, ("gpt", "a"), ("human", "b"))}, r"a person speaks first .*1 of 6.*the model speaks last"),
        ({"records": say(3, ("human", "a"), ("human", "b"), ("gpt", "c"))}, r"speakers alternate \(turns: "),
        ({"records": say(3, ("human", "a"))}, r"conversations have turns .*1 of 6 wrong: 1"),
        ({"records": say(3, ("human", "a"), ("gpt", "b" * 61))}, r"turns have text .*wrong: 61"),
        ({"records": say(3, ("human", "1 + 1 ?"), ("gpt", "some"))}, r"no sample is there twice .*few near duplicates"),
        ({"records": say(3, ("human", "1 + 1 ?"), ("gpt", "SOME"))}, r"few near duplicates .*1 of 6 wrong"),
    ],
)
def test_a_faulty_pool_stops_the_gate_and_the_message_says_why(faults: dict[str, Any], message: str) -> None:
    rewrite(**faults)
    with pytest.raises(ArtifactError, match=f"pool trial is not fit for curation.*{message}"):
        validate()
    assert not Path("trial.json").exists()
    assert not Path("report").exists()
    assert "is not fit for curation" in (FAILED_REPORTS_DIR / "pools/trial/index.html").read_text()


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_category_deviation": 0.1}, r"categories have their published shares .*max_value 0\.1, found 1 of 3"),
        ({"max_leaked_share": 0.4}, r"few test images leaked .*max_value 0\.4, found 0\.5"),
    ],
)
def test_limits_hold(limits: dict[str, float], message: str) -> None:
    write_benchmark([picture(100), recompress(picture(2))])
    with pytest.raises(ArtifactError, match=message):
        validate(**{"max_leaked_share": 0.5, **limits})
    verdict = validate(max_leaked_share=0.5)
    assert verdict["leakage"]["records"] == [{"id": "a2", "source": "LLaVA150K", "benchmarks": ["GQA"]}]
    assert not (FAILED_REPORTS_DIR / "pools/trial").exists()


def test_a_pool_may_lack_what_the_limit_says() -> None:
    rewrite(records=list.pop, ledger=lambda steps: steps[-1]["sources"]["MathInstruct"].update(out=2))
    with pytest.raises(ArtifactError, match=r"the pool has what was published .*max_value 0\.1, found 0\.16"):
        validate(max_missing_share=0.1)


def test_a_list_of_dropped_records_without_sources_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dropped.parquet"
    pq.write_table(pa.table({"id": ["a"], "reason": ["missing-image"]}), path)
    with pytest.raises(ArtifactError, match=r"dropped\.parquet has no list of dropped records .*run the stage clean"):
        count_by_source(path)
    with pytest.raises(ArtifactError, match=r"gone\.parquet has no list of dropped records .*run the stage clean"):
        count_by_source(tmp_path / "gone.parquet")
