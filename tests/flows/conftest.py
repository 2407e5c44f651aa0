"""Small DVC projects of shell commands, and a Prefect server for the session."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import flows.telemetry  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytest.register_assert_rewrite("tests.flows.aftermath")

REPOSITORY = Path(__file__).parents[2]

# before prefect is imported, so that the tests leave the home of whoever runs them alone
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="prefect-home-")
atexit.register(shutil.rmtree, os.environ["PREFECT_HOME"], ignore_errors=True)


class DemoProject:
    """A DVC project in the current folder whose stages leave a line in ran.txt each time that they run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trace = root / "ran.txt"

    def write(self, stages: dict[str, object], params: dict[str, object] | None = None) -> None:
        (self.root / "params.yaml").write_text(yaml.safe_dump(params or {}, sort_keys=False))
        (self.root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))

    def use_bucket(self, url: str, endpoint: str | None = None, **options: object) -> None:
        """Make a bucket the default DVC remote, in the configuration that git holds.

        Without an endpoint it is at AWS_ENDPOINT_URL.
        """
        more: dict[str, object] = {"url": url, "verify": "true", **options}
        if endpoint is not None:
            more["endpointurl"] = endpoint
        lines = "".join(f"    {name} = {value}\n" for name, value in more.items())
        (self.root / ".dvc/config").write_text(f"[core]\n    remote = s3\n['remote \"s3\"']\n{lines}")

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *arguments],
            cwd=self.root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "All")

    def list_ran(self) -> list[str]:
        """Name the stages that ran since the last call."""
        names = self.trace.read_text().split() if self.trace.exists() else []
        self.trace.unlink(missing_ok=True)
        return names

    def heal(self) -> None:
        """Take away what makes a stage of a faulty project hang or fail; dvc.yaml stays as it is."""
        (self.root / "trouble").unlink()

    def dvc(self, *arguments: str) -> str:
        return subprocess.run(
            ["dvc", *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout.strip()


def stage(command: str, *, deps: list[str] | None = None, out: str, **more: object) -> dict[str, object]:
    return {"cmd": f'echo "$DVC_STAGE" >> ran.txt; {command}', "deps": deps or [], "outs": [out], **more}


DIAMOND: dict[str, object] = {
    # written last stage first, as the order must come from the graph
    "report": stage("cat model-*.txt > report.txt", deps=["model-small.txt", "model-large.txt"], out="report.txt"),
    "train": {
        "foreach": "${sizes}",
        "do": stage(
            "echo 'size ${item}' && cat numbers.txt > model-${key}.txt && echo ${item} ${rate} >> model-${key}.txt",
            deps=["numbers.txt"],
            out="model-${key}.txt",
            params=["rate", "sizes.${key}"],
        ),
    },
    "collect": stage("cp source.txt numbers.txt", deps=["source.txt"], out="numbers.txt"),
    "aside": stage("echo aside > aside.txt", out="aside.txt"),
}
DIAMOND_PARAMS: dict[str, object] = {"sizes": {"small": 1, "large": 2}, "rate": 0.5}


@pytest.fixture(scope="session")
def empty_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DVC project without stages, to be copied: making one takes a second."""
    root = tmp_path_factory.mktemp("empty")
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=root, check=True)
    return root


@pytest.fixture
def project(empty_project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoProject:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(empty_project, tmp_path, dirs_exist_ok=True)
    return DemoProject(tmp_path)


@pytest.fixture
def diamond(project: DemoProject) -> DemoProject:
    """collect, then train@small and train@large, then report; and aside, which nothing depends on."""
    project.write(DIAMOND, DIAMOND_PARAMS)
    (project.root / "source.txt").write_text("1\n2\n")
    return project


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server's API with an empty database."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield PREFECT_API_URL.value()


@pytest.fixture
def make_sleeper(project: DemoProject) -> Callable[[], DemoProject]:
    """A project whose second stage waits, with a child in the background, until it is healed."""

    def make() -> DemoProject:
        wait = "if [ -e trouble ]; then sleep 600 & echo $! > child.pid; sleep 600; fi"
        project.write(
            {
                "before": stage("echo 1 > before.txt", out="before.txt"),
                "sleeper": stage(f"{wait}; cp before.txt never.txt", deps=["before.txt"], out="never.txt"),
                "after": stage("cp never.txt after.txt", deps=["never.txt"], out="after.txt"),
            }
        )
        (project.root / "trouble").touch()
        return project

    return make


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of an S3 server without buckets; credentials for it are in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield f"http://{host}:{port}"
    server.stop()
