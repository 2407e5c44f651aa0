from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from dvc.utils.serialize import load_yaml

import flows.repository
from flows.graph import GraphError, Project
from tests.flows.conftest import DIAMOND, DIAMOND_PARAMS, stage

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import DemoProject


def test_the_graph_is_the_one_that_dvc_draws(diamond: DemoProject) -> None:
    drawn = diamond.dvc("dag", "--dot")
    edges = set(re.findall(r'"([^"]+)" -> "([^"]+)"', drawn))
    with Project() as project:
        plan = project.plan()
    assert {(upstream, node.address) for node in plan for upstream in node.upstream} == edges
    assert {node.address for node in plan} == set(re.findall(r'"([^"]+)"', drawn))
    assert len(edges) == 4


def test_the_order_is_the_one_in_which_dvc_runs(diamond: DemoProject) -> None:
    with Project() as project:
        planned = [node.address for node in project.plan()]
    assert planned == re.findall("Running stage '([^']+)'", diamond.dvc("repro"))
    assert len(planned) == 5


def test_a_target_brings_its_upstream_and_nothing_else(diamond: DemoProject) -> None:
    with Project() as project:
        assert [node.address for node in project.plan(["train@large"])] == ["collect", "train@large"]


def test_a_foreach_name_stands_for_all_its_instances(diamond: DemoProject) -> None:
    with Project() as project:
        assert [node.address for node in project.plan(["train"])] == ["collect", "train@small", "train@large"]


def test_status_follows_the_files(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    (diamond.root / "source.txt").write_text("3\n")
    with Project() as project:
        project.plan()
        assert not project.is_up_to_date("collect")
        assert project.is_up_to_date("train@small")
        diamond.dvc("repro", "--single-item", "collect")
        assert not project.is_up_to_date("train@small")
        assert project.is_up_to_date("aside")


def test_status_follows_the_params_that_a_stage_tracks(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    diamond.write(DIAMOND, DIAMOND_PARAMS | {"sizes": {"small": 1, "large": 3}})
    with Project() as project:
        project.plan()
        assert project.is_up_to_date("train@small")
        assert not project.is_up_to_date("train@large")
        assert project.read_params("train@large") == {"rate": 0.5, "sizes.large": 3}


def test_params_of_other_files_carry_the_name_of_the_file(project: DemoProject) -> None:
    project.write(
        {"train": stage("echo 1 > out.txt", out="out.txt", params=["rate", {"other.yaml": ["depth"]}])}, {"rate": 1}
    )
    (project.root / "other.yaml").write_text("depth: 3\n")
    with Project() as opened:
        opened.plan()
        assert opened.read_params("train") == {"rate": 1, "other.yaml:depth": 3}


def test_files_that_were_added_are_stages_without_a_command(project: DemoProject) -> None:
    (project.root / "raw.txt").write_text("1\n")
    project.dvc("add", "--quiet", "raw.txt")
    project.write({"use": stage("cp raw.txt used.txt", deps=["raw.txt"], out="used.txt")})
    with Project() as opened:
        added, use = opened.plan()
        assert (added.address, added.command) == ("raw.txt.dvc", "")
        assert use.upstream == ("raw.txt.dvc",)
        assert opened.is_up_to_date("raw.txt.dvc")
        assert not opened.is_up_to_date("use")


def test_a_frozen_stage_does_not_pull_in_its_dependencies(project: DemoProject) -> None:
    project.write(
        {
            "first": stage("echo 1 > a.txt", out="a.txt"),
            "second": stage("cp a.txt b.txt", deps=["a.txt"], out="b.txt", frozen=True),
        }
    )
    with Project() as opened:
        assert [node.address for node in opened.plan(["second"])] == ["second"]


def test_what_a_planned_stage_makes_is_not_missing(project: DemoProject) -> None:
    project.write(
        {
            "folder": stage("mkdir made; echo 1 > made/a.txt", out="made"),
            "inside": stage("cp made/a.txt b.txt", deps=["made/a.txt"], out="b.txt"),
            "part": stage("echo 1 > parts/x.txt", out="parts/x.txt"),
            "above": stage("ls parts > c.txt", deps=["parts"], out="c.txt"),
            "lost": stage("cp nowhere.txt d.txt", deps=["nowhere.txt", "madeup"], out="d.txt"),
        }
    )
    with Project() as opened:
        problems = {node.address: opened.list_problems(node.address, may_overwrite=False) for node in opened.plan()}
    lost = [
        f"lost needs {name}, which is missing, and no stage of this run makes it" for name in ("madeup", "nowhere.txt")
    ]
    assert {name: sorted(found) for name, found in problems.items()} == {
        "folder": [], "inside": [], "part": [], "above": [], "lost": lost
    }  # fmt: skip


def test_an_unknown_target_is_named_with_where_to_look(diamond: DemoProject) -> None:
    with Project() as project, pytest.raises(GraphError, match=r"'tarin' not found.*dvc stage list"):
        project.plan(["tarin"])


def test_a_cycle_is_refused(project: DemoProject) -> None:
    project.write({"a": stage("true", deps=["b.txt"], out="a.txt"), "b": stage("true", deps=["a.txt"], out="b.txt")})
    with Project() as opened, pytest.raises(GraphError, match="both a dependency and an output in stages"):
        opened.plan()


def test_broken_yaml_is_reported_with_the_file(project: DemoProject) -> None:
    (project.root / "dvc.yaml").write_text("stages: [")
    with Project() as opened, pytest.raises(GraphError, match=r"dvc\.yaml"):
        opened.plan()


def test_a_folder_without_dvc_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GraphError, match="Start this inside a DVC project"):
        Project()


def test_an_edited_value_is_read_anew_by_an_open_project(diamond: DemoProject) -> None:
    with Project() as project:
        project.plan()
        for rate in (0.6, 0.7):
            diamond.write(DIAMOND, DIAMOND_PARAMS | {"rate": rate})
            assert project.read_params("train@small")["rate"] == rate


def test_a_lock_is_parsed_once_however_many_stages_ask_for_their_entry(
    diamond: DemoProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    diamond.dvc("repro", "--quiet")
    diamond.write(DIAMOND, DIAMOND_PARAMS | {"rate": 0.7})
    parsed = []

    def parse(path: Path) -> Any:
        parsed.append(path.name)
        return load_yaml(path)

    monkeypatch.setattr(flows.repository, "load_yaml", parse)
    with Project() as project:
        for node in project.plan():
            project.explain(node.address)
    assert parsed == ["dvc.lock"]
    diamond.dvc("repro", "--quiet")
    with Project() as project:
        project.plan()
        assert project.explain("train@small") == []
    assert parsed == ["dvc.lock", "dvc.lock"]
