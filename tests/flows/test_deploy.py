"""Deployment files: what they make is what Prefect, Kubernetes, SLURM, systemd and GitHub take."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prefect.utilities.templating import apply_values

from flows.pool import PoolError, build_template, read_capacity
from tests.flows.conftest import REPOSITORY
from tests.flows.slurm import read_options, submit

if TYPE_CHECKING:
    from pathlib import Path

KUBERNETES = REPOSITORY / ".venv/kubernetes"


def fill(template: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """Make a job's configuration as a worker does: the schema's defaults, then what the flow run asks for."""
    Draft202012Validator.check_schema(template["variables"])
    Draft202012Validator(template["variables"]).validate(variables)
    properties = template["variables"]["properties"]
    defaults = {name: value["default"] for name, value in properties.items() if "default" in value}
    found = apply_values(template["job_configuration"], defaults | variables)
    assert isinstance(found, dict)
    return found


def test_a_kubernetes_job_asks_for_what_the_stage_needs() -> None:
    template = build_template("kubernetes", cpus=16, memory_gib=120, gpus=8)
    job = fill(template, image="registry/cambrian:1", cpus=4, memory_gib=24.0, gpus=2, name="finetune")["job_manifest"]
    assert (job["apiVersion"], job["kind"], job["spec"]["backoffLimit"]) == ("batch/v1", "Job", 0)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert container["image"] == "registry/cambrian:1"
    assert container["resources"]["requests"] == {"cpu": 4, "memory": "24.0Gi", "nvidia.com/gpu": 2}
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 2}
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in pod["volumes"]}
    assert container["env"]["FLOWS_WORKER_DIR"] == mounted["work"]
    assert "{{" not in str(job).replace("{{ command }}", "")
    # what Prefect's worker insists on, and refuses the job without
    assert (pod["parallelism"], pod["completions"], container["name"]) == (1, 1, "prefect-job")


@pytest.mark.skipif(not KUBERNETES.is_dir(), reason="`make setup-kubernetes` installs Prefect's Kubernetes worker")
def test_prefects_own_kubernetes_worker_makes_a_job_that_kubernetes_knows() -> None:
    template = build_template("kubernetes", cpus=16, memory_gib=120, gpus=8)
    wanted = {
        "template": template,
        "values": {"image": "registry/cambrian:1", "cpus": 4, "memory_gib": 24.0, "gpus": 2, "env": {"A": "b"}},
        "name": "pipeline/runs/dvc.yaml:finetune@clip-1200k",
    }
    made = subprocess.run(
        [sys.executable, "-m", "tests.flows.kubernetes_job"],
        input=json.dumps(wanted),
        env=os.environ | {"PYTHONPATH": f"{KUBERNETES}:{REPOSITORY}", "PREFECT_API_URL": "http://somewhere:4200/api"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    answer = json.loads(made.stdout)
    assert answer["strange"] == [
        f"/spec/template/spec/{name} is not a field of V1PodSpec" for name in ("parallelism", "completions")
    ]  # Prefect's worker wants them there, and Kubernetes passes over them
    job = answer["job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert re.fullmatch(r"[a-z0-9-]+-", job["metadata"]["generateName"])
    assert container["args"] == ["prefect", "flow-run", "execute"]
    given = {entry["name"]: entry["value"] for entry in container["env"]}
    assert (given["PREFECT_API_URL"], given["A"]) == ("http://somewhere:4200/api", "b")
    assert given["FLOWS_WORKER_DIR"] == "/work"
    assert container["resources"]["requests"] == {"cpu": 4, "memory": "24.0Gi", "nvidia.com/gpu": 2}


@pytest.mark.parametrize("variables", [{"gpus": 9}, {"cpus": 17}, {"memory_gib": 121}, {"gpus": -1}])
def test_a_job_that_asks_for_more_than_a_worker_has_does_not_fit_the_template(variables: dict[str, int]) -> None:
    for kind in ("kubernetes", "process"):
        template = build_template(kind, cpus=16, memory_gib=120, gpus=8)
        validator = Draft202012Validator(template["variables"])
        assert validator.is_valid({"image": "some"})
        assert not validator.is_valid({"image": "some"} | variables)


def test_what_a_worker_has_is_read_back_from_the_template() -> None:
    capacity = read_capacity("gpu", build_template("process", cpus=16, memory_gib=120, gpus=2))
    assert (capacity.cpus, capacity.memory_gib, capacity.gpus) == (16, 120, ("0", "1"))
    silent = read_capacity("gpu", {"job_configuration": {}, "variables": {"properties": {}}})
    assert (silent.memory_gib, silent.gpus) == (0, ())


def test_an_unknown_kind_of_pool_is_refused() -> None:
    with pytest.raises(PoolError, match="expected process or kubernetes"):
        build_template("docker", cpus=1, memory_gib=1, gpus=0)


def test_a_slurm_script_asks_for_what_its_worker_has_and_needs_a_server(tmp_path: Path) -> None:
    script = REPOSITORY / "deploy/worker.sbatch"
    subprocess.run(["bash", "-n", script], check=True)
    assert read_options(script).keys() == {
        "job-name", "nodes", "ntasks", "cpus-per-task", "mem", "gpus", "time", "signal", "output"
    }  # fmt: skip
    assert re.fullmatch(r"B:TERM@\d+", read_options(script)["signal"])
    for arguments, api, message in ((["gpu"], "", "PREFECT_API_URL"), ([], "http://somewhere/api", "which work pool")):
        job = submit(script, *arguments, folder=tmp_path, number=17, PREFECT_API_URL=api)
        assert job.wait() != 0
        assert message in (tmp_path / "worker-17.log").read_text()


def test_a_slurm_job_starts_a_worker_with_folders_of_its_own(tmp_path: Path) -> None:
    script = REPOSITORY / "deploy/worker.sbatch"
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", script.read_text(), flags=re.MULTILINE))
    assert options.keys() == {
        "job-name", "nodes", "ntasks", "cpus-per-task", "mem", "gpus", "time", "signal", "output"
    }  # fmt: skip
    assert re.fullmatch(r"B:TERM@\d+", options["signal"])
    prefect = tmp_path / ".venv/bin/prefect"
    prefect.parent.mkdir(parents=True)
    prefect.write_text('#!/bin/sh\necho "$@"\necho "$TMPDIR"\n')
    prefect.chmod(0o755)
    slurm = {
        "SLURM_JOB_ID": "17", "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_TMPDIR": str(tmp_path / "node"),
        "SLURM_GPUS_ON_NODE": "2", "PREFECT_API_URL": "http://somewhere/api",
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "FLOWS_WORKER_DIR"} | slurm
    ended = subprocess.run(
        ["bash", str(script), "gpu"], env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert ended[0].startswith("worker start --pool gpu --type process --name ")
    assert ended[0].endswith("-17 --limit 2")
    assert ended[1] == str(tmp_path / "node/flows-17/tmp")
    assert (tmp_path / "node/flows-17/tmp").is_dir()
    without = {name: value for name, value in environment.items() if name != "PREFECT_API_URL"}
    assert subprocess.run(["bash", str(script), "gpu"], env=without, capture_output=True, check=False).returncode != 0


def test_the_systemd_unit_ends_a_worker_before_it_kills() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(REPOSITORY / "deploy/worker.service")
    service = unit["Service"]
    assert (service["KillMode"], service["KillSignal"]) == ("mixed", "SIGTERM")
    assert service["ExecStart"].split()[1:3] == ["worker", "start"]
    assert not re.search(r"(KEY|SECRET|TOKEN)\S*=", "\n".join(service.values()))


def test_the_example_remote_has_no_credentials(tmp_path: Path) -> None:
    text = (REPOSITORY / "deploy/s3.config").read_text()
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(text.replace("\n    ", "\n"))
    assert config["'remote \"s3\"'"]["verify"] == "true"
    assert config["core"]["remote"] == "s3"
    assert not {"access_key_id", "secret_access_key", "session_token", "profile"} & set(config["'remote \"s3\"'"])


def test_github_workflows_check_every_push_and_post_results() -> None:
    workflows = {
        path.stem: yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # `on` is no boolean
        for path in sorted((REPOSITORY / ".github/workflows").glob("*.yaml"))
    }
    assert {"check", "results"} <= workflows.keys()
    steps = [step.get("run") for step in workflows["check"]["jobs"]["check"]["steps"]]
    assert {"make check", "make test"} <= set(steps)
    assert workflows["check"]["jobs"]["lmms"]["steps"][-1]["run"] == "make test-lmms"
    assert workflows["results"]["on"] == {"push": {"branches": ["results/**"]}}
    for workflow in workflows.values():
        assert workflow["permissions"]["contents"] == "read"
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                script = step.get("run", "")
                # what somebody else wrote (a branch's name, a title) comes as a variable, never into the script
                assert "${{" not in script
                subprocess.run(["bash", "-n"], input=script, text=True, check=True)
