from __future__ import annotations

import json
from typing import TYPE_CHECKING

import yaml

from flows.causes import Cause, read_locks
from flows.difference import compare_revisions
from flows.settings import read_settings
from tests.flows.test_difference import commit

if TYPE_CHECKING:
    import pytest

    from tests.flows.conftest import DemoProject


def test_paths_of_stages_that_run_in_another_folder_are_found(project: DemoProject) -> None:
    (project.root / "sub").mkdir()
    (project.root / "sub/dvc.yaml").write_text(
        "vars: [../params.yaml]\n"
        "stages:\n"
        "  train:\n"
        "    foreach: [a]\n"
        "    do: {wdir: .., cmd: 'seq ${n} > ${item}.txt', params: [n], outs: ['${item}.txt']}\n"
    )
    (project.root / "dvc.yaml").write_text(
        "stages:\n"
        "  score:\n"
        "    cmd: printf '{\"lines\":%d}' $(wc -l < a.txt) > score.json\n"
        "    deps: [a.txt]\n"
        "    metrics: [{score.json: {cache: false}}]\n"
    )
    (project.root / "params.yaml").write_text("n: 3\n")
    project.dvc("repro", "--quiet")
    commit(project.root)
    (project.root / "params.yaml").write_text("n: 4\n")
    project.dvc("repro", "--quiet")
    difference = compare_revisions(project.root, "HEAD", None, read_settings(project.root / "pyproject.toml"))
    (change,) = difference.scores
    assert (change.old, change.new) == (3, 4)
    causes = {(cause.kind, cause.subject) for cause in difference.causes[change.name]}
    assert ("param", "params.yaml: n") in causes
    assert ("data", "a.txt") not in causes
    assert difference.locks.after["sub/dvc.yaml:train@a"]["outs"][0]["path"] == "a.txt"


def test_sources_beyond_the_repository_are_data(project: DemoProject, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "numbers.json"
    stages = {"copy": {"cmd": f"cp {outside} scores.json", "deps": [str(outside)], "metrics": ["scores.json"]}}
    for value in (1, 2):
        outside.write_text(json.dumps({"score": value}))
        project.write(stages)
        project.dvc("repro", "--quiet")
        if value == 1:
            commit(project.root)
    difference = compare_revisions(project.root, "HEAD", None, read_settings(project.root / "pyproject.toml"))
    assert difference.causes["scores.json: score"] == (Cause("data", str(outside), "changed"),)


def test_an_address_of_a_dependency_stays_as_it_is(project: DemoProject) -> None:
    (project.root / "sub").mkdir()
    deps = [{"path": "s3://bucket/a.txt"}, {"path": "../b.txt"}]
    (project.root / "sub/dvc.lock").write_text(yaml.safe_dump({"stages": {"copy": {"cmd": "cp", "deps": deps}}}))
    (entry,) = read_locks(project.root, None).values()
    assert [dep["path"] for dep in entry["deps"]] == ["s3://bucket/a.txt", "b.txt"]
