"""The flow on a real server and real DVC projects; what ran is what the stages themselves wrote down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml
from prefect import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.sorting import FlowRunSort

import flows.process
import flows.slots
from flows.graph import Project
from flows.leases import take_gpus
from flows.reproduce import reproduce
from tests.flows.aftermath import assert_goes_on, find_processes, is_alive
from tests.flows.conftest import DIAMOND, DIAMOND_PARAMS, REPOSITORY, DemoProject, stage
from tests.flows.test_difference import make_two_runs, set_params
from tests.interrupts import listen_to_ctrl_c

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from uuid import UUID

    from prefect.client.schemas.objects import State

pytestmark = pytest.mark.usefixtures("prefect_server")

CLEAN = "Data and pipelines are up to date."


def run(*, cpus: int = 1, **parameters: Any) -> State[Any]:
    """Run the flow in this process; one processor, so that stages run one after the other, in an order to look at."""
    parameters["cpus"] = cpus
    state: Any = reproduce(**parameters, return_state=True)
    return state


def read_artifacts(state: State[Any]) -> dict[str, Any]:
    """Read the named artifacts of a flow run."""
    run_id = state.state_details.flow_run_id
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]))
        )
    return {str(artifact.key): artifact.data for artifact in found if artifact.key}


def read_states(state: State[Any]) -> dict[str, str]:
    """Read the state of each stage from the table that the run published, in its order."""
    return {row["stage"]: row["state"] for row in json.loads(read_artifacts(state)["stages"])}


def wait_for(read: Callable[[], Any], is_there: Callable[[Any], bool]) -> Any:
    """Read again until it is there: logs and task runs reach the server a moment later."""
    deadline = time.monotonic() + 120
    while not is_there(value := read()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return value


def read_log(run_id: UUID) -> list[str]:
    with get_client(sync_client=True) as client:
        return [
            log.message for log in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id])), limit=200)
        ]


def test_all_stages_run_in_order_and_then_none(diamond: DemoProject, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ["collect", "train@small", "train@large", "report", "aside"]
    state = run()
    assert state.is_completed()
    assert diamond.list_ran() == order
    assert read_states(state) == dict.fromkeys(order, "Completed")
    assert diamond.dvc("status") == CLEAN

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(flows.process.subprocess, "Popen", refuse)
    monkeypatch.setattr(flows.slots, "find_gpus", tuple)
    state = run()
    assert (state.is_completed(), state.message) == (True, "5 stages: 5 Cached")
    assert read_states(state) == dict.fromkeys(order, "Cached")
    assert diamond.list_ran() == []


def test_a_changed_value_runs_its_stage_and_what_depends_on_it(diamond: DemoProject) -> None:
    diamond.dvc("repro")
    diamond.list_ran()
    diamond.write(DIAMOND, DIAMOND_PARAMS | {"sizes": {"small": 1, "large": 3}})
    state = run()
    assert diamond.list_ran() == ["train@large", "report"]
    ran = dict.fromkeys(["train@large", "report"], "Completed")
    assert read_states(state) == dict.fromkeys(["collect", "train@small", "aside"], "Cached") | ran
    diamond.write(DIAMOND, DIAMOND_PARAMS)
    state = run()
    assert diamond.list_ran() == []
    assert read_states(state)["train@large"] == "Restored"
    assert diamond.dvc("status") == CLEAN


def test_the_result_equals_that_of_dvc_repro(diamond: DemoProject) -> None:
    run()
    by_flow = (diamond.root / "dvc.lock").read_bytes()
    (diamond.root / "dvc.lock").unlink()
    diamond.dvc("repro", "--force")
    assert (diamond.root / "dvc.lock").read_bytes() == by_flow


def test_targets_and_force(diamond: DemoProject) -> None:
    assert list(read_states(run(targets=["train@small"]))) == ["collect", "train@small"]
    assert diamond.list_ran() == ["collect", "train@small"]
    run(targets=["train@small"], force=True)
    assert diamond.list_ran() == ["collect", "train@small"]


def test_the_ui_shows_names_edges_log_command_and_params(diamond: DemoProject) -> None:
    run_id = run(targets=["train@small"]).state_details.flow_run_id
    with get_client(sync_client=True) as client:
        filter_ = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        tasks = wait_for(
            lambda: {task.name: task for task in client.read_task_runs(flow_run_filter=filter_)},
            lambda found: len(found) == 2 and all(task.state and task.state.is_final() for task in found.values()),
        )
        notes = {str(note.task_run_id): str(note.data) for note in client.read_artifacts(flow_run_filter=filter_)}
    assert set(tasks) == {"collect", "train@small"}
    assert [upstream.id for upstream in tasks["train@small"].task_inputs["wait_for"]] == [tasks["collect"].id]
    note = notes[str(tasks["train@small"].id)]
    assert "cat numbers.txt > model-small.txt" in note
    assert "rate: 0.5\nsizes.small: 1" in note
    assert "size 1" in wait_for(lambda: read_log(run_id), lambda lines: "size 1" in lines)


def test_a_failure_is_shown_with_its_last_lines_and_nothing_more_starts(diamond: DemoProject) -> None:
    do = DIAMOND["train"]["do"]  # type: ignore[index]
    failing = {"do": {**do, "cmd": f'if [ -e trouble ]; then echo "too hot: ${{key}}"; exit 7; fi; {do["cmd"]}'}}
    diamond.write(DIAMOND | {"train": {**DIAMOND["train"], **failing}}, DIAMOND_PARAMS)  # type: ignore[dict-item]
    (diamond.root / "trouble").touch()
    state = run()
    assert state.is_failed()
    assert str(state.message).startswith("train@small failed.")
    skipped = dict.fromkeys(["train@large", "report", "aside"], "Skipped")
    assert read_states(state) == {"collect": "Completed", "train@small": "Failed"} | skipped
    run_id = state.state_details.flow_run_id
    log = "\n".join(wait_for(lambda: read_log(run_id), lambda lines: any("train@small" in line for line in lines)))
    assert "too hot: small" in log
    assert "too hot: large" not in log
    with get_client(sync_client=True) as client:
        filter_ = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        ended = wait_for(
            lambda: {task.name: task.state for task in client.read_task_runs(flow_run_filter=filter_)},
            lambda found: len(found) == 5 and all(end and end.is_final() for end in found.values()),
        )
    assert "too hot: small" in ended["train@small"].message
    assert ended["report"].message == "not started: it depends on train@small, which is Failed"
    assert "--keep-going" in ended["aside"].message
    diamond.heal()
    assert_goes_on(diamond, left=["train@small", "train@large", "report", "aside"])


def test_after_a_failure_nobody_waits_for_the_reasons_of_stages_that_did_not_start(
    project: DemoProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hundreds of them, the run went on for minutes after the failure, with nothing to show for it."""
    project.write(
        {
            "good": stage("echo 1 > good.txt", out="good.txt"),
            "bad": stage("while [ ! -e good.txt ]; do sleep 0.05; done; exit 3", out="bad.txt"),
            "middle": stage("sleep 1; echo 1 > middle.txt", deps=["good.txt"], out="middle.txt"),
            "leaf": {
                "foreach": list(range(200)),
                "do": stage("cat bad.txt middle.txt > ${item}.txt", deps=["bad.txt", "middle.txt"], out="${item}.txt"),
            },
        }
    )
    explained: list[str] = []
    explain = Project.explain

    def note(self: Project, address: str) -> Any:
        explained.append(address)
        return explain(self, address)

    monkeypatch.setattr(Project, "explain", note)
    state = run(cpus=2)
    states = read_states(state)
    assert str(state.message).startswith("bad failed. 203 stages: ")
    assert (states["good"], states["bad"]) == ("Completed", "Failed")
    assert {states[f"leaf@{number}"] for number in range(200)} == {"Skipped"}
    assert explained == []


def test_keep_going_runs_what_does_not_depend_on_the_failure(project: DemoProject) -> None:
    project.write(
        {
            "bad": stage("false", out="bad.txt"),
            "child": stage("true", deps=["bad.txt"], out="child.txt"),
            "grandchild": stage("true", deps=["child.txt"], out="grandchild.txt"),
            "good": stage("echo 1 > good.txt", out="good.txt"),
        }
    )
    state = run(keep_going=True)
    assert state.is_failed()
    assert read_states(state) == {"bad": "Failed", "child": "Skipped", "grandchild": "Skipped", "good": "Completed"}
    assert project.list_ran() == ["bad", "good"]


def test_a_missing_source_file_is_named_before_anything_runs(diamond: DemoProject) -> None:
    (diamond.root / "source.txt").unlink()
    state = run()
    assert state.is_failed()
    assert "collect needs source.txt, which is missing, and no stage of this run makes it" in str(state.message)
    assert diamond.list_ran() == []


@pytest.mark.parametrize(
    ("targets", "dvc_yaml", "message"),
    [(["nothing"], None, "'nothing' not found"), ([], "stages: [", r"dvc\.yaml")],
)
def test_a_project_that_cannot_be_read_fails_before_anything_runs(
    targets: list[str], dvc_yaml: str | None, message: str, diamond: DemoProject
) -> None:
    if dvc_yaml is not None:
        (diamond.root / "dvc.yaml").write_text(dvc_yaml)
    state = run(targets=targets)
    assert state.is_failed()
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(state.message)
    assert diamond.list_ran() == []


def test_tables_and_images_of_this_run_become_artifacts(project: DemoProject) -> None:
    project.write(
        {
            "table": stage(r"printf 'run,score\nclip,41.5\n' > table.csv", out="table.csv"),
            "figure": stage("mkdir figures && echo '<svg/>' > figures/one.svg", out="figures"),
        }
    )
    (project.root / "other.csv").write_text("x\n1\n")
    (project.root / "pyproject.toml").write_text(
        '[tool.flows]\ntable_artifacts = ["*.csv"]\nimage_artifacts = ["figures/*.svg"]\n'
    )
    artifacts = read_artifacts(run())
    assert set(artifacts) == {"stages", "table", "figures-one"}
    assert json.loads(artifacts["table"]) == [{"run": "clip", "score": "41.5"}]
    assert artifacts["figures-one"].startswith("data:image/svg+xml;base64,")
    assert set(read_artifacts(run(table_artifacts=[], image_artifacts=[]))) == {"stages"}


def test_scores_and_verdicts_against_the_last_commit_minutes_gpu_hours_and_the_report_are_shown(
    project: DemoProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    make_two_runs(project)
    with (project.root / "pyproject.toml").open("a") as file:
        file.write("[tool.flows.needs]\ntrain_b = {gpus = 1}\n")
    text = (project.root / "pyproject.toml").read_text()
    (project.root / "pyproject.toml").write_text(
        text.replace("[tool.flows]", '[tool.flows]\nlink_artifacts = ["*.json"]')
    )
    stages = yaml.safe_load((project.root / "dvc.yaml").read_text())["stages"]
    stages["train_b"]["cmd"] = f"sleep 0.5; {stages['train_b']['cmd']}"  # a hundredth of a minute, as it is rounded
    (project.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    project.dvc("repro", "--quiet")
    project.commit()
    set_params(project, scores={"a": 40, "b": 20})
    state = run(gpus=["0"])
    assert state.is_completed(), state.message
    artifacts = read_artifacts(state)
    (score,) = json.loads(artifacts["scores"])
    assert score == {
        "score": "b.json: score",
        "before": 41,
        "now": 20,
        "more than noise?": "4.9 standard errors",
        "because of": "params.yaml: scores.b, train_b",
    }
    counts = {(row["in"], row["verdict"]): (row["before"], row["now"]) for row in json.loads(artifacts["verdicts"])}
    assert counts[("Verdicts", "agrees")] == (2, 1)
    assert counts[("Verdicts", "differs")] == (0, 1)
    assert counts[("Findings", "not supported")] == (1, 1)
    (changed,) = json.loads(artifacts["changed-verdicts"])
    assert (changed["what"], changed["before"], changed["now"]) == ("one / b", "agrees", "differs")
    assert changed["because of"] == "params.yaml: scores.b, train_b"
    took = {row["stage"]: row for row in json.loads(artifacts["stages"])}
    assert took["train_a"]["state"] == "Cached"
    assert took["train_b"]["minutes"] > 0
    assert set(took["train_b"]) == {"stage", "state", "minutes", "gpu_hours"}
    assert (project.root / "findings.json").as_uri() in artifacts["findings"]


def test_gpu_hours_are_those_of_the_gpus_that_a_stage_held() -> None:
    from flows.publishing import describe_costs
    from flows.settings import Needs

    needs = {"train": Needs(cpus=1, memory_gib=0, gpus=2, limit_s=None)}
    assert describe_costs("train", {"train": 5400.0}, needs) == {"minutes": 90.0, "gpu_hours": 3.0}
    assert describe_costs("collect", {}, needs) == {"minutes": 0.0, "gpu_hours": 0.0}


def start_command(project: DemoProject, api: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Start `python -m flows.reproduce` as a terminal would, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.reproduce", *arguments],
        cwd=project.root,
        env=os.environ | {"PREFECT_API_URL": api, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=listen_to_ctrl_c,
    )


def wait_for_child(project: DemoProject) -> psutil.Process:
    """Wait until the stage that sleeps has started its child."""
    path = project.root / "child.pid"
    text = wait_for(lambda: path.read_text() if path.exists() else "", lambda read: read.endswith("\n"))
    return psutil.Process(int(text))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_no_process_and_the_next_run_goes_on(
    number: signal.Signals, status: int, make_sleeper: Callable[[], DemoProject], prefect_server: str
) -> None:
    project = make_sleeper()
    command = start_command(project, prefect_server)
    child = wait_for_child(project)
    os.killpg(command.pid, number)
    assert command.wait(240) == status
    assert find_processes(project.root) == []
    assert not is_alive(child)
    assert not (project.root / "never.txt").exists()
    project.heal()
    assert_goes_on(project, left=["sleeper", "after"])


def test_cancel_in_the_ui_ends_the_stage_and_frees_its_gpu(
    make_sleeper: Callable[[], DemoProject], prefect_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Cancelling

    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    project = make_sleeper()
    (project.root / "pyproject.toml").write_text("[tool.flows.needs]\nsleeper = {gpus = 1}\n")
    command = start_command(project, prefect_server, "--gpus", "0")
    child = wait_for_child(project)
    assert take_gpus(1, ("0",), holder="the test") is None
    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_runs(limit=1, sort=FlowRunSort.START_TIME_DESC)[0]
        client.set_flow_run_state(flow_run.id, Cancelling())
        assert command.wait(240) == 1
        ended = client.read_flow_run(flow_run.id).state
    assert ended is not None
    assert (ended.name, ended.message) == ("Cancelled", "3 stages: 1 Cancelled, 1 Completed, 1 Skipped")
    assert find_processes(project.root) == []
    assert not is_alive(child)
    (lease,) = take_gpus(1, ("0",), holder="the test") or [None]
    assert lease is not None
    lease.release()
    project.heal()
    assert_goes_on(project, left=["sleeper", "after"], gpus=["0"])


def test_the_command_line_reports_failure_by_its_status(diamond: DemoProject, prefect_server: str) -> None:
    assert start_command(diamond, prefect_server, "nothing").wait(240) == 1
    assert start_command(diamond, prefect_server, "aside", "--force").wait(240) == 0
    assert diamond.list_ran() == ["aside"]
