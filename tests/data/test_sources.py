from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from cambrian.artifacts import read_json, read_manifest
from cambrian.data.records import parse_record
from cambrian.data.shards import ImageStore
from cambrian.data.sources import PoolConfig, Source, collect_pool, count_records, read_catalog
from cambrian.data.world.benchmarks import BenchmarksConfig, BenchmarkSet, draw_item
from cambrian.data.world.conversations import find_recipe
from cambrian.data.world.cvbench import CVBenchConfig
from cambrian.data.world.pictures import draw_png
from cambrian.data.world.pools import Fault, GeneratedPool, LeakConfig, write_pool
from cambrian.interfaces import CATEGORIES, ParamsError, RecordError
from cambrian.params import parse_block
from tests.data.test_world import WORLD

if TYPE_CHECKING:
    from pathlib import Path

BENCHMARKS = BenchmarksConfig(
    kind="generated",
    world=WORLD,
    cvbench=CVBenchConfig(
        sources_2d={"ADE20K": [2, 3]},
        sources_3d={"Omni3D": [3, 4]},
        relation_margin=0.2,
        depth_margin=0.1,
        distance_margin=0.3,
        num_count_options=4,
    ),
    sets={"GQA": BenchmarkSet(items=4, pictures=["scene"], kinds=["colour"])},
)
SIZES = {"LNQA": 30, "OrcaMath": 20}
RECIPES = {"LNQA": "everyday", "OrcaMath": "sums"}


def config(*faults: tuple[str, str, int], leak: LeakConfig | None = None) -> GeneratedPool:
    return GeneratedPool(
        kind="generated",
        world=WORLD,
        shard_max_bytes=50_000,
        small_image_side=8,
        leak=leak,
        faults=[
            Fault.model_validate({"kind": kind, "source": source, "count": count}) for kind, source, count in faults
        ],
    )


def write(folder: Path, config: GeneratedPool, sizes: dict[str, int] = SIZES) -> tuple[list[str], ImageStore]:
    folder.mkdir()
    write_pool(folder, "instruction", config, recipes=RECIPES, sizes=sizes, seed=0)
    return (folder / "records.jsonl").read_text().splitlines(), ImageStore(folder)


def hash_folder(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_the_catalogue_holds_what_was_published() -> None:
    sources = read_catalog().instruction
    assert len(sources) == 68
    assert {source.category for source in sources.values()} == set(CATEGORIES)
    assert sum(source.thousands for source in sources.values() if source.in_7m) == 7055.5
    assert sum(source.thousands for source in sources.values()) == 9745.5
    removed = {name for name, source in sources.items() if not source.in_7m}
    assert removed == {"Filtered DVQA", "Filtered CLEVR", "Filtered WebSight"}
    assert {name: source.thousands for name, source in read_catalog().alignment.items()} == {
        "LLaVA-558K": 558,
        "ShareGPT4V-PT": 1246,
        "Mini-Gemini": 1240,
    }


def test_every_source_of_the_catalogue_has_a_recipe() -> None:
    catalog = read_catalog()
    sources = [*catalog.instruction.values(), *catalog.alignment.values()]
    assert len(sources) == 71
    for source in sources:
        find_recipe(source.recipe)


def test_text_only_sources_are_those_of_language_and_a_few_conversations() -> None:
    text = {
        name for name, source in read_catalog().instruction.items() if "none" in find_recipe(source.recipe).pictures
    }
    assert text == {"OpenOrca", "MathInstruct", "OrcaMath", "WizardCoder", "OpenCodeInterpreter", "Dolly", "ShareGPT"}


@pytest.mark.parametrize(("thousands", "expected"), [(775.0, 775), (0.5, 1), (0.1, 1), (2.5, 3)])
def test_a_record_stands_for_so_many_samples(thousands: float, expected: int) -> None:
    source = Source(category="OCR", thousands=thousands, in_7m=True, recipe="charts", licence="", origin="", archive="")
    assert count_records(source, 1000) == expected


def test_a_whole_pool_without_faults_is_usable(tmp_path: Path) -> None:
    lines, images = write(tmp_path / "pool", config())
    records = [parse_record(line) for line in lines]
    assert Counter(record.source for record in records) == SIZES
    assert len({record.id for record in records}) == len(records)
    named = [record.image for record in records if record.image is not None]
    assert len(named) == SIZES["LNQA"]
    assert sorted(named) == sorted(images)
    for name in named:
        with Image.open(io.BytesIO(images.read(name))) as image:
            image.load()
            assert image.size == (48, 48)


def test_a_source_does_not_depend_on_the_others(tmp_path: Path) -> None:
    both, _ = write(tmp_path / "both", config())
    alone, _ = write(tmp_path / "alone", config(), {"OrcaMath": 20})
    assert [line for line in both if "OrcaMath" in line] == alone


def test_the_same_seed_gives_the_same_pool(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, config(("duplicate", "LNQA", 3), ("truncated-image", "LNQA", 3)))
    assert len(hash_folder(tmp_path / "first")) > 3
    assert hash_folder(tmp_path / "first") == hash_folder(tmp_path / "second")


def test_malformed_lines_are_no_json(tmp_path: Path) -> None:
    lines, _ = write(tmp_path / "pool", config(("malformed-line", "OrcaMath", 4)))
    reasons = []
    for line in lines:
        try:
            parse_record(line)
        except RecordError as error:
            reasons.append(error.reason)
    assert reasons == ["malformed-json"] * 4


def test_missing_truncated_and_small_images_are_what_they_are_called(tmp_path: Path) -> None:
    lines, images = write(
        tmp_path / "pool",
        config(("missing-image", "LNQA", 2), ("truncated-image", "LNQA", 3), ("small-image", "LNQA", 4)),
    )
    found: Counter[str] = Counter()
    for record in map(parse_record, lines):
        if record.image is None:
            continue
        if record.image not in images:
            found["missing"] += 1
            continue
        try:
            with Image.open(io.BytesIO(images.read(record.image))) as image:
                image.load()
                found[f"{image.width}"] += 1
        except OSError:
            found["truncated"] += 1
    assert found == {"missing": 2, "truncated": 3, "8": 4, "48": 21}


def test_duplicates_have_the_words_and_the_bytes_of_another_record(tmp_path: Path) -> None:
    lines, images = write(tmp_path / "pool", config(("duplicate", "LNQA", 3), ("duplicate", "OrcaMath", 2)))
    contents = Counter(
        (record.turns, images.read(record.image) if record.image else None) for record in map(parse_record, lines)
    )
    assert sorted(contents.values()) == [1] * 40 + [2] * 5


def test_wrong_answers_differ_from_the_right_ones_in_every_turn(tmp_path: Path) -> None:
    right, _ = write(tmp_path / "right", config())
    wrong, _ = write(tmp_path / "wrong", config(("wrong-answers", "OrcaMath", 5)))
    changed = [(parse_record(a), parse_record(b)) for a, b in zip(right, wrong, strict=True) if a != b]
    assert len(changed) == 5
    for before, after in changed:
        assert before.turns[::2] == after.turns[::2]
        assert all(one.text != other.text for one, other in zip(before.turns[1::2], after.turns[1::2], strict=True))


def test_some_conversations_start_with_the_assistant(tmp_path: Path) -> None:
    lines, _ = write(tmp_path / "pool", config(("wrong-first-speaker", "LNQA", 2)))
    assert sum(parse_record(line).turns[0].speaker == "gpt" for line in lines) == 2


def test_leaked_images_are_the_benchmarks_own_bytes(tmp_path: Path) -> None:
    leak = LeakConfig(benchmark="GQA", split="test", benchmarks=BENCHMARKS)
    _, images = write(tmp_path / "pool", config(("leaked-image", "LNQA", 4), leak=leak))
    pool = {images.read(name) for name in images}
    for index in range(4):
        drawn = draw_item(BENCHMARKS, seed=0, split="test", name="GQA", index=index)
        assert draw_png(drawn.pictures[0], WORLD.image_side) in pool


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([("duplicate", "LNQQ", 1)], r"pools\.instruction\.faults: unknown name 'LNQQ'; did you mean 'LNQA'"),
        ([("duplicate", "LNQA", 30)], "30 faults for LNQA, which has 30 records"),
        ([("small-image", "OrcaMath", 1)], "small-image needs a source with images, OrcaMath has none"),
        ([("leaked-image", "LNQA", 1)], "a leaked image needs pools.leak"),
    ],
)
def test_faults_that_cannot_be_made_are_refused(
    tmp_path: Path, faults: list[tuple[str, str, int]], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        write(tmp_path / "pool", config(*faults))


def collect(pool: str, output: Path, samples_per_record: int) -> None:
    collect_pool(pool, PoolConfig(config()), samples_per_record=samples_per_record, seed=0, output=output)


def test_a_collected_pool_is_a_finished_folder_with_its_sources(tmp_path: Path) -> None:
    collect("alignment", tmp_path / "alignment", 100_000)
    read_manifest(tmp_path / "alignment")
    sources = read_json(tmp_path / "alignment" / "sources.json")
    assert sources["LLaVA-558K"] == {
        "category": "Alignment",
        "published_thousands": 558,
        "in_7m": False,
        "generator": "captions",
        "licence": "not stated in the release",
    }
    lines = (tmp_path / "alignment" / "records.jsonl").read_text().splitlines()
    assert Counter(json.loads(line)["source"] for line in lines) == {
        "LLaVA-558K": 6,
        "ShareGPT4V-PT": 12,
        "Mini-Gemini": 12,
    }
    for record in map(parse_record, lines):
        assert [turn.speaker for turn in record.turns] == ["human", "gpt"]
        assert len(record.turns[1].text.split()) <= 25


def test_a_pool_that_the_catalogue_does_not_know_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="unknown name 'instructions'; did you mean 'instruction'"):
        collect("instructions", tmp_path / "pool", 100_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"kind": "invented"}, "pools.instruction"),
        ({"kind": "generated-corpora", "num_images": 3}, "num_documents: missing"),
    ],
)
def test_a_pool_of_no_known_kind_is_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_block(PoolConfig, value, where="pools.instruction")
