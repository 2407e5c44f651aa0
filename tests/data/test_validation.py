from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.curation import curate_mix
from cambrian.data.expectations import ValidationConfig
from cambrian.data.format_prompts import FormatPromptsConfig
from cambrian.data.image_facts import describe_image
from cambrian.data.leakage import LeakageFinder
from cambrian.data.mixes import MixRow
from cambrian.data.partitions import PartitionsConfig
from cambrian.data.records import write_records
from cambrian.data.shards import ShardWriter
from cambrian.data.validation import FAILED_REPORTS_DIR, validate_mix
from cambrian.interfaces import ArtifactError, Record, Turn
from cambrian.params import parse_block
from tests.data.pools import picture, recompress

CONFIG = ValidationConfig(
    max_turns=6, max_turn_characters=60, min_image_side=16, hash_side=16, max_hash_distance=0,
    max_near_duplicate_share=0.0, max_contradicted_share=0.0, max_shortfall_share=0.0, max_missing_share=0.0,
    max_category_deviation=0.0, max_leaked_share=0.0,
)  # fmt: skip
PARTITIONS = PartitionsConfig(kind="processes", num_processes=1, chunk_bytes=2**20, bucket_bytes=2**20)
SOURCES: dict[str, dict[str, Any]] = {
    "LLaVA150K": {"category": "General", "in_7m": True},
    "ChartQA": {"category": "OCR", "in_7m": True},
}
EVERYTHING = {"kind": "everything"}


def make_record(number: int, source: str = "LLaVA150K", **changes: Any) -> Record:
    image = f"{number}.png"
    turns = (Turn("human", f"<image>\nwhat is {number} ?"), Turn("gpt", f"a cube {number}"))
    return Record(**{"id": f"r{number}", "source": source, "turns": turns, "image": image, **changes})


def write_pool(folder: Path, records: list[Record], images: dict[str, bytes] | None = None) -> None:
    if images is None:
        images = {f"{number}.png": picture(number) for number in range(1, 12)}
    with write_folder(folder) as partial:
        write_records(partial / "records.parquet", records, {name: row["category"] for name, row in SOURCES.items()})
        write_json(partial / "sources.json", SOURCES)
        with ShardWriter(partial, max_bytes=2**20) as shards:
            for name, data in images.items():
                shards.add(name, data)


def write_benchmark(folder: Path, name: str, images: list[bytes | None], column: str = "image") -> None:
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [None if data is None else {"bytes": data, "path": f"{n}.png"} for n, data in enumerate(images)]
    (folder / name).mkdir(parents=True)
    table = pa.table({"question": ["what ?"] * len(rows), column: pa.array(rows, image)})
    pq.write_table(table, folder / name / "test.parquet")


@pytest.fixture(autouse=True)
def _work_in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_benchmark(Path("benchmarks"), "GQA", [picture(100), picture(101)])


def curate(records: list[Record], select: dict[str, Any] = EVERYTHING) -> MixRow:
    row = parse_block(MixRow, {"pool": "p", "select": select, "format_prompts": False}, where="mixes.trial")
    write_pool(Path("pool"), records)
    curate_mix(
        row, PARTITIONS, name="trial", samples_per_record=1, seed=0, pool=Path("pool"), output=Path("mix"),
        format_prompts=FormatPromptsConfig(texts={}, choices_marker="( a )"),
    )  # fmt: skip
    return row


def validate(row: MixRow, **changes: Any) -> dict[str, Any]:
    validate_mix(
        CONFIG.model_copy(update=changes), row, name="trial", samples_per_record=1, data=Path("mix"),
        pool=Path("pool"), benchmarks=Path("benchmarks"), verdict=Path("trial.json"), report=Path("report"),
        leaked=Path("leaked.parquet"),
    )  # fmt: skip
    verdict: dict[str, Any] = read_json(Path("trial.json"))
    return verdict


def replace_records(records: list[Record]) -> None:
    """Put other records into a finished mix, as a fault in curation would."""
    ledger = read_json(Path("mix/ledger.json"))
    with write_folder(Path("mix")) as folder:
        write_records(folder / "records.parquet", records, {name: row["category"] for name, row in SOURCES.items()})
        write_json(folder / "ledger.json", ledger)


def test_a_sound_mix_passes_with_a_verdict_and_a_report() -> None:
    verdict = validate(curate([make_record(1), make_record(2, "ChartQA"), make_record(3)]))
    assert verdict["success"]
    assert len(verdict["expectations"]) == 21
    assert all(outcome["success"] for outcome in verdict["expectations"])
    assert verdict["sources"]["ChartQA"] == {"category": "OCR", "records": 1}
    assert (verdict["records"], verdict["turns"], verdict["images"]) == (3, 6, 3)
    assert read_manifest(Path("report"))["files"].keys() == {"index.html"}
    page = Path("report/index.html").read_text()
    assert "Mix trial is fit for training" in page
    assert "http" not in page
    assert not FAILED_REPORTS_DIR.exists() or not any(FAILED_REPORTS_DIR.iterdir())


def test_an_empty_mix_passes() -> None:
    verdict = validate(curate([make_record(1)], {"kind": "nothing"}))
    assert verdict["success"]
    assert verdict["records"] == 0


def test_twice_gives_the_same_bytes() -> None:
    row = curate([make_record(1), make_record(2)])
    validate(row)
    first = Path("trial.json").read_bytes(), Path("report/index.html").read_bytes()
    validate(row)
    assert (Path("trial.json").read_bytes(), Path("report/index.html").read_bytes()) == first


def cut(num_rows: int) -> None:
    """Write the finished mix in shards of so many records."""
    table = pq.read_table("mix/records.parquet")
    ledger = read_json(Path("mix/ledger.json"))
    with write_folder(Path("mix")) as folder:
        pq.write_table(table, folder / "records.parquet", row_group_size=num_rows)
        write_json(folder / "ledger.json", ledger)


@pytest.mark.parametrize("num_rows", [1, 2, 3])
def test_a_mix_in_shards_has_the_verdict_of_the_whole(num_rows: int) -> None:
    """Copies, contradictions and leaked pictures lie in other shards than what they go with."""
    write_benchmark(Path("benchmarks"), "MMMU", [picture(2), picture(200)])
    first = make_record(1)
    records = [
        first,
        make_record(2),
        make_record(3, image="1.png", turns=first.turns),
        make_record(4, image="1.png", turns=turns("<image>\nWHAT is 1 ?", "a  cube 1")),
        make_record(5, image="1.png", turns=turns("<image>\nwhat is 1 ?", "a sphere")),
        make_record(6, id="r2"),
        make_record(7, image=None, turns=turns("what ?", "this")),
        make_record(8, "ChartQA", image="2.png"),
    ]
    row = curate([make_record(number) for number in range(1, 9)])
    replace_records(records)
    limits = {"max_contradicted_share": 1.0, "max_near_duplicate_share": 1.0, "max_leaked_share": 1.0}
    verdicts = []
    for size in (100, num_rows):
        cut(size)
        with pytest.raises(ArtifactError, match="not fit for training") as error:
            validate(row, **limits)
        verdicts.append((str(error.value), (FAILED_REPORTS_DIR / "trial/index.html").read_text()))
    assert verdicts[0] == verdicts[1]
    message, page = verdicts[0]
    assert "ids are unique (records: expected column id, found 2 of 8 wrong: r2" in message
    assert "no sample is there twice (records: expected column content, found 2 of 8 wrong" in message
    assert "2 of 8 wrong: True" in page  # near duplicates: the third and the fourth
    assert "1 of 8 wrong: True" in page  # contradicted: the sphere
    assert page.count("<td>MMMU</td>") == 3  # the benchmark, and two records with its picture


def turns(*texts: str, first: str = "human") -> tuple[Turn, ...]:
    order = ("human", "gpt") if first == "human" else ("gpt", "human")
    return tuple(Turn(order[number % 2], text) for number, text in enumerate(texts))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (make_record(2, id="r1"), r"ids are unique \(records: .*2 of 2 wrong: r1"),
        (make_record(2, turns=turns("<image> a", "b", first="gpt")), r"a person speaks first .*1 of 2 wrong: gpt"),
        (make_record(2, turns=turns("<image> a", "b", "c")), r"the model speaks last .*wrong: human"),
        (
            make_record(2, turns=(*turns("<image> a", "b"), *turns("c", "d", first="gpt"))),
            r"speakers alternate \(turns: ",
        ),
        (make_record(2, turns=turns("<image> a")), r"conversations have turns .*1 of 2 wrong: 1"),
        (make_record(2, turns=turns(*["<image> a"[8 * (n > 0) :] for n in range(8)])), r"conversations have turns"),
        (make_record(2, turns=turns("<image>", "b")), r"turns have text .*1 of 4 wrong: 0"),
        (make_record(2, turns=turns("<image> a", "b" * 61)), r"turns have text .*wrong: 61"),
        (make_record(2, image=None), r"image markers match images"),
        (make_record(2, image="other.png"), r"images can be read .*missing-image"),
        (make_record(2, turns=make_record(1).turns, image="1.png"), r"no sample is there twice .*few near duplicates"),
        (
            make_record(2, turns=turns("<image>\nwhat is 1 ?", "a sphere"), image="1.png"),
            r"few contradictions .*2 of 2 wrong",
        ),
        (make_record(2, "ChartQA"), r"parts are as large as asked"),
    ],
)
def test_a_faulty_mix_stops_the_gate_and_the_message_says_why(second: Record, message: str) -> None:
    row = curate([make_record(1), make_record(2)])
    replace_records([make_record(1), second])
    with pytest.raises(ArtifactError, match=message):
        validate(row)
    assert not Path("trial.json").exists()
    assert not Path("report").exists()
    assert "not fit for training" in (FAILED_REPORTS_DIR / "trial/index.html").read_text()


def test_a_gate_that_passes_again_removes_the_report_of_its_failure() -> None:
    row = curate([make_record(1), make_record(2)])
    replace_records([make_record(1), make_record(1)])
    with pytest.raises(ArtifactError, match="not fit for training"):
        validate(row)
    validate(curate([make_record(1), make_record(2)]))
    assert not (FAILED_REPORTS_DIR / "trial").exists()


@pytest.mark.parametrize(
    ("answers", "image", "num_contradicted"),
    [
        (["four", "four", "five"], None, 1),
        (["four", "four", "Four "], None, 0),
        (["four", "five", "six"], None, 0),
        (["four", "four", "five", "five"], None, 0),
        (["red", "red", "blue"], "1.png", 1),
        (["red", "blue"], "1.png", 2),
    ],
)
def test_who_answers_against_the_majority_is_contradicted(
    answers: list[str], image: str | None, num_contradicted: int
) -> None:
    marker = "" if image is None else "<image>\n"
    records = [
        # The second question tells the records apart, which would be duplicates without it.
        make_record(
            number, image=image, turns=turns(f"{marker}what is it ?", answer, f"and {number} ?", f"yes {number}")
        )
        for number, answer in enumerate(answers)
    ]
    outcomes = validate(curate(records), max_contradicted_share=1.0)["expectations"]
    (outcome,) = [outcome for outcome in outcomes if outcome["name"] == "few contradictions"]
    assert outcome["observed"].startswith(f"{num_contradicted} of {len(answers)} wrong")


def test_a_missing_column_is_found() -> None:
    row = curate([make_record(1)])
    table = pq.read_table("mix/records.parquet")
    ledger = read_json(Path("mix/ledger.json"))
    with write_folder(Path("mix")) as folder:
        pq.write_table(table.drop_columns(["category"]), folder / "records.parquet")
        write_json(folder / "ledger.json", ledger)
    with pytest.raises(
        ArtifactError, match=r"the file has the columns of records .*stored categories .*not be computed"
    ):
        validate(row)


def test_records_over_a_cap_are_found() -> None:
    row = curate(
        [make_record(1), make_record(2)], {"kind": "cap", "max_per_source": 1, "uncapped_categories": []}
    )  # fmt: skip
    replace_records([make_record(1), make_record(2)])
    with pytest.raises(ArtifactError, match="no part is over its limit"):
        validate(row)


def test_a_shortfall_passes_up_to_its_limit() -> None:
    records = [make_record(number) for number in range(1, 9)]
    row = curate(records, {"kind": "sources", "sources": {"LLaVA150K": 10}})
    assert validate(row, max_shortfall_share=0.2)["success"]
    with pytest.raises(ArtifactError, match=r"the pool has what the mix asks for .*0\.2"):
        validate(row, max_shortfall_share=0.1)


def test_ratios_are_held_by_category() -> None:
    records = [make_record(number, ("LLaVA150K", "ChartQA")[number > 6]) for number in range(1, 12)]
    row = curate(records, {"kind": "ratio", "total": 8, "percent": {"General": 50.0, "OCR": 50.0}})
    assert validate(row)["success"]
    replace_records(records[:5] + records[8:])
    with pytest.raises(ArtifactError, match="parts are as large as asked"):
        validate(row)


def test_leaked_test_images_are_counted_per_benchmark_and_record() -> None:
    write_benchmark(Path("benchmarks"), "MMMU", [picture(2), recompress(picture(2)), picture(200), None], "image_1")
    row = curate([make_record(1), make_record(2), make_record(3)])
    verdict = validate(row, max_leaked_share=0.5)
    assert verdict["leakage"] == {
        "found_share": 0.4,
        "benchmarks": {"GQA": {"images": 2, "found": 0}, "MMMU": {"images": 3, "found": 2}},
        "records": [{"id": "r2", "source": "LLaVA150K", "benchmarks": ["MMMU"]}],
    }
    rows = pq.read_table("leaked.parquet").to_pylist()
    assert [(row["benchmark"], row["column"], row["row"], row["training_images"]) for row in rows] == [
        ("GQA", "image", 0, []), ("GQA", "image", 1, []),
        ("MMMU", "image_1", 0, ["2.png"]), ("MMMU", "image_1", 1, ["2.png"]), ("MMMU", "image_1", 2, []),
    ]  # fmt: skip
    assert rows[2]["digest"] == xxhash.xxh3_128_hexdigest(picture(2))
    with pytest.raises(ArtifactError, match=r"few test images leaked .*0\.4"):
        validate(row, max_leaked_share=0.3)


def test_pictures_in_lists_are_compared_too() -> None:
    """SEED-Bench has a list of pictures in each row."""
    folder = Path("benchmarks") / "SEED-I"
    folder.mkdir(parents=True)
    rows = [{"image": [{"bytes": picture(2), "path": None}, {"bytes": picture(9), "path": None}]}, {"image": None}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "test.parquet")
    hashes = {"2.png": describe_image(picture(2), name="2.png", hash_side=8, min_side=1).hash}
    finder = LeakageFinder(Path("benchmarks"), hash_side=8, max_distance=0)
    assert finder.add(hashes) == {"2.png"}
    leakage = finder.finish()
    assert (leakage.num_images["SEED-I"], leakage.num_found["SEED-I"]) == (2, 1)
    found = [(image.row, image.training_images) for image in leakage.test_images if image.benchmark == "SEED-I"]
    assert found == [(0, ["2.png"]), (0, [])]


def test_a_test_image_that_cannot_be_decoded_is_an_error() -> None:
    write_benchmark(Path("benchmarks"), "DocVQA", [picture(1), b"not an image"])
    with pytest.raises(ArtifactError, match=r"DocVQA/test\.parquet row 1 \(12 bytes\)"):
        LeakageFinder(Path("benchmarks"), hash_side=8, max_distance=0)


def test_a_folder_without_benchmarks_is_an_error() -> None:
    with pytest.raises(ArtifactError, match=r"nowhere has no \*/test\.parquet"):
        LeakageFinder(Path("nowhere"), hash_side=8, max_distance=0)
