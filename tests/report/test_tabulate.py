from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.interfaces import ArtifactError
from cambrian.report.config import read_findings_config, read_tables_config
from cambrian.report.findings import judge_findings
from cambrian.report.published import read_published
from cambrian.report.scores import read_scores
from tests.report.conftest import CONFIG, MISSING, World

if TYPE_CHECKING:
    from pathlib import Path


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def find_row(table: dict[str, Any], run: str) -> dict[str, Any]:
    (row,) = [row for row in table["rows"] if row["run"] == run]
    return dict(row)


def test_a_table_has_the_papers_shape_and_three_faces(tables: Path, world: World) -> None:
    table = read(tables, "recipe_1.2M.json")
    assert table["keys"] == ["group", "model", "architecture"]
    assert table["columns"][:3] == ["Average", "MME-P", "MMB"]
    row = find_row(table, "convnext-1200k")
    scores = read(world.results / "convnext-1200k", "scores.json")["scores"]
    printed = 59.4
    assert row["published"]["MMB"] == printed
    assert row["reproduced"]["MMB"] == pytest.approx(scores["MMB"]["with_image"], abs=1e-4)
    assert row["difference"]["MMB"] == pytest.approx(scores["MMB"]["with_image"] - printed, abs=1e-4)
    assert row["standard_error"]["MMB"] == pytest.approx(scores["MMB"]["standard_error"], abs=1e-4)


def test_a_run_of_several_seeds_stands_with_their_mean(tables: Path, world: World) -> None:
    table = read(tables, "recipe_1.2M.json")
    seeds = ["clip-1200k", "clip-1200k-s1", "clip-1200k-s2"]
    scores = [read(world.results / run, "scores.json")["scores"]["MMB"]["with_image"] for run in seeds]
    assert len(set(scores)) == 3
    assert find_row(table, "clip-1200k")["reproduced"]["MMB"] == pytest.approx(sum(scores) / 3, abs=1e-4)
    assert "Means over 3 seeds: clip-1200k, dinov2-1200k." in table["own_notes"]


def test_a_missing_run_is_not_attempted_and_nothing_stands_in_for_it(tables: Path) -> None:
    row = find_row(read(tables, "spatial_connectors.json"), "sva-36")
    assert row["status"] == "not attempted"
    assert row["reproduced"] == row["difference"] == {}
    with (tables / "spatial_connectors.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["connector"] == "SVA"]
    assert [(line["face"], line["status"], line["General"]) for line in lines] == [
        ("published", "not attempted", "65.5"),
        ("reproduced", "not attempted", ""),
    ]


def test_a_run_without_images_stands_with_the_numbers_that_it_has(tables: Path, world: World) -> None:
    row = find_row(read(tables, "recipe_0M.json"), "blind")
    scores = read(world.results / "blind", "scores.json")["scores"]
    assert row["image"] is False
    assert row["status"] == "added"
    assert row["reproduced"]["GQA"] == pytest.approx(scores["GQA"]["without_image"], abs=1e-4)


def test_a_changed_score_changes_its_table_and_no_other(tables: Path, world: World, tmp_path: Path) -> None:
    results = tmp_path / "results"
    shutil.copytree(world.results, results)
    path = results / "ratio-5" / "scores.json"
    scores = json.loads(path.read_text())
    scores["scores"]["GQA"]["with_image"] += 1.0
    path.write_text(json.dumps(scores))
    world.tabulate(tmp_path / "tables", results)
    ids = [path.stem for path in tables.glob("*.csv")]
    assert len(ids) == 32
    changed = {
        name for name in ids if (tables / f"{name}.csv").read_text() != (tmp_path / f"tables/{name}.csv").read_text()
    }
    assert changed == {"ratio_full", "runs", "verdicts"}


def test_ranks_are_counted_within_a_half(tables: Path) -> None:
    rows = read(tables, "rankings.json")["rows"]
    for half, count in (("language", 2), ("ssl+other", 6)):
        ranks = sorted(row["reproduced"]["All"] for row in rows if row["keys"][0] == half and row["reproduced"])
        assert ranks == list(range(1, count + 1))


def test_leakage_joins_the_two_scores_of_one_benchmark(tables: Path) -> None:
    rows = {row["keys"][1]: row for row in read(tables, "leakage.json")["rows"]}
    assert rows["CV-Bench"]["reproduced"] == {"images": 200, "in Cambrian-10M": 14, "in LLaVA-665k": 14}
    assert rows["all"]["reproduced"]["images"] == 300
    assert rows["GQA"]["difference"]["in Cambrian-10M"] == pytest.approx(7 - 100 / 398, abs=0.01)
    assert rows["GQA"]["reproduced"]["in data engine 161k"] == 0
    assert rows["MMB"]["status"] == "not attempted"


def test_counts_of_cvbench_come_from_its_questions(tables: Path) -> None:
    rows = read(tables, "cvbench_tasks.json")["rows"]
    assert [row["reproduced"]["samples"] for row in rows] == [4, 4, 4, 4]
    assert rows[0]["difference"] == {"samples": 4 - 650}


def test_the_summary_has_the_gaps_that_the_project_promises(tables: Path, world: World) -> None:
    summary = read(tables, "summary.json")
    listed = len(world.rows["runs"])
    assert summary["runs"] == {"evaluated": listed - len(MISSING), "listed": listed}
    assert set(summary["gap_without_image"]) == set(summary["gap_blind_run"]) == {"seeing", "knowledge"}
    final = summary["final"]
    parts = [
        final[name]["with_image"] - final[name]["without_image"]
        for name in ("General", "OCR & Chart", "Vision-Centric")
    ]
    assert summary["gap_without_image"]["seeing"] == pytest.approx(sum(parts) / 3, abs=1e-3)
    assert sum(summary["findings"].values()) == len(read_findings_config().findings)


def test_a_finding_names_its_runs_and_what_is_missing(tables: Path) -> None:
    findings = {finding["id"]: finding for finding in read(tables, "findings.json")["findings"]}
    assert findings["sva-few-tokens"]["verdict"] == "not attempted"
    assert findings["sva-few-tokens"]["missing"] == ["sva-36"]
    assert {"midas-1200k", "siglip-1200k"} <= set(findings["language-supervision"]["missing"])
    assert findings["two-phases"]["runs"] == ["clip-0m", "clip-558k"]
    # Published: the mean of table 10's eighteen models less theirs in table 9, whether or not they are among the runs.
    printed = read_published().tables
    both = {(str(row[1]), str(row[2])) for row in printed["recipe_0.5M"].rows}
    both &= {(str(row[1]), str(row[2])) for row in printed["recipe_0M"].rows}
    assert len(both) == 17  # table 10 prints I-JEPA as another architecture
    more, none = (
        sum(float(str(row[3])) for row in printed[table].rows if (row[1], row[2]) in both) / len(both)
        for table in ("recipe_0.5M", "recipe_0M")
    )
    assert findings["two-phases"]["published_effect"] == pytest.approx(more - none, abs=0.2)
    assert findings["final-sees"]["published_effect"] is None


def test_findings_without_any_run_are_not_attempted() -> None:
    judged = judge_findings(
        read_findings_config().findings, {}, CONFIG, read_tables_config(), read_published(), seed_deviations={}, talk={}
    )
    assert {finding.verdict for finding in judged} == {"not attempted"}


def test_no_results_at_all_still_give_tables(world: World, tmp_path: Path) -> None:
    world.tabulate(tmp_path / "tables", tmp_path / "nothing")
    assert read(tmp_path / "tables", "summary.json")["runs"]["evaluated"] == 0


def test_scores_of_another_run_are_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.results / "sva", tmp_path / "blind")
    with pytest.raises(ArtifactError, match="is of run 'sva' at scale 'small', expected 'blind'"):
        read_scores(tmp_path, ["blind"], read_published(), scale="small")


def test_scores_that_lack_a_benchmark_are_refused(world: World, tmp_path: Path) -> None:
    scores = read(world.results / "sva", "scores.json")
    del scores["scores"]["GQA"]
    (tmp_path / "sva").mkdir()
    (tmp_path / "sva" / "scores.json").write_text(json.dumps(scores))
    with pytest.raises(ArtifactError, match="lacks GQA"):
        read_scores(tmp_path, ["sva"], read_published(), scale="small")


def test_missing_runs_are_listed_as_such(tables: Path) -> None:
    with (tables / "runs.csv").open(newline="") as file:
        readings = {line["run"]: line["reading"] for line in csv.DictReader(file)}
    assert {run for run, reading in readings.items() if reading == "not attempted"} == set(MISSING)
