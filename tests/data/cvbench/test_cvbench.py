from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from cambrian.cli import main
from cambrian.data.cvbench.annotations import Annotated, Thing, from_scene, read_ade, read_coco, read_omni3d
from cambrian.data.cvbench.build import finish_items, propose_items
from cambrian.data.cvbench.questions import Rules, find_candidates
from cambrian.data.world.config import WorldConfig
from cambrian.data.world.scenes import distance, sample_scene
from cambrian.evaluation.benchmarks.registry import BENCHMARKS, read_items
from cambrian.evaluation.metrics import score_credits
from cambrian.interfaces import ArtifactError
from cambrian.params import read_yaml
from tests.evaluation.test_benchmarks import QUESTION_ONLY
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.data.cvbench.questions import Task

RULES = Rules(
    min_box_share=0.001, relation_margin=0.1, depth_offset_m=0.2, distance_offset_m=0.2, num_count_options=5,
    items={"Relation": 10, "Count": 10, "Depth": 10, "Distance": 10},
)  # fmt: skip


def cube(x: float, y: float, z: float, half: float = 0.5) -> tuple[tuple[float, float, float], ...]:
    return tuple((x + i * half, y + j * half, z + k * half) for i, j, k in itertools.product((-1, 1), repeat=3))


def thing(category: str, left: float, z: float = 5.0, x: float = 0.0) -> Thing:
    return Thing(category, (left, 10, left + 10, 20), cube(x, 0, z))


def candidates(picture: Annotated, task: Task, categories: tuple[str, ...] = ("bed",)) -> list[Any]:
    return find_candidates(picture, task, RULES, categories=categories, rng=np.random.default_rng(0))


def room(*things: Thing) -> Annotated:
    return Annotated("room.jpg", "Omni3D", 100, 100, things)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (100, 100), "white").save(file, "PNG")
    return file.getvalue()


def test_a_relation_needs_a_gap_and_boxes_where_a_category_stands_twice() -> None:
    alone = candidates(room(thing("chair", 0), thing("table", 50)), "Relation")
    assert {(one.target, one.answer, one.others, one.is_drawn) for one in alone} == {
        ("chair", "left", ("right",), False), ("table", "right", ("left",), False),
    }  # fmt: skip
    twice = candidates(room(thing("chair", 0), thing("chair", 20), thing("table", 50)), "Relation")
    assert {one.is_drawn for one in twice} == {True}
    assert candidates(room(thing("chair", 0), thing("table", 5)), "Relation") == []


def test_counts_have_neighbouring_options_and_include_what_is_not_there() -> None:
    found = {one.target: one for one in candidates(room(thing("chair", 0), thing("chair", 50)), "Count")}
    assert (found["chair"].answer, found["bed"].answer) == ("2", "0")
    for one in found.values():
        numbers = sorted(map(int, (one.answer, *one.others)))
        assert numbers == list(range(numbers[0], numbers[0] + 5))
        assert numbers[0] >= 0


def test_depth_compares_the_farthest_corner_with_the_nearest() -> None:
    near, far = thing("chair", 0, z=3), thing("table", 50, z=5)
    (found,) = candidates(room(far, near), "Depth")
    assert (found.answer, found.others, found.boxes) == ("chair", ("table",), (far.box, near.box))
    farthest = math.dist((0, 0, 0), (0.5, 0.5, 3.5))
    for spare, count in ((-0.01, 0), (0.01, 1)):
        nearest = farthest + RULES.depth_offset_m + spare
        behind = thing("table", 50, z=0.5 + math.sqrt(nearest**2 - 2 * 0.5**2))
        assert len(candidates(room(near, behind), "Depth")) == count


def test_distance_needs_three_categories_and_room_between_them() -> None:
    anchor, close, away = thing("bed", 0, x=0), thing("lamp", 30, x=2), thing("sofa", 60, x=6)
    (found,) = [one for one in candidates(room(anchor, close, away), "Distance") if one.boxes[0] == anchor.box]
    assert (found.answer, found.others) == ("lamp", ("sofa",))
    assert "the bed (red box), the lamp (blue box) or the sofa (green box)" in found.text
    assert candidates(room(anchor, close, thing("lamp", 60, x=6)), "Distance") == []


def test_scenes_of_the_world_give_answers_that_are_true_in_the_scene() -> None:
    world = WorldConfig.model_validate(read_yaml(ROOT / "scales" / "mini.yaml")["benchmarks"]["world"])
    rng = np.random.default_rng(0)
    num_checked = 0
    for _ in range(30):
        scene = sample_scene(rng, world.scene, 4)
        picture = from_scene(scene, file="scene.png", side=48)
        solids = {f"{solid.colour} {solid.shape}": solid for solid in scene.solids}
        for one in candidates(picture, "Depth"):
            nearer, farther = solids[one.answer], solids[one.others[0]]
            assert math.hypot(*nearer.position) < math.hypot(*farther.position)
            num_checked += 1
        for one in candidates(picture, "Distance"):
            anchor = next(thing.category for thing in picture.things if thing.box == one.boxes[0])
            gaps = [distance(solids[anchor], solids[name]) for name in (one.answer, one.others[0])]
            assert gaps[0] < gaps[1]
            num_checked += 1
    assert num_checked > 10


def write_sources(folder: Path) -> None:
    coco = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 100, "height": 100} for n in (1, 2, 3)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}],
        "annotations": [
            {"image_id": n, "category_id": kind, "bbox": [left, 10, 20, 20], "iscrowd": int(n == 3)}
            for n in (1, 2, 3)
            for kind, left in ((7, 0), (8, 60))
        ],
    }
    omni = {
        "images": [{"id": 5, "file_path": "5.png", "width": 100, "height": 100}],
        "annotations": [
            {"image_id": 5, "category_name": name, "bbox2D_proj": [left, 10, left + 20, 30], "valid3D": name != "ghost",
             "bbox3D_cam": [list(corner) for corner in cube(x, 0, 4)]}
            for name, left, x in (("bed", 0, -1), ("lamp", 30, 1), ("sofa", 70, 6), ("ghost", 0, 0))
        ],
    }  # fmt: skip
    ade = {
        "annotation": {
            "filename": "9.png", "imsize": [100, 100, 3],
            "object": [
                {"name": name, "parts": {"ispart": name == "knob"}, "polygon": {"x": [x, x + 20], "y": [5, 30]}}
                for name, x in (("door, double door", 0), ("knob", 5), ("wall", 60))
            ],
        }
    }  # fmt: skip
    for name, value in (("coco.json", coco), ("omni.json", omni), ("ade/9.json", ade)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    for name in ("1.png", "2.png", "5.png", "9.png"):
        (folder / name).write_bytes(png())


def test_annotations_are_read_as_their_data_sets_write_them(tmp_path: Path) -> None:
    write_sources(tmp_path)
    assert [(one.file, len(one.things)) for one in read_coco(tmp_path / "coco.json")] == [("1.png", 2), ("2.png", 2)]
    assert read_coco(tmp_path / "coco.json")[0].things[1] == Thing("cat", (60, 10, 80, 30))
    (omni,) = read_omni3d(tmp_path / "omni.json")
    assert [one.category for one in omni.things] == ["bed", "lamp", "sofa"]
    (ade,) = read_ade(tmp_path / "ade")
    assert (ade.file, [one.category for one in ade.things]) == ("9.png", ["door", "wall"])


@pytest.mark.parametrize("text", ["{}", '{"images": [{"id": 1}], "categories": [], "annotations": []}', "[1]"])
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "coco.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"coco.json is not of its data set's form"):
        read_coco(tmp_path / "coco.json")


def propose(folder: Path, output: Path) -> list[dict[str, Any]]:
    write_sources(folder)
    pictures = [
        *read_coco(folder / "coco.json"), *read_ade(folder / "ade"), *read_omni3d(folder / "omni.json"),
    ]  # fmt: skip
    rng = np.random.default_rng(1)
    shuffled = [pictures[index] for index in rng.permutation(len(pictures))]
    read = lambda name: (folder / name).read_bytes()  # noqa: E731
    propose_items(shuffled, rules=RULES, seed=0, open_picture=read, output=output)
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(output / "test.parquet").to_pylist()
    return rows


def fill_review(proposed: Path, decisions: dict[int, tuple[str, str]]) -> Path:
    path = proposed.parent / "review.csv"
    with (proposed / "review.csv").open(newline="") as file:
        entries = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, entries[0])
        writer.writeheader()
        for entry in entries:
            decision, corrected = decisions.get(int(entry["idx"]), ("accept", ""))
            writer.writerow({**entry, "decision": decision, "corrected_answer": corrected})
    return path


def test_a_reviewed_set_is_scored_by_the_papers_formula(tmp_path: Path) -> None:
    rows = propose(tmp_path, tmp_path / "proposed")
    assert Counter((row["source"], row["task"]) for row in rows) == {
        ("COCO", "Relation"): 2, ("COCO", "Count"): 2, ("ADE20K", "Relation"): 1, ("ADE20K", "Count"): 1,
        ("Omni3D", "Relation"): 1, ("Omni3D", "Count"): 1, ("Omni3D", "Depth"): 1, ("Omni3D", "Distance"): 1,
    }  # fmt: skip
    wrong = next(row["idx"] for row in rows if (row["source"], row["task"]) == ("COCO", "Relation"))
    dropped = [row["idx"] for row in rows if row["source"] == "Omni3D" and row["type"] == "2D"]
    other = "(A)" if rows[wrong]["answer"] == "(B)" else "(B)"
    decisions = {wrong: ("correct", other), **dict.fromkeys(dropped, ("reject", ""))}
    review = fill_review(tmp_path / "proposed", decisions)
    finish_items(tmp_path / "proposed", review=review, output=tmp_path / "set" / "CV-Bench-2D")
    ledger = json.loads((tmp_path / "set" / "CV-Bench-2D" / "ledger.json").read_text())
    assert ledger == {"proposed": 10, "kept": 8, "accept": 7, "correct": 1, "reject": 2}
    items = read_items(tmp_path / "set", "CV-Bench-2D", QUESTION_ONLY)
    # COCO has 4 items and ADE20K 2: one wrong of COCO's costs an eighth, not a sixth
    credits_ = [0.0 if item.id == f"CV-Bench-2D/{wrong}" else 1.0 for item in items]
    score, _ = score_credits(BENCHMARKS["CV-Bench-2D"].metric, items, credits_)
    assert score == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert next(item for item in items if item.id == f"CV-Bench-2D/{wrong}").answers == (
        rows[wrong]["choices"]["AB".index(other[1])],
    )


def test_items_do_not_depend_on_the_order_of_pictures(tmp_path: Path) -> None:
    rows = propose(tmp_path, tmp_path / "proposed")
    pictures = [*read_omni3d(tmp_path / "omni.json"), *read_coco(tmp_path / "coco.json"), *read_ade(tmp_path / "ade")]
    propose_items(
        pictures, rules=RULES, seed=0, open_picture=lambda name: (tmp_path / name).read_bytes(), output=tmp_path / "b"
    )
    assert pyarrow.parquet.read_table(tmp_path / "b" / "test.parquet").to_pylist() == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: ("maybe", "")}, "item 0 has the decision 'maybe'"),
        ({0: ("", "")}, "item 0 has the decision ''"),
        ({0: ("correct", "(Z)")}, r"item 0 is corrected to '\(Z\)', expected one of \(A\), \(B\)"),
    ],
)
def test_a_review_that_decides_nothing_is_named(
    tmp_path: Path, change: dict[int, tuple[str, str]], message: str
) -> None:
    propose(tmp_path, tmp_path / "proposed")
    with pytest.raises(ArtifactError, match=message):
        finish_items(tmp_path / "proposed", review=fill_review(tmp_path / "proposed", change), output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_review_with_missing_or_doubled_lines_is_named(tmp_path: Path) -> None:
    propose(tmp_path, tmp_path / "proposed")
    lines = fill_review(tmp_path / "proposed", {}).read_text().splitlines(keepends=True)
    header = "idx,decision,corrected_answer\n"
    for text, message in (
        (header + "0,accept,\n", "no decision about 9 items, the first is 1"),
        (header + "0,accept,\n0,reject,\n", "two decisions about 0"),
        (header + "77,accept,\n", "a decision about no item, 77"),
        ("item,verdict\n0,accept\n", "is no review"),
    ):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ArtifactError, match=message):
            finish_items(tmp_path / "proposed", review=tmp_path / "bad.csv", output=tmp_path / "out")
    assert len(lines) > 10


def test_both_steps_run_from_the_command_line(tmp_path: Path) -> None:
    write_sources(tmp_path)
    (tmp_path / "rules.yaml").write_text(json.dumps(RULES.model_dump()))
    main(
        ["cvbench", "propose", "--coco", str(tmp_path / "coco.json"), "--pictures", str(tmp_path), "--rules",
         str(tmp_path / "rules.yaml"), "--seed", "0", "--output", str(tmp_path / "proposed")]
    )  # fmt: skip
    review = fill_review(tmp_path / "proposed", {})
    main(
        ["cvbench", "finish", "--proposed", str(tmp_path / "proposed"), "--review", str(review), "--output",
         str(tmp_path / "set")]
    )  # fmt: skip
    assert json.loads((tmp_path / "set" / "ledger.json").read_text())["kept"] == 4
