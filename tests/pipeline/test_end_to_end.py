"""The real pipeline by the real `dvc repro`, on few rows and small numbers."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.pipeline.project import Project, keep_runs, stages_run

if TYPE_CHECKING:
    from pathlib import Path

RUNS = ("clip-1200k", "sva-d3-g1", "blind")
REPORTING = ["tabulate", "draw", "publish"]


def reduce_numbers(scale: dict[str, Any]) -> None:
    """Cut every number that costs time; what is left learns nothing, and goes the whole way."""
    scale["samples_per_record"] = 5000
    scale["runtime"]["threads"] = 1  # tests share the cores; with two threads a weight once differed under such load
    for pool in ("instruction", "alignment"):
        for fault in scale["pools"][pool]["faults"]:
            fault["count"] = 2
    scale["pools"]["corpora"] |= {"num_images": 320, "num_documents": 400}
    scale["analysis_sets"]["labelled"] |= {"num_train": 60, "num_test": 30}
    scale["analysis_sets"]["dialogues"]["recipes"] = {"captions": 7, "everyday-described": 2}
    for benchmark in scale["benchmarks"]["sets"].values():
        benchmark["items"] = 8
    scale["pools"]["instruction"]["leak"]["benchmarks"] = scale["benchmarks"]
    scale["validation"] |= {"max_shortfall_share": 0.5, "max_contradicted_share": 0.5, "max_missing_share": 0.5}
    scale["validation"] |= {"max_category_deviation": 0.2}
    for backbone in scale["backbones"].values():
        settings = backbone.get("optimization") or backbone.get("objective", {}).get("optimization")
        if settings:
            settings |= {"num_steps": 4, "batch_size": 16}
    for recipe in scale["recipes"].values():
        recipe["epochs"] = 1


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("reduced") / "project")
    made.edit("params.yaml", lambda params: keep_runs(params, *RUNS))
    made.edit("scales/mini.yaml", reduce_numbers)
    made.repro()
    return made


def results(project: Project) -> dict[str, str]:
    """SHA-256 of every file of results, and of every trained weight."""
    files = [
        *(project.folder / "results").rglob("*.*"),
        *(project.folder / "models").rglob("*.safetensors"),
    ]
    return {
        path.relative_to(project.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
        if path.is_file()
    }


def test_a_fresh_project_ends_in_a_report(project: Project) -> None:
    report = project.folder / "results/mini/report"
    assert (report / "report.pdf").read_bytes().startswith(b"%PDF")
    page = (report / "report.html").read_text()
    assert all(run in page for run in RUNS)
    scores = json.loads((project.folder / "results/mini/runs/sva-d3-g1/scores.json").read_text())
    assert len(scores["scores"]) == 16
    analyses = project.folder / "results/mini/analyses"
    probe = json.loads((analyses / "probes/clip-l-336.json").read_text())
    assert (probe["classes"], probe["test_images"]) == (18, 30)
    shares = json.loads((analyses / "attention/sva-d3-g1.json").read_text())["benchmarks"]["GQA"]["shares"]
    assert sum(shares.values()) == pytest.approx(100)
    assert len(json.loads((analyses / "readings/sva-d3-g1.json").read_text())["scores"]) == 16
    assert len(json.loads((analyses / "dialogues/sva-d3-g1.json").read_text())["dialogues"]) == 9


def test_afterwards_there_is_nothing_to_do(project: Project) -> None:
    assert "up to date" in project.status()
    assert stages_run(project.repro().stdout) == []


def test_a_second_project_gives_the_same_bytes(project: Project, tmp_path: Path) -> None:
    other = Project(tmp_path / "other")
    other.edit("params.yaml", lambda params: keep_runs(params, *RUNS))
    other.edit("scales/mini.yaml", reduce_numbers)
    other.repro()
    first, second = results(project), results(other)
    assert len(first) > 50
    assert {name for name in first if first[name] != second.get(name)} == set()


def test_one_runs_learning_rate_reruns_that_run_alone(project: Project) -> None:
    def add_recipe(scale: dict[str, Any]) -> None:
        scale["recipes"]["slow"] = scale["recipes"]["study"] | {
            "learning_rates": {"connector": 0.001, "aggregators": 0.001, "llm": 0.001, "encoders": 0.001}
        }

    project.edit("scales/mini.yaml", add_recipe)
    project.edit("params.yaml", lambda params: params["runs"]["clip-1200k"].update(recipe="slow"))
    ran = stages_run(project.repro().stdout)
    assert ran == ["forecast", "finetune@clip-1200k", "evaluate@clip-1200k", *REPORTING]  # the forecast is of every row


def test_a_line_of_evaluation_code_retrains_nothing(project: Project) -> None:
    path = project.folder / "cambrian/evaluation/matching.py"
    path.write_text(path.read_text() + "\n# a line more\n")
    ran = stages_run(project.repro().stdout)
    others = ["measure_attention@sva-d3-g1", "regrade@sva-d3-g1"]
    assert sorted(ran) == sorted([*(f"evaluate@{run}" for run in RUNS), *others])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stage_killed_in_the_middle_leaves_nothing_and_the_next_run_continues(
    project: Project, number: signal.Signals
) -> None:
    before = results(project)
    backbones = project.folder / "models/mini/backbones"
    partial = backbones / ".clip-l-336.partial"
    shutil.rmtree(partial, ignore_errors=True)  # a killed stage's, which stays until the stage runs again
    arguments = ("--force", "--single-item", "prepare_backbones@clip-l-336")
    assert project.repro_until(partial.is_dir, *arguments, signal_number=number) != 0
    assert not (backbones / "clip-l-336").exists()
    project.repro()
    assert "up to date" in project.status()
    assert not (partial / "manifest.json").exists()
    assert results(project) == before


def test_a_broken_pool_stops_the_run_with_one_clear_line(project: Project) -> None:
    def lose_more(scale: dict[str, Any]) -> None:
        scale["cleaning"]["max_lost_share"] = 0.0

    project.edit("scales/mini.yaml", lose_more)
    done = project.repro("clean@instruction", check=False)
    project.edit("scales/mini.yaml", lambda scale: scale["cleaning"].update(max_lost_share=0.05))
    assert done.returncode != 0
    assert "max_lost_share" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_run_with_an_unknown_recipe_is_refused_by_name(project: Project) -> None:
    project.edit("params.yaml", lambda params: params["runs"]["blind"].update(recipe="studdy"))
    done = project.repro("pipeline/runs/dvc.yaml:finetune@blind", check=False)
    project.edit("params.yaml", lambda params: params["runs"]["blind"].update(recipe="study"))
    assert done.returncode != 0
    assert "studdy" in done.stderr + done.stdout
