from __future__ import annotations

import csv
import hashlib
import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from cambrian.report.history import find_origins
from cambrian.report.published import read_published
from cambrian.report.scores import read_scores
from cambrian.report.seeds import average_seeds, group_seeds
from tests.report.conftest import CONFIG, MISSING, World
from tests.report.fake import write_results

if TYPE_CHECKING:
    from pathlib import Path

PUBLISHED = read_published()


@pytest.fixture(scope="module")
def cells(tables: Path) -> list[dict[str, str]]:
    with (tables / "verdicts.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def find(cells: list[dict[str, str]], table: str, row: str, column: str) -> dict[str, str]:
    (cell,) = [line for line in cells if (line["table"], line["row"], line["column"]) == (table, row, column)]
    return cell


def test_every_published_number_has_one_verdict(cells: list[dict[str, str]]) -> None:
    assert len(cells) > 3000
    assert {cell["table"] for cell in cells} >= set(PUBLISHED.tables)
    names = Counter((cell["table"], cell["row"], cell["column"]) for cell in cells)
    repeated = {name for name, count in names.items() if count > 1}
    assert {table for table, _, _ in repeated} <= {"backbones"}  # two SigLIP rows there differ in no key that is shown
    for table in ("recipe_0M", "recipe_1.2M", "final", "leakage", "ratio_full"):
        printed = PUBLISHED.tables[table]
        numbers = sum(isinstance(value, int | float) for row in printed.rows for value in row)
        judged = sum(cell["table"] == table for cell in cells)
        num_keys = {"final": 11}.get(table, 0)  # the visual tokens of eleven models are keys
        assert judged == numbers - num_keys, table


def test_a_verdict_says_where_its_number_comes_from(cells: list[dict[str, str]], world: World) -> None:
    cell = find(cells, "recipe_1.2M", "language-supervised | OpenAI CLIP | ViT-L/14@336", "MMB")
    scores = world.results / "clip-1200k" / "scores.json"
    assert (cell["run"], cell["scale"], cell["published"]) == ("clip-1200k", "small", "61.96")
    assert cell["artefact"] == hashlib.md5(scores.read_bytes()).hexdigest()
    assert cell["commit"] == ""  # nothing here is committed


def test_a_number_agrees_within_its_tolerance_and_not_beyond(cells: list[dict[str, str]], tables: Path) -> None:
    compared = [cell for cell in cells if cell["verdict"] in ("agrees", "differs") and cell["standard_error"]]
    assert {cell["verdict"] for cell in compared} == {"agrees", "differs"}
    for cell in compared:
        apart = abs(float(cell["reproduced"]) - float(cell["published"]))
        # files have four digits after the point
        assert (
            (apart <= float(cell["tolerance"]) + 2e-4)
            if cell["verdict"] == "agrees"
            else apart > float(cell["tolerance"]) - 2e-4
        )
    score = find(cells, "recipe_1.2M", "language-supervised | OpenAI CLIP | ViT-L/14@336", "MMB")
    spread = json.loads((tables / "findings.json").read_text())["measured_seed_deviations"]["MMB"]
    assert spread != CONFIG.seed_standard_deviation
    expected = CONFIG.min_standard_errors * (float(score["standard_error"]) ** 2 + spread**2) ** 0.5
    assert float(score["tolerance"]) == pytest.approx(expected, abs=1e-3)


def test_what_has_no_verdict_says_why(cells: list[dict[str, str]]) -> None:
    open_cells = [cell for cell in cells if cell["verdict"] in ("not attempted", "not possible")]
    assert open_cells
    assert all(cell["why"] for cell in open_cells)
    unasked = [cell for cell in open_cells if cell["verdict"] == "not attempted" and cell["table"] != "rankings"]
    assert all(not cell["reproduced"] for cell in unasked)
    ranks = [cell for cell in open_cells if cell["table"] == "rankings" and cell["reproduced"]]
    assert {cell["why"].split(":")[0] for cell in ranks} == {"a rank needs all of its half"}
    missing = find(cells, "spatial_connectors", "SVA", "General")
    assert (missing["verdict"], missing["run"]) == ("not attempted", MISSING[0])
    assert find(cells, "final", "proprietary | GPT-4V | ", "MMB")["verdict"] == "not possible"
    unprobed = find(cells, "linear_probe", "DFN-CLIP | ViT-L", "top1")
    assert (unprobed["verdict"], unprobed["why"]) == ("not attempted", "its encoder is not probed in this breadth")


def test_the_summary_counts_the_verdicts(cells: list[dict[str, str]], tables: Path) -> None:
    counted = json.loads((tables / "summary.json").read_text())["cells"]
    assert counted == {
        word.replace(" ", "_"): sum(cell["verdict"] == word for cell in cells)
        for word in ("agrees", "differs", "not attempted", "not possible")
    }


def test_published_scores_as_results_agree_everywhere(world: World, tmp_path: Path) -> None:
    """What a perfect reproduction would say: the printed scores of table 11 as a run's scores, in every table."""
    table = PUBLISHED.tables["recipe_1.2M"]
    (row,) = table.find_rows(["model", "architecture"], ["OpenAI CLIP", "ViT-L/14@336"])
    path = tmp_path / "results" / "clip-1200k" / "scores.json"
    path.parent.mkdir(parents=True)
    scores = json.loads((world.results / "clip-1200k" / "scores.json").read_text())
    for name, entry in scores["scores"].items():
        entry["with_image"] = float(str(table.cell(row, name)))
    path.write_text(json.dumps(scores))
    world.tabulate(tmp_path / "tables", tmp_path / "results")
    with (tmp_path / "tables" / "verdicts.csv").open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["run"] == "clip-1200k"]
    compared = [line["verdict"] for line in lines if line["table"] != "rankings"]
    assert len(compared) == 17 + 4  # table 11 and figure 5
    assert set(compared) == {"agrees"}
    assert {line["verdict"] for line in lines if line["table"] == "rankings"} == {"not attempted"}  # one of ten


def test_committed_scores_name_their_commit_and_changed_ones_do_not(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        names = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        command = ["git", *names, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()

    write_results(tmp_path / "runs", ["a", "b"], scale="small")
    git("init", "-q")
    assert {origin.commit for origin in find_origins(tmp_path / "runs", ["a", "b"]).values()} == {""}
    git("add", ".")
    git("commit", "-qm", "first")
    first = git("rev-parse", "--short", "HEAD")
    assert {origin.commit for origin in find_origins(tmp_path / "runs", ["a", "b"]).values()} == {first}
    (tmp_path / "runs" / "b" / "scores.json").write_text("{}")
    commits = {run: origin.commit for run, origin in find_origins(tmp_path / "runs", ["a", "b"]).items()}
    assert commits == {"a": first, "b": ""}


def test_seeds_of_a_run_are_averaged_and_measure_their_own_spread(tmp_path: Path) -> None:
    names = [f"run{k}" for k in range(4)]
    rows = {
        f"{name}{suffix}": {"mix": name, "seed": seed}
        for name in names
        for suffix, seed in (("", 0), ("-s1", 1), ("-s2", 2))
    }
    groups = group_seeds(rows)
    assert groups["run1"] == ["run1", "run1-s1", "run1-s2"]
    write_results(tmp_path, list(rows), scale="small")
    single = read_scores(tmp_path, rows, PUBLISHED, scale="small")
    averaged, deviations = average_seeds(single, groups)
    assert set(averaged) == set(names)
    assert averaged["run1"].num_seeds == 3
    values = [[single[member].headline["General"] for member in members] for members in groups.values()]
    centres = [sum(group) / 3 for group in values]
    assert averaged["run1"].headline["General"] == pytest.approx(centres[1])
    squares = sum((value - centre) ** 2 for group, centre in zip(values, centres, strict=True) for value in group)
    assert deviations["General"] == pytest.approx((squares / 8) ** 0.5)
    assert average_seeds(single, {"run1": groups["run1"]})[1] == {}  # two repeats say too little
