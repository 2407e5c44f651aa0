from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from flows.durations import estimate, read_durations, record_duration
from flows.graph import Project, StageNode
from flows.plan import estimate_wall, plan_run
from flows.settings import Needs, Settings, read_settings
from flows.slots import Capacity
from tests.flows.conftest import DIAMOND, DIAMOND_PARAMS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import DemoProject

NOTHING_SET = Settings(
    table_artifacts=(), image_artifacts=(), link_artifacts=(), noise_metric="standard_error", needs=()
)
MACHINE = Capacity(cpus=2, memory_gib=8, gpus=())


def test_a_plan_has_what_would_run_with_its_reason(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    diamond.write(DIAMOND, DIAMOND_PARAMS | {"sizes": {"small": 1, "large": 3}})
    with Project() as project:
        record_duration(project.temporary, "train@large", 90)
        plan = plan_run(project, project.plan(), NOTHING_SET, MACHINE, force=False)
    assert [(stage.address, stage.reason, stage.seconds) for stage in plan.stages] == [
        ("train@large", "command, param sizes.large", 90),  # the command has the value in it
        ("report", "after train@large", None),
    ]
    assert (plan.num_up_to_date, plan.total_s, plan.num_unknown, plan.wall_s) == (3, 90, 1, 90)
    diamond.list_ran()
    with Project() as project:
        forced = plan_run(project, project.plan(["aside"]), NOTHING_SET, MACHINE, force=True)
    assert [(stage.address, stage.reason) for stage in forced.stages] == [("aside", "--force")]
    assert diamond.list_ran() == []


def test_needs_stand_in_the_plan(diamond: DemoProject, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.flows.needs]\n"train@*" = {gpus = 1, limit_s = 60}\n')
    with Project() as project:
        plan = plan_run(project, project.plan(), read_settings(tmp_path / "pyproject.toml"), MACHINE, force=False)
    assert {stage.address: stage.needs.gpus for stage in plan.stages} == {
        "collect": None,
        "train@small": 1,
        "train@large": 1,
        "report": None,
        "aside": None,
    }


def node(address: str, *upstream: str) -> StageNode:
    return StageNode(address=address, command="true", upstream=upstream, outs=(), meta=None)


@pytest.mark.parametrize(
    ("cpus", "wall_s"),
    # a (4) before b (2) and c (3); d (5) alone. One: all of it. Two: a then c beside d then b. Three: a then c.
    [(1, 14), (2, 7), (3, 7)],
)
def test_the_wall_time_is_that_of_a_run_on_so_many_slots(cpus: int, wall_s: float) -> None:
    nodes = [node("a"), node("b", "a"), node("c", "a"), node("d")]
    durations = {"a": 4.0, "b": 2.0, "c": 3.0, "d": 5.0}
    needs = dict.fromkeys(durations, Needs(cpus=1, memory_gib=0.1, gpus=None, limit_s=None))
    assert estimate_wall(nodes, set(), durations, needs, Capacity(cpus, 8, ())) == wall_s
    assert estimate_wall(nodes, {"a", "d"}, durations, needs, Capacity(1, 8, ())) == 5


def test_a_stage_that_needs_too_much_is_counted_alone() -> None:
    needs = {"a": Needs(cpus=8, memory_gib=0, gpus=4, limit_s=None), "b": Needs(1, 0, None, None)}
    assert estimate_wall([node("a"), node("b")], set(), {"a": 2.0, "b": 3.0}, needs, MACHINE) == 5


def test_the_last_duration_of_a_stage_counts_and_torn_lines_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    line = {"wall_s": 7, "cpu_s": 1, "peak_mib": 1}
    (tmp_path / "logs/timings.jsonl").write_text("".join(json.dumps({"stage": s} | line) + "\n" for s in ("a", "b")))
    record_duration(tmp_path, "a", 1)
    record_duration(tmp_path, "a", 2)
    with (tmp_path / "flows/durations.jsonl").open("a") as file:
        file.write('{"stage": "a", "wal')
    assert read_durations(tmp_path) == {"a": 2, "b": 7}


def test_an_instance_that_never_ran_takes_what_its_siblings_took() -> None:
    durations = {"train@a": 2.0, "train@b": 4.0, "test": 1.0}
    assert estimate(["train@a", "train@c", "test", "other"], durations) == {"train@a": 2, "train@c": 3, "test": 1}
