from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cambrian.artifacts import read_json, write_folder, write_json
from cambrian.data.curation import curate_mix
from cambrian.data.format_prompts import FormatPromptsConfig
from cambrian.data.mixes import MixRow, Quota, choose_rows, divide_total, num_records, plan_quotas, rank_keys
from cambrian.data.partitions import PartitionsConfig
from cambrian.data.records import read_records, write_records
from cambrian.interfaces import ArtifactError, ParamsError, Record, Turn
from cambrian.params import parse_block

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOURCES: dict[str, dict[str, Any]] = {
    "LLaVA150K": {"category": "General", "in_7m": True},
    "VQAv2": {"category": "General", "in_7m": True},
    "ChartQA": {"category": "OCR", "in_7m": True},
    "Laion-OCR": {"category": "OCR", "in_7m": False},
    "WizardLM": {"category": "Language", "in_7m": True},
}
SIZES = {"LLaVA150K": 30, "VQAv2": 20, "ChartQA": 5, "Laion-OCR": 12, "WizardLM": 8}
PARTITIONS = PartitionsConfig(kind="processes", num_processes=1, chunk_bytes=2**20, bucket_bytes=2**20)
PROMPTS = FormatPromptsConfig(texts={2: "answer with one number"}, choices_marker="( a )")


def make_records() -> list[Record]:
    return [
        Record(f"{source}-{number:03d}", source, (Turn("human", f"{source} {number} ?"), Turn("gpt", "yes")), None)
        for source, size in SIZES.items()
        for number in range(size)
    ]


def write_clean_pool(folder: Path, records: list[Record]) -> Path:
    with write_folder(folder) as partial:
        write_records(partial / "records.parquet", records, {name: row["category"] for name, row in SOURCES.items()})
        write_json(partial / "sources.json", SOURCES)
    return folder


def parse_row(
    select: dict[str, Any], *, format_prompts: bool = False, filters: Sequence[dict[str, Any]] = ()
) -> MixRow:
    row = {"pool": "instruction", "select": select, "format_prompts": format_prompts, "filters": list(filters)}
    return parse_block(MixRow, row, where="mixes.trial")


def curate(
    tmp_path: Path,
    select: dict[str, Any],
    *,
    records: list[Record] | None = None,
    seed: int = 0,
    name: str = "trial",
    format_prompts: bool = False,
    filters: Sequence[dict[str, Any]] = (),
) -> list[Record]:
    pool = write_clean_pool(tmp_path / f"{name}-pool", make_records() if records is None else records)
    curate_mix(
        parse_row(select, format_prompts=format_prompts, filters=filters),
        PARTITIONS,
        name=name,
        samples_per_record=1000,
        seed=seed,
        format_prompts=PROMPTS,
        pool=pool,
        output=tmp_path / name,
    )
    return read_records(tmp_path / name / "records.parquet")


def counts(records: list[Record]) -> dict[str, int]:
    return dict(Counter(record.source for record in records))


def test_nothing_selects_no_record(tmp_path: Path) -> None:
    assert curate(tmp_path, {"kind": "nothing"}) == []


def test_everything_selects_the_whole_pool(tmp_path: Path) -> None:
    assert counts(curate(tmp_path, {"kind": "everything"})) == SIZES


def test_kept_leaves_out_what_the_curated_pool_left_out(tmp_path: Path) -> None:
    mix = curate(tmp_path, {"kind": "kept"})
    assert counts(mix) == {name: size for name, size in SIZES.items() if name != "Laion-OCR"}
    dropped = pq.read_table(tmp_path / "trial/dropped.parquet").to_pylist()
    assert {row["reason"] for row in dropped} == {"not-in-mix"}
    assert len(dropped) == 12


def test_sources_take_the_named_amounts_and_nothing_else(tmp_path: Path) -> None:
    mix = curate(tmp_path, {"kind": "sources", "sources": {"LLaVA150K": 7400, "ChartQA": 2500}})
    assert counts(mix) == {"LLaVA150K": 7, "ChartQA": 3}


def test_a_source_with_too_few_records_gives_all_and_the_shortfall_is_written_down(tmp_path: Path) -> None:
    mix = curate(tmp_path, {"kind": "sources", "sources": {"ChartQA": 9000, "VQAv2": 9000}})
    assert counts(mix) == {"ChartQA": 5, "VQAv2": 9}
    parts = read_json(tmp_path / "trial/ledger.json")["parts"]
    assert parts["ChartQA"] == {"available": 5, "limit": 9, "taken": 5, "shortfall": 4}
    assert parts["VQAv2"] == {"available": 20, "limit": 9, "taken": 9, "shortfall": 0}


def test_a_cap_limits_every_source_but_those_of_uncapped_categories(tmp_path: Path) -> None:
    select = {"kind": "cap", "max_per_source": 6000, "uncapped_categories": ["Language"]}
    mix = curate(tmp_path, select)
    assert counts(mix) == {"LLaVA150K": 6, "VQAv2": 6, "ChartQA": 5, "Laion-OCR": 6, "WizardLM": 8}
    parts = read_json(tmp_path / "trial/ledger.json")["parts"]
    assert all(part["shortfall"] == 0 for part in parts.values())


def test_a_ratio_divides_the_total_over_categories_and_never_refills(tmp_path: Path) -> None:
    mix = curate(tmp_path, {"kind": "ratio", "total": 40000, "percent": {"General": 50, "OCR": 25, "Language": 25}})
    by_category = Counter(SOURCES[record.source]["category"] for record in mix)
    assert by_category == {"General": 20, "OCR": 10, "Language": 8}
    parts = read_json(tmp_path / "trial/ledger.json")["parts"]
    assert parts["Language"] == {"available": 8, "limit": 10, "taken": 8, "shortfall": 2}


def test_ledger_and_dropped_rows_account_for_every_record(tmp_path: Path) -> None:
    mix = curate(tmp_path, {"kind": "sources", "sources": {"LLaVA150K": 7000}})
    (step,) = read_json(tmp_path / "trial/ledger.json")["steps"]
    assert (step["in"], step["out"]) == (75, 7)
    assert step["dropped"] == {"not-in-mix": 45, "over-limit": 23}
    dropped = pq.read_table(tmp_path / "trial/dropped.parquet").to_pylist()
    assert {row["id"] for row in dropped} | {record.id for record in mix} == {record.id for record in make_records()}


def test_a_smaller_cap_lies_within_a_larger_one(tmp_path: Path) -> None:
    ids = [
        {
            record.id
            for record in curate(
                tmp_path, {"kind": "cap", "max_per_source": cap, "uncapped_categories": []}, name=str(cap)
            )
        }
        for cap in (2000, 5000, 11000)
    ]
    assert ids[0] < ids[1] < ids[2]


def test_the_order_of_the_pool_does_not_matter(tmp_path: Path) -> None:
    select = {"kind": "cap", "max_per_source": 5000, "uncapped_categories": []}
    curate(tmp_path, select, name="1")
    records = make_records()
    random.Random(1).shuffle(records)
    curate(tmp_path, select, records=records, name="2")
    for name in ("records.parquet", "dropped.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_the_parts_of_a_pool_select_as_the_whole_does() -> None:
    source_by_id = {record.id: record.source for record in make_records()}
    halves = [dict(list(source_by_id.items())[half::2]) for half in (0, 1)]
    survivors = {name: source_by_id[name] for half in halves for name in choose(half)}
    assert choose(survivors) == choose(source_by_id)
    assert len(choose(source_by_id)) == 8


def choose(source_by_id: dict[str, str], keys: Sequence[int] | None = None) -> set[str]:
    """The ids that four of each of two sources take."""
    ids = list(source_by_id)
    quotas = [Quota("LLaVA150K", 4, False), Quota("VQAv2", 4, False)]
    sources = sorted(set(source_by_id.values()))
    codes = np.array([sources.index(source) for source in source_by_id.values()], np.int16)
    ranks = rank_keys(ids, 3, "select") if keys is None else np.array(keys, np.uint64)
    rows = choose_rows(quotas, sources, codes, ranks, pa.chunked_array([ids]), np.ones(len(ids), bool))
    return {name for name, taken in zip(ids, rows, strict=True) if taken}


def test_records_of_one_hash_are_taken_in_the_order_of_their_ids() -> None:
    source_by_id = dict.fromkeys(["c", "f", "a", "e", "d", "b"], "VQAv2")
    assert choose(source_by_id, [7] * 6) == {"a", "b", "c", "d"}


@pytest.mark.parametrize(("num_processes", "bucket_bytes", "rows"), [(1, 300, 7), (1, 2**20, 1000), (2, 700, 16)])
def test_a_mix_is_the_same_bytes_however_the_pool_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_processes: int, bucket_bytes: int, rows: int
) -> None:
    """Row groups of another size in the pool, other buckets on disk, other processes."""
    select = {"kind": "ratio", "total": 24000, "percent": {"General": 50.0, "OCR": 50.0}, "max_per_source": 10000}
    curate(tmp_path, select, name="1")
    pool = write_clean_pool(tmp_path / "cut", make_records())
    pq.write_table(pq.read_table(pool / "records.parquet"), pool / "records.parquet", row_group_size=rows)
    write_json(pool / "manifest.json", {"files": {}})
    partitions = PartitionsConfig(
        kind="processes", num_processes=num_processes, chunk_bytes=1, bucket_bytes=bucket_bytes
    )
    curate_mix(
        parse_row(select), partitions, name="1", samples_per_record=1000, seed=0, format_prompts=PROMPTS,
        pool=pool, output=tmp_path / "2",
    )  # fmt: skip
    for name in ("records.parquet", "dropped.parquet", "ledger.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert not (tmp_path / "2/.runs").exists()


def test_a_cap_holds_before_a_ratio_divides(tmp_path: Path) -> None:
    percent = {"General": 75.0, "OCR": 25.0}
    select = {"kind": "ratio", "total": 24000, "percent": percent, "max_per_source": 10000}
    found = counts(curate(tmp_path, select))
    assert found["LLaVA150K"] + found["VQAv2"] == 18
    assert max(found.values()) <= 10
    ledger = read_json(tmp_path / "trial/ledger.json")
    assert [(step["step"], step["in"], step["out"]) for step in ledger["steps"]] == [
        ("cap", 75, 43),
        ("select", 43, 24),
    ]
    assert ledger["steps"][0]["dropped"] == {"over-cap": 32}
    assert ledger["parts"]["General"]["available"] == 20


@pytest.mark.parametrize(
    ("rule", "passing", "detail"),
    [
        ({"kind": "words", "of": "answers", "at_least": 2, "at_most": 9}, {"long"}, "answers have 2 to 9 words"),
        ({"kind": "words", "of": "questions", "at_least": 0, "at_most": 1}, {"long"}, "questions have 0 to 1 words"),
        ({"kind": "turns", "at_most": 2}, {"short"}, "at most 2 turns"),
        ({"kind": "phrases", "of": "answers", "phrases": ["i am AN ai"]}, {"short"}, "none of 'i am AN ai'"),
    ],
)
def test_a_filter_of_a_row_keeps_only_what_passes_it(
    tmp_path: Path, rule: dict[str, Any], passing: set[str], detail: str
) -> None:
    short = Record("short", "VQAv2", (Turn("human", "how many ?"), Turn("gpt", "two")), None)
    long = Record("long", "VQAv2", (Turn("human", "why?"), Turn("gpt", "I am an AI model")) * 2, None)
    mix = curate(tmp_path, {"kind": "everything"}, records=[short, long], filters=[rule])
    assert {record.id for record in mix} == passing
    (row,) = pq.read_table(tmp_path / "trial/dropped.parquet").to_pylist()
    assert row["reason"] == f"filter-{rule['kind']}"
    assert detail in row["detail"]
    steps = read_json(tmp_path / "trial/ledger.json")["steps"]
    assert [(step["step"], step["in"], step["out"]) for step in steps] == [("filters", 2, 1), ("select", 1, 1)]


def test_another_record_in_the_pool_moves_no_other_record(tmp_path: Path) -> None:
    more = [*make_records(), Record("new", "VQAv2", (Turn("human", "new ?"), Turn("gpt", "no")), None)]
    before = [record.id for record in curate(tmp_path, {"kind": "everything"}, name="1")]
    after = [record.id for record in curate(tmp_path, {"kind": "everything"}, records=more, name="2")]
    assert [name for name in after if name != "new"] == before


def test_another_seed_selects_other_records(tmp_path: Path) -> None:
    select = {"kind": "sources", "sources": {"LLaVA150K": 10000}}
    first = {record.id for record in curate(tmp_path, select, name="1")}
    second = {record.id for record in curate(tmp_path, select, seed=1, name="2")}
    assert first != second


def test_capped_sources_do_not_come_first_in_the_order(tmp_path: Path) -> None:
    mix = curate(tmp_path, {"kind": "sources", "sources": {"LLaVA150K": 5000, "VQAv2": 20000}})
    places = [place for place, record in enumerate(mix) if record.source == "LLaVA150K"]
    assert len(mix) == 25
    assert places[-1] > 12  # by the selection's own hash all five would stand among the first few


def test_format_prompts_are_added_only_where_the_row_says_so(tmp_path: Path) -> None:
    select = {"kind": "sources", "sources": {"ChartQA": 5000, "VQAv2": 1000}}
    plain = curate(tmp_path, select, name="plain")
    prompted = curate(tmp_path, select, name="prompted", format_prompts=True)
    assert [record.id for record in plain] == [record.id for record in prompted]
    assert not any("number" in record.turns[0].text for record in plain)
    for record in prompted:
        assert record.turns[0].text.endswith("\nanswer with one number") == (record.source == "ChartQA")


def test_the_ratio_of_the_published_best_mix_divides_exactly() -> None:
    percent = {"Language": 21.0, "General": 34.52, "OCR": 27.22, "Counting": 8.71, "Math": 7.2, "Code": 0.87,
               "Science": 0.88}  # fmt: skip
    amounts = divide_total(1350, percent)
    assert sum(amounts.values()) == 1350
    assert amounts == {
        "Language": 282, "General": 464, "OCR": 366, "Counting": 117, "Math": 97, "Code": 12, "Science": 12,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("total", "weights", "amounts"),
    [
        (10, {"a": 1, "b": 1, "c": 1}, {"a": 4, "b": 3, "c": 3}),
        (0, {"a": 1, "b": 1}, {"a": 0, "b": 0}),
        (5, {"a": 49.9, "b": 50.1}, {"a": 2, "b": 3}),
        (3, {"b": 0.0, "a": 1.0}, {"b": 0, "a": 3}),
    ],
)
def test_the_largest_remainder_decides_and_equal_ones_go_by_name(
    total: int, weights: dict[str, float], amounts: dict[str, int]
) -> None:
    assert divide_total(total, weights) == amounts


@pytest.mark.parametrize(
    ("samples", "records"), [(0, 0), (1, 1), (499, 1), (1499, 1), (1500, 2), (2500, 3), (150000, 150)]
)
def test_sizes_are_rounded_half_up_and_never_to_nothing(samples: int, records: int) -> None:
    assert num_records(samples, 1000) == records


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"kind": "sources", "sources": {"ChartAQ": 5}}, r"mixes\.trial\.select\.sources: .*'ChartAQ'.*'ChartQA'"),
        (
            {"kind": "cap", "max_per_source": 5, "uncapped_categories": ["Langauge"]},
            r"uncapped_categories: unknown name 'Langauge'; did you mean 'Language'",
        ),
        ({"kind": "ratio", "total": 5, "percent": {"Ocr": 100.0}}, r"select\.percent: unknown name 'Ocr'"),
        ({"kind": "ratio", "total": 5, "percent": {"OCR": 90.0}}, r"select\.percent: sums to 90, expected 100"),
    ],
)
def test_a_name_or_share_that_cannot_be_is_an_error_with_its_place(select: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        plan_quotas(parse_row(select).select, SOURCES, samples_per_record=1, where="mixes.trial.select")


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ({"kind": "some"}, r"mixes\.trial\.select: .*'some'.*"),
        ({"kind": "cap", "max_per_source": "150k", "uncapped_categories": []}, r"max_per_source: found '150k'"),
        ({"kind": "cap", "max_per_source": 5}, r"uncapped_categories: missing"),
        ({"kind": "cap", "max_per_source": -5, "uncapped_categories": []}, r"max_per_source: found -5"),
        ({"kind": "nothing", "total": 5}, r"total: unknown field"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_with_its_place(select: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_row(select)


def test_a_pool_that_was_not_cleaned_to_the_end_is_refused(tmp_path: Path) -> None:
    pool = write_clean_pool(tmp_path / "pool", make_records())
    (pool / "sources.json").unlink()
    with pytest.raises(ArtifactError, match=r"sources\.json has no file"):
        curate_mix(
            parse_row({"kind": "everything"}), PARTITIONS, name="trial", samples_per_record=1, seed=0,
            format_prompts=PROMPTS,
            pool=pool, output=tmp_path / "mix",
        )  # fmt: skip
