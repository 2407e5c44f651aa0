from __future__ import annotations

import inspect
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from prefect.client.schemas.schedules import CronSchedule

from flows.reproduce import reproduce
from flows.scheduled import scheduled, set_values
from flows.settings import SettingsError
from tests.flows.conftest import DIAMOND, DIAMOND_PARAMS, REPOSITORY
from tests.flows.test_difference import commit
from tests.flows.test_reproduce import read_artifacts

if TYPE_CHECKING:
    from pathlib import Path

    from tests.flows.conftest import DemoProject

DEPLOYMENTS = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]


@pytest.fixture(autouse=True)
def author(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")


@pytest.fixture
def committed(diamond: DemoProject) -> DemoProject:
    (diamond.root / ".gitignore").write_text("ran.txt\n")
    diamond.write(DIAMOND, DIAMOND_PARAMS)
    diamond.dvc("repro", "--quiet")
    commit(diamond.root)
    return diamond


@pytest.mark.usefixtures("prefect_server")
def test_a_scheduled_run_leaves_its_results_on_a_branch_with_what_changed(committed: DemoProject) -> None:
    state: Any = scheduled(branch="results/try", values={"rate": "0.7"}, return_state=True)
    assert state.is_completed(), state.message
    assert str(state.message).startswith("results/try is at ")

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=committed.root, check=True, capture_output=True, text=True
        ).stdout

    assert git("diff", "--name-only", "HEAD", "results/try").split() == ["dvc.lock", "params.yaml"]
    message = git("log", "-1", "--format=%B", "results/try")
    assert message.startswith("Results: rate 0.7\n\n5 stages: ")
    assert "| `params.yaml: rate` | `0.5` | `0.7` |" in message
    assert "rate" in read_artifacts(state)["difference"]


@pytest.mark.usefixtures("prefect_server")
def test_the_report_of_a_scheduled_run_has_what_it_took_and_changed(project: DemoProject) -> None:
    note = (
        'echo "{\\"stage\\": \\"score\\", \\"finished\\": \\"$(date +%Y-%m-%dT%H:%M:%S)\\", \\"wall_s\\": 1, '
        '\\"cpu_s\\": 1, \\"peak_mib\\": 1}" >> logs/timings.jsonl'
    )
    files = ["actual.json", "difference.json"]
    project.write(
        {
            "score": {
                "cmd": f"mkdir -p logs; echo '{{\"score\": ${{rate}}}}' > scores.json; {note}",
                "params": ["rate"],
                "metrics": [{"scores.json": {"cache": False}}],
            },
            "publish": {"cmd": "cat actual.json difference.json > report", "deps": files, "outs": ["report"]},
        },
        {"rate": 0.5},
    )
    (project.root / ".gitignore").write_text("logs\n")
    (project.root / "pyproject.toml").write_text(
        '[tool.flows]\nactual_file = "actual.json"\ndifference_file = "difference.json"\n'
    )
    (project.root / "actual.json").write_text('{"stages": {}}')
    (project.root / "difference.json").write_text('{"before": null}')
    project.dvc("repro", "--quiet")
    commit(project.root)
    state: Any = scheduled(branch="results/try", values={"rate": "0.7"}, return_state=True)
    assert state.is_completed(), state.message
    changed = project.git("diff", "--name-only", "HEAD", "results/try").split()
    assert changed == ["actual.json", "difference.json", "dvc.lock", "params.yaml", "scores.json"]
    actual, difference = (project.git("show", f"results/try:{name}") for name in files)
    assert set(json.loads(actual)["stages"]) == {"score"}
    assert [change["after"] for change in json.loads(difference)["scores"]] == [0.7]
    assert (project.root / "report").read_text() == actual + difference
    assert project.dvc("status") == "Data and pipelines are up to date."


@pytest.mark.usefixtures("prefect_server")
def test_results_beside_code_that_is_not_committed_are_refused(committed: DemoProject) -> None:
    (committed.root / "source.txt").write_text("3\n")
    state: Any = scheduled(branch="results/try", return_state=True)
    assert state.is_failed()
    assert "source.txt was edited and is not committed" in str(state.message)


def test_a_value_is_set_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("# all\nscale: mini # which\nruns: {a:  1}\nother:\n  scale: x\n")
    set_values(path, {"scale": "gpu"})
    assert path.read_text() == "# all\nscale: gpu # which\nruns: {a:  1}\nother:\n  scale: x\n"


@pytest.mark.parametrize("name", ["nothing", "other"])
def test_a_value_that_cannot_be_set_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("scale: mini\nother:\n  nothing: x\n")
    with pytest.raises(SettingsError, match=f"{name} cannot be set"):
        set_values(path, {name: "gpu"})


def test_there_is_a_nightly_a_weekly_and_a_manual_deployment() -> None:
    schedules = {item["name"]: [each["cron"] for each in item.get("schedules", [])] for item in DEPLOYMENTS}
    assert list(schedules) == ["on-demand", "nightly-mini", "weekly-gpu", "manual-paper"]
    assert [len(crons) for crons in schedules.values()] == [0, 1, 1, 0]
    for (cron,) in (crons for crons in schedules.values() if crons):
        CronSchedule(cron=cron)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_no_slot_of_a_deployment_outlives_a_server_or_ends_a_run(deployment: dict[str, Any]) -> None:
    """Prefect's server keeps such slots in its memory, and ends a run whose slot it has forgotten (docs/prefect.md)."""
    assert "concurrency_limit" not in deployment


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_starts_the_flow_with_params_that_it_takes(deployment: dict[str, Any]) -> None:
    path, name = deployment["entrypoint"].split(":")
    flow = {"scheduled": scheduled, "reproduce": reproduce}[name]
    assert path == inspect.getfile(flow.fn)[len(str(REPOSITORY)) + 1 :]
    parameters = flow.validate_parameters(deployment.get("parameters", {}))
    if name == "scheduled":
        assert parameters["branch"].startswith("results/")
