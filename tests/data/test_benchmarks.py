from __future__ import annotations

import io
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from cambrian.artifacts import read_json, read_manifest
from cambrian.data.world.benchmark_layouts import LAYOUTS
from cambrian.data.world.benchmarks import BenchmarksConfig, BenchmarkSet, build_benchmarks, draw_item
from cambrian.data.world.config import CardConfig, ChartConfig, SceneConfig, WorldConfig
from cambrian.data.world.cvbench import CVBenchConfig, count_options, find_candidates
from cambrian.data.world.questions import all_words
from cambrian.data.world.scenes import Scene, Solid, place_solid
from cambrian.interfaces import ParamsError

if TYPE_CHECKING:
    from pathlib import Path

SCENE = SceneConfig(
    max_solids=4,
    max_offset=0.04,
    min_centre_distance=0.3,
    depths={"near": (2.2, 2.7), "mid": (3.6, 4.2), "far": (5.4, 6.4)},
    radius=(0.3, 0.4),
    fog=0.5,
    min_distance_ratio=1.6,
)
CVBENCH = CVBenchConfig(
    sources_2d={"few": [2, 3], "many": [4, 4]},
    sources_3d={"solids": [3, 4]},
    relation_margin=0.25,
    depth_margin=0.1,
    distance_margin=0.1,
    num_count_options=4,
)
SETS: dict[str, tuple[list[Any], list[str]]] = {
    "MME-P": (["scene"], ["exists", "number-is", "side", "attribute"]),
    "MMB": (["scene"], ["colour", "shape", "column", "row"]),
    "SEED-I": (["scene"], ["colour", "count"]),
    "GQA": (["scene"], ["colour", "exists", "row"]),
    "SQA-I": (["scene", "card"], ["biology", "matter"]),
    "MMMU-V": (["scene"], ["geography", "claim"]),
    "MathVista-M": (["digits"], ["sum"]),
    "AI2D": (["card"], ["biology"]),
    "ChartQA": (["chart"], ["value", "extreme"]),
    "OCRBench": (["card"], ["at"]),
    "TextVQA": (["card", "digits"], ["end"]),
    "DocVQA": (["digits"], ["at"]),
    "MMVP": (["scene"], ["colour", "column"]),
    "RealWorldQA": (["scene"], ["side", "depth-level"]),
    "CV-Bench-2D": (["scene"], ["Relation", "Count"]),
    "CV-Bench-3D": (["scene"], ["Depth", "Distance"]),
}
ITEMS = 16


def config(
    sets: dict[str, tuple[list[Any], list[str]]] = SETS, *, cvbench: CVBenchConfig = CVBENCH
) -> BenchmarksConfig:
    return BenchmarksConfig(
        kind="generated",
        world=WorldConfig(
            image_side=48,
            scene=SCENE,
            chart=ChartConfig(num_bars=(2, 3), max_value=8),
            card=CardConfig(num_signs=(2, 3), max_offset_pixels=1),
        ),
        cvbench=cvbench,
        sets={
            name: BenchmarkSet(items=ITEMS, pictures=pictures, kinds=kinds) for name, (pictures, kinds) in sets.items()
        },
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("world") / "benchmarks"
    build_benchmarks(config(), seed=0, split="test", output=output)
    return output


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.ParquetFile(folder / name / "test.parquet").read().to_pylist()
    return rows


def pictures(folder: Path) -> set[bytes]:
    found = set()
    for name in SETS:
        for row in read_rows(folder, name):
            image = next(row[column] for column in ("decoded_image", "image_1", "image") if column in row)
            found.add((image[0] if isinstance(image, list) else image)["bytes"])
    return found


def test_there_is_a_layout_for_each_of_the_sixteen_scores() -> None:
    assert list(LAYOUTS) == list(SETS)
    assert len(SETS) == 16


def test_every_score_has_its_folder_and_its_count(built: Path) -> None:
    counts = read_json(built / "items.json")
    assert counts == {name: len(read_rows(built, name)) for name in SETS}
    assert {name: count for name, count in counts.items() if count != ITEMS} == {
        "MME-P": 2 * ITEMS,
        "MMVP": 2 * ITEMS,
        "MMB": ITEMS // 2 * 3 + ITEMS // 4 * 4 + ITEMS // 4 * 3,  # a row for each option
    }
    assert read_manifest(built)["split"] == "test"


def test_one_seed_gives_one_set_of_bytes_and_another_gives_others(built: Path, tmp_path: Path) -> None:
    build_benchmarks(config(), seed=0, split="test", output=tmp_path / "again")
    build_benchmarks(config(), seed=1, split="test", output=tmp_path / "other")
    first, again, other = (read_manifest(folder)["files"] for folder in (built, tmp_path / "again", tmp_path / "other"))
    assert first == again
    assert all(first[f"{name}/test.parquet"] != other[f"{name}/test.parquet"] for name in SETS)


def test_validation_has_the_same_form_and_none_of_the_pictures(built: Path, tmp_path: Path) -> None:
    build_benchmarks(config(), seed=0, split="validation", output=tmp_path / "validation")
    assert read_json(built / "items.json").keys() == read_json(tmp_path / "validation" / "items.json").keys()
    assert len(pictures(built)) > 200
    assert not pictures(built) & pictures(tmp_path / "validation")


def test_an_item_does_not_depend_on_how_many_there_are(built: Path) -> None:
    drawn = draw_item(config(), seed=0, split="test", name="GQA", index=3)
    assert drawn.questions[0].text == read_rows(built, "GQA")[3]["question"]


def test_the_datasets_library_reads_the_pictures(built: Path, tmp_path: Path) -> None:
    import datasets

    for name, column in (("GQA", "image"), ("MathVista-M", "decoded_image"), ("SEED-I", "image")):
        path = str(built / name / "test.parquet")
        data = datasets.Dataset.from_parquet(path, cache_dir=str(tmp_path))
        assert len(data) == ITEMS
        value = data[0][column]
        assert (value[0] if name == "SEED-I" else value).size == (48, 48)


def test_every_word_is_one_of_the_world(built: Path) -> None:
    texts = []
    for name in SETS:
        for row in read_rows(built, name):
            texts.append(row.get("question", row.get("Question")).replace("<image 1>", ""))
            texts += row.get("choices") or []
    assert len(texts) > 300
    assert not {word for text in texts for word in text.split()} - all_words()


def test_pictures_are_whole_files(built: Path) -> None:
    sizes = {Image.open(io.BytesIO(data)).size for data in pictures(built)}
    assert sizes == {(48, 48)}


def test_an_mme_picture_has_a_yes_and_a_no(built: Path) -> None:
    rows = read_rows(built, "MME-P")
    assert {row["category"] for row in rows} == {"existence", "count", "position", "color"}
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert first["question_id"] == second["question_id"]
        assert first["image"] == second["image"]
        assert (first["answer"], second["answer"]) == ("Yes", "No")


def test_mmbench_turns_the_options_through_every_letter(built: Path) -> None:
    turns: dict[int, list[dict[str, Any]]] = {}
    for row in read_rows(built, "MMB"):
        turns.setdefault(row["index"] % 1_000_000, []).append(row)
    assert len(turns) == ITEMS
    for rows in turns.values():
        assert sorted(row["answer"] for row in rows) == list("ABCD"[: len(rows)])
        assert len({row[row["answer"]] for row in rows}) == 1


def test_mmvp_pairs_ask_one_question_with_two_answers(built: Path) -> None:
    rows = read_rows(built, "MMVP")
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        assert (first["Question"], first["Options"]) == (second["Question"], second["Options"])
        assert {first["Correct Answer"], second["Correct Answer"]} == {"(a)", "(b)"}
        assert first["image"]["bytes"] != second["image"]["bytes"]
    assert [row["Index"] for row in rows] == list(range(1, 2 * ITEMS + 1))


def test_knowledge_is_answered_by_the_question_alone(built: Path) -> None:
    answers: dict[str, set[str]] = {}
    for row in [*read_rows(built, "SQA-I"), *read_rows(built, "AI2D")]:
        options = row.get("choices") or row["options"]
        answers.setdefault(row["question"], set()).add(options[int(row["answer"])])
    assert len(answers) > 10
    assert all(len(found) == 1 for found in answers.values())


def test_right_letters_are_spread_evenly(built: Path) -> None:
    for name in ("CV-Bench-2D", "CV-Bench-3D"):
        for task in SETS[name][1]:
            for source in {row["source"] for row in read_rows(built, name)}:
                rows = [row for row in read_rows(built, name) if (row["task"], row["source"]) == (task, source)]
                letters = Counter(row["answer"] for row in rows)
                assert len(rows) >= 4
                assert max(letters.values()) - min(letters.values()) <= 1


def test_cvbench_rows_have_the_published_fields(built: Path) -> None:
    row = read_rows(built, "CV-Bench-3D")[1]
    assert (row["idx"], row["type"], row["task"], row["source"]) == (1, "3D", "Distance", "solids")
    assert len(row["bbox"]) == 3  # the anchor first
    assert row["choices"]["AB".index(row["answer"][1])] in row["prompt"]
    assert row["prompt"].endswith(f"(A) {row['choices'][0]}\n(B) {row['choices'][1]}")


def solid(colour: str, *, cell: int = 0, screen: tuple[float, float] = (0.5, 0.5), z: float, radius: float) -> Solid:
    placed = place_solid(
        SCENE, colour=colour, shape="cube", cell=cell, screen=screen, depth="near", within=0, radius=radius, turn=0
    )
    x, y, _ = placed.position
    scale = z / SCENE.depths["near"][0]
    return Solid(colour, "cube", (x * scale, y * scale, z), radius, 0, screen, cell, "near")


def scene(*solids: Solid) -> Scene:
    return Scene(solids=solids, background=(0.2, 0.4), farthest=6.4, fog=0.5, grain=0)


def candidates(task: Any, *solids: Solid) -> list[tuple[str, str]]:
    found = find_candidates(scene(*solids), task, CVBENCH, np.random.default_rng(0))
    return [(candidate.text, candidate.answer) for candidate in found]


def test_a_relation_needs_its_margin() -> None:
    anchor = solid("red", screen=(0.5, 0.5), z=3, radius=0.3)
    aside = solid("blue", screen=(0.76, 0.5), z=3, radius=0.3)
    hardly = solid("blue", screen=(0.74, 0.5), z=3, radius=0.3)
    assert sorted(candidates("Relation", anchor, aside)) == [
        ("is the blue left or right of the red", "right"),
        ("is the red left or right of the blue", "left"),
    ]
    assert candidates("Relation", anchor, hardly) == []


def test_above_is_towards_the_top() -> None:
    high, low = (solid(name, screen=(0.5, y), z=3, radius=0.3) for name, y in (("red", 0.2), ("blue", 0.8)))
    assert ("is the red above or below the blue", "above") in candidates("Relation", high, low)


def test_depth_compares_the_farthest_with_the_nearest_point() -> None:
    near = solid("red", z=3.0, radius=0.5)
    touching = solid("blue", z=4.0, radius=0.45)  # 3.5 + margin 0.1 > 4 - 0.45
    clear = solid("blue", z=4.0, radius=0.35)
    assert candidates("Depth", near, touching) == []
    assert candidates("Depth", near, clear) == [("which one is closer", "red")]


def test_distance_is_in_space_and_from_the_anchor() -> None:
    # On the screen blue is next to red and green far off; in space it is the other way round.
    anchor = solid("red", screen=(0.3, 0.5), z=2.5, radius=0.3)
    behind = solid("blue", screen=(0.4, 0.5), z=6.0, radius=0.3)
    beside = solid("green", screen=(0.8, 0.5), z=2.5, radius=0.3)
    assert math.dist(anchor.position, beside.position) < math.dist(anchor.position, behind.position)
    assert ("which one is nearest to the red", "green") in candidates("Distance", anchor, behind, beside)
    assert ("which one is nearest to the red", "blue") not in candidates("Distance", anchor, behind, beside)


def test_counts_include_what_is_not_there() -> None:
    found = dict(candidates("Count", solid("red", z=3, radius=0.3), solid("blue", z=3, radius=0.3)))
    assert found == {
        "how many solids": "two",
        "how many have the shape cube": "two",
        "how many have the shape ball": "zero",
        "how many have the shape cone": "zero",
    }


def test_count_options_are_neighbours_of_the_truth() -> None:
    rng = np.random.default_rng(0)
    places = Counter()
    for truth in (0, 1, 3, 7):
        for _ in range(50):
            options = count_options(truth, 4, rng)
            assert truth in options
            assert options == list(range(options[0], options[0] + 4))
            assert options[0] >= 0
            places[options.index(truth)] += truth >= 3
    assert all(places[place] > 10 for place in range(4))


def test_an_unknown_score_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"benchmarks.sets: unknown name 'MMBench'"):
        build_benchmarks(config({"MMBench": (["scene"], ["colour"])}), seed=0, split="test", output=tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("GQA", "colours", "benchmarks.sets.GQA: no question is of kind 'colours'"),
        ("MME-P", "existence", "benchmarks.sets.MME-P: kinds: unknown name 'existence'"),
        ("CV-Bench-3D", "Dept", "did you mean 'Depth'"),
    ],
)
def test_an_unknown_kind_of_question_is_named(tmp_path: Path, name: str, kind: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        build_benchmarks(config({name: (["scene"], [kind])}), seed=0, split="test", output=tmp_path / "x")


def test_a_margin_that_no_picture_meets_is_an_error_and_no_endless_search(tmp_path: Path) -> None:
    impossible = CVBENCH.model_copy(update={"depth_margin": 100.0})
    with pytest.raises(ParamsError, match=r"none of \d+ pictures has a question of Depth"):
        build_benchmarks(
            config({"CV-Bench-3D": (["scene"], ["Depth"])}, cvbench=impossible),
            seed=0, split="test", output=tmp_path / "x",
        )  # fmt: skip
