from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.report.charts import DRAWINGS
from cambrian.report.diagrams import DIAGRAMS
from cambrian.report.draw import read_figures_config
from cambrian.report.drawing import DATA_ANCHOR

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.conftest import World

OLDEST_VEGALITE = "5.8"
"""The nearest that we can render with to the version that `dvc plots` loads."""


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def without_rows(spec: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key != "data"}


def test_every_figure_is_described_and_drawn(figures: Path) -> None:
    assert set(read_figures_config()) == {*DRAWINGS, *DIAGRAMS}
    assert (len(DRAWINGS), len(DIAGRAMS)) == (17, 5)
    for name in read_figures_config():
        assert (figures / f"{name}.svg").read_text().startswith("<svg")


def test_diagrams_say_what_the_rows_and_the_scale_say(figures: Path, world: World) -> None:
    protocol, aggregator = ((figures / f"{name}.svg").read_text() for name in ("protocol", "aggregator"))
    assert f"{len(world.rows['runs'])} rows" in protocol
    assert "ScienceQA" not in protocol
    assert "SQA-I" in protocol
    assert "convnext-xxl-1024" in aggregator
    assert "2 aggregators inside" in aggregator
    assert "16 questions" in (figures / "construction.svg").read_text()


@pytest.mark.parametrize("name", DRAWINGS)
def test_rows_of_a_figure_have_the_same_fields_and_its_axes(figures: Path, name: str) -> None:
    rows = read(figures / f"{name}.json")
    assert rows
    assert len({frozenset(row) for row in rows}) == 1  # dvc plots takes nothing else
    config = read_figures_config()[name]
    assert {config.x, config.y} <= set(rows[0])


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_template_filled_by_dvc_draws_every_revision(figures: Path, name: str) -> None:
    import vl_convert

    template = (figures / f"{name}.template.json").read_text()
    assert template.count(DATA_ANCHOR) == 1
    rows = [{**row, "rev": rev} for rev in ("HEAD", "workspace") for row in read(figures / f"{name}.json")]
    svg = vl_convert.vegalite_to_svg(template.replace(f'"{DATA_ANCHOR}"', json.dumps(rows)), vl_version=OLDEST_VEGALITE)
    assert "HEAD" in svg
    assert "workspace" in svg


def test_template_and_report_draw_the_same(figures: Path) -> None:
    template, spec = read(figures / "caps.template.json"), read(figures / "caps.vl.json")
    assert template["spec"] == spec["spec"]
    assert set(template["facet"]) - set(spec["facet"]) == {"row"}


def test_both_faces_stand_in_the_figures(figures: Path) -> None:
    for name in ("images", "benchmark_map", "correlations", "recipes", "encoders", "gap", "caps", "ratios", "sources"):
        assert {row["face"] for row in read(figures / f"{name}.json")} == {"published", "reproduced"}


def test_a_missing_run_has_no_point(figures: Path) -> None:
    rows = read(figures / "encoders.json")
    assert [row["face"] for row in rows if row["encoder"].startswith("MiDaS")] == ["published"] * 4


def test_examples_show_a_right_and_a_wrong_answer_of_each_task(figures: Path) -> None:
    rows = read(figures / "examples.json")
    assert {(row["task"], row["outcome"]) for row in rows} == {
        (task, outcome) for task in ("Relation", "Count", "Depth", "Distance") for outcome in ("right", "wrong")
    }
    assert all((row["reply"] == row["answer"]) == (row["outcome"] == "right") for row in rows)


def test_figures_without_results_keep_what_is_published(world: World, tmp_path: Path) -> None:
    world.draw(tmp_path / "figures", tmp_path / "nothing")
    assert read(tmp_path / "figures" / "examples.json") == []
    assert not (tmp_path / "figures" / "examples.svg").exists()
    assert {row["face"] for row in read(tmp_path / "figures" / "images.json")} == {"published"}
