from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from flows.causes import Cause
from flows.difference import DifferenceError, MetricChange, compare_revisions, list_metric_changes, to_json, write_file
from flows.difference_text import write_markdown
from flows.settings import SettingsError, read_settings

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import DemoProject


def commit(root: Path) -> None:
    for command in (["add", "--all"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def write(
    project: DemoProject, before: str, durations: dict[str, list[float]] | None = None, *, after: str | None = None
) -> str:
    settings = read_settings(project.root / "pyproject.toml")
    return write_markdown(compare_revisions(project.root, before, after, settings), durations or {})


def write_scores(project: DemoProject, score: float, rate: float) -> None:
    scores = json.dumps({"mmlu": {"score": score, "standard_error": 3.0}, "items": 10})
    project.write(
        {
            "train": {
                "cmd": f"echo '{scores}' > scores.json; seq {int(score)} > model.txt",
                "params": ["rate"],
                "outs": ["model.txt"],
                "metrics": ["scores.json"],
            }
        },
        {"rate": rate},
    )
    project.dvc("repro", "--quiet")


def test_scores_params_data_and_minutes_stand_in_the_difference(project: DemoProject) -> None:
    write_scores(project, 40, 0.1)
    commit(project.root)
    write_scores(project, 55, 0.2)
    text = write(project, "HEAD", {"train": [60.0, 90.0]})
    assert "| `scores.json: mmlu.score` | 40 | 55 | +15 | 3.5 standard errors | `params.yaml: rate`" in text
    assert "standard_error`" not in text
    assert "| `params.yaml: rate` | `0.1` | `0.2` |" in text
    assert "| `model.txt` | 111 bytes | 156 bytes |" in text
    assert "| `train` | 1.00 | 1.50 |" in text


def test_without_a_change_there_is_nothing_to_say(project: DemoProject) -> None:
    write_scores(project, 40, 0.1)
    commit(project.root)
    text = write(project, "HEAD", {})
    assert text.endswith("\nNothing changed.\n")


def test_every_dvc_lock_counts(project: DemoProject) -> None:
    (project.root / "sub").mkdir()
    pipeline = project.root / "sub/dvc.yaml"
    pipeline.write_text("stages: {a: {cmd: seq 3 > a.txt, outs: [a.txt]}}")
    project.dvc("repro", "--quiet", "sub/dvc.yaml")
    commit(project.root)
    pipeline.write_text("stages: {a: {cmd: seq 4 > a.txt, outs: [a.txt]}}")
    project.dvc("repro", "--quiet", "sub/dvc.yaml")
    text = write(project, "HEAD", {"sub/dvc.yaml:a": [60.0]})
    assert "| `sub/a.txt` | 6 bytes | 8 bytes |" in text
    assert "| `sub/dvc.yaml:a` |  | 1.00 |" in text


def test_before_the_first_run_everything_is_new(project: DemoProject) -> None:
    (project.root / "readme").write_text("x")
    commit(project.root)
    write_scores(project, 40, 0.1)
    text = write(project, "HEAD", {})
    assert "| `scores.json: mmlu.score` |  | 40 |  | new | `train` |" in text


@pytest.mark.parametrize(
    ("old", "new", "error", "verdict"),
    [
        (40.0, 44.0, 3.0, "1.3 standard errors, noise"),
        (40.0, 46.0, 3.0, "2.0 standard errors"),
        (40.0, 30.0, 2.0, "5.0 standard errors"),
        (40.0, 30.0, None, ""),
        (None, 30.0, None, "new"),
        (30.0, None, 1.0, "gone"),
    ],
)
def test_a_difference_within_two_standard_errors_is_noise(
    old: float | None, new: float | None, error: float | None, verdict: str
) -> None:
    assert MetricChange("a", old, new, error).verdict == verdict


def test_the_noise_of_a_difference_has_that_of_both_sides() -> None:
    values = {"a.score": {"old": 1, "new": 2}, "a.noise": {"old": 3, "new": 4}, "b": {"old": 5, "new": 5}}
    (change,) = list_metric_changes({"s.json": values}, noise_metric="noise")
    assert change == MetricChange("s.json: a.score", 1, 2, 5.0)
    del values["a.noise"]["old"]
    (change,) = list_metric_changes({"s.json": values}, noise_metric="noise")
    assert change.standard_error is None


def test_a_commit_that_there_is_not_is_named(project: DemoProject) -> None:
    with pytest.raises(DifferenceError, match="nowhere"):
        write(project, "nowhere", {})


def test_the_command_prints_markdown(project: DemoProject) -> None:
    write_scores(project, 40, 0.1)
    commit(project.root)
    write_scores(project, 41, 0.1)
    printed = subprocess.run(
        [sys.executable, "-m", "flows", "diff"], cwd=project.root, capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith("## Against ")
    assert "1 scores moved by noise: `scores.json: mmlu.score` +1" in printed


COMPARE = """
[tool.flows]
difference_file = "{scale}.json"
[tool.flows.compare]
"findings.json" = { title = "Findings", rows = "findings", keys = ["id"], word = "verdict", number = "effect", noise = "standard_error", source = "{runs}.json" }
"verdicts.csv" = { title = "Verdicts", keys = ["table", "row"], word = "verdict", number = "ours", noise = "error", group = "table", source = "{run}.json" }
"""  # noqa: E501


def make_two_runs(project: DemoProject) -> None:
    """Two trainings with a value and a source each, scored in a metrics file, and a table of verdicts over both."""
    (project.root / "pyproject.toml").write_text(COMPARE)
    for name in ("a", "b"):
        (project.root / f"{name}.py").write_text("x = 1\n")
    (project.root / "judge.py").write_text(
        "import json, sys\n"
        "limit = float(sys.argv[1])\n"
        "runs = {name: json.load(open(f'{name}.json'))['score'] for name in 'ab'}\n"
        "words = {name: 'agrees' if score > limit else 'differs' for name, score in runs.items()}\n"
        "with open('verdicts.csv', 'w') as file:\n"
        "    file.write('table,row,ours,error,run,verdict\\n')\n"
        "    for name, score in runs.items():\n"
        "        file.write(f'one,{name},{score},3,{name},{words[name]}\\n')\n"
        "finding = {'id': 'b-beats-a', 'effect': runs['b'] - runs['a'], 'standard_error': 1.0, 'runs': ['a', 'b']}\n"
        "finding['verdict'] = 'supported' if finding['effect'] > 2 else 'not supported'\n"
        "json.dump({'findings': [finding]}, open('findings.json', 'w'))\n"
    )
    train: dict[str, object] = {
        "cmd": """echo '{"score": ${scores.ITEM}, "standard_error": 3.0}' > ITEM.json""",
        "deps": ["ITEM.py"],
        "params": ["scores.ITEM"],
        "metrics": [{"ITEM.json": {"cache": False}}],
    }
    project.write(
        {
            **{f"train_{name}": json.loads(json.dumps(train).replace("ITEM", name)) for name in ("a", "b")},
            "judge": {
                "cmd": "python judge.py ${limit}",
                "deps": ["judge.py", "a.json", "b.json"],
                "params": ["limit"],
                "outs": [{"verdicts.csv": {"cache": False}}, {"findings.json": {"cache": False}}],
            },
        },
        {"scale": "small", "limit": 30, "scores": {"a": 40, "b": 41}},
    )


def set_params(project: DemoProject, **values: object) -> None:
    path = project.root / "params.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values, sort_keys=False))


def test_tables_verdicts_and_findings_that_changed_stand_with_what_explains_each(project: DemoProject) -> None:
    make_two_runs(project)
    project.dvc("repro", "--quiet")
    commit(project.root)
    set_params(project, scores={"a": 40, "b": 20})
    (project.root / "a.py").write_text("x = 2\ny = 3\n")
    project.dvc("repro", "--quiet")
    commit(project.root)
    text = write(project, "HEAD~1", after="HEAD")
    assert text.startswith("## ")
    assert "| `b.json: score` | 41 | 20 | -21 | 4.9 standard errors | `params.yaml: scores.b`, `train_b` |" in text
    assert "| `one` | 2 | 1 | 1 | 1 | 4.9 standard errors |" in text
    assert "agrees 2 -> 1, differs 0 -> 1; 0 rows are new, 0 are gone" in text
    assert (
        "| one / b | agrees -> differs | 41 -> 20 | 4.9 standard errors | `params.yaml: scores.b`, `train_b` |" in text
    )
    assert "| b-beats-a | not supported -> not supported" not in text
    assert "| param | `params.yaml: scores.b` | `41 -> 20` | 3 |" in text
    assert "| code | `a.py` | `1 file changed, 2 insertions(+), 1 deletion(-)` | 1 |" in text


def test_a_verdict_of_unchanged_numbers_is_explained_by_its_rule(project: DemoProject) -> None:
    make_two_runs(project)
    project.dvc("repro", "--quiet")
    commit(project.root)
    set_params(project, limit=40.5)
    project.dvc("repro", "--quiet")
    text = write(project, "HEAD")
    assert "### Scores" not in text
    assert (
        "| one / a | agrees -> differs | 40 -> 40 | 0.0 standard errors, noise | `params.yaml: limit`, `judge` |"
        in text
    )


def test_the_difference_agrees_with_that_of_dvc_between_commits_and_against_the_workspace(project: DemoProject) -> None:
    make_two_runs(project)
    project.dvc("repro", "--quiet")
    commit(project.root)
    set_params(project, scores={"a": 60, "b": 42})
    project.dvc("repro", "--quiet")
    commit(project.root)
    set_params(project, scores={"a": 60, "b": 10})
    project.dvc("repro", "--quiet")
    settings = read_settings(project.root / "pyproject.toml")
    for revisions in (["HEAD~1", "HEAD"], ["HEAD~1", None], ["HEAD", None]):
        printed = project.dvc("metrics", "diff", "--json", *(name for name in revisions if name))
        by_dvc = {
            f"{file}: {name}": (pair["old"], pair["new"])
            for file, values in json.loads(printed).items()
            for name, pair in values.items()
        }
        difference = compare_revisions(project.root, str(revisions[0]), revisions[1], settings)
        assert {change.name: (change.old, change.new) for change in difference.scores} == by_dvc
        assert by_dvc


def test_a_stage_that_makes_something_else_of_equal_inputs_is_named(project: DemoProject) -> None:
    make_two_runs(project)
    project.dvc("repro", "--quiet")
    commit(project.root)
    lock = project.root / "dvc.lock"
    (project.root / "a.json").write_text('{"score": 90, "standard_error": 3.0}')
    read = yaml.safe_load(lock.read_text())
    read["stages"]["train_a"]["outs"][0]["md5"] = "0" * 32
    lock.write_text(yaml.safe_dump(read))
    difference = compare_revisions(project.root, "HEAD", None, read_settings(project.root / "pyproject.toml"))
    assert difference.causes["a.json: score"] == (Cause("stage", "train_a", "made something else of the same inputs"),)


def test_a_difference_is_kept_for_the_report_until_there_is_another(project: DemoProject) -> None:
    make_two_runs(project)
    project.dvc("repro", "--quiet")
    commit(project.root)
    settings = read_settings(project.root / "pyproject.toml")
    set_params(project, scores={"a": 40, "b": 20})
    project.dvc("repro", "--quiet")
    difference = compare_revisions(project.root, "HEAD", None, settings)
    path = write_file(difference, settings, project.root)
    assert path.name == "small.json"
    kept = path.read_text()
    assert json.loads(kept) == to_json(difference)
    (verdicts,) = [file for file in json.loads(kept)["files"] if file["title"] == "Verdicts"]
    assert [(change["key"], change["causes"]) for change in verdicts["reversed"]] == [
        ("one / b", ["params.yaml: scores.b", "train_b"])
    ]
    commit(project.root)
    write_file(compare_revisions(project.root, "HEAD", None, settings), settings, project.root)
    assert path.read_text() == kept


def test_a_change_that_was_undone_leaves_the_report_what_the_commit_has(project: DemoProject) -> None:
    make_two_runs(project)
    (project.root / "small.json").write_text('{"before": "first"}')
    project.dvc("repro", "--quiet")
    commit(project.root)
    settings = read_settings(project.root / "pyproject.toml")
    for b in (20, 41):
        set_params(project, scores={"a": 40, "b": b})
        project.dvc("repro", "--quiet")
        path = write_file(compare_revisions(project.root, "HEAD", None, settings), settings, project.root)
        assert (path.read_text() == '{"before": "first"}') == (b == 41)
    path.write_text("<<<<<<< HEAD")
    with pytest.raises(DifferenceError, match=r"small\.json is no difference.*git checkout"):
        write_file(compare_revisions(project.root, "HEAD", None, settings), settings, project.root)


def test_what_has_no_place_or_not_the_columns_is_named(project: DemoProject) -> None:
    make_two_runs(project)
    project.dvc("repro", "--quiet")
    commit(project.root)
    (project.root / "verdicts.csv").write_text("table,verdict\none,agrees\n")
    with pytest.raises(DifferenceError, match=r"verdicts\.csv, row 1: no row; it has table, verdict"):
        write(project, "HEAD")
    (project.root / "pyproject.toml").unlink()
    settings = read_settings(project.root / "pyproject.toml")
    difference = compare_revisions(project.root, "HEAD", None, settings)
    with pytest.raises(SettingsError, match="has no difference_file"):
        write_file(difference, settings, project.root)
