"""What has to be known of planned stages before other machines run them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flows.outputs import Outputs

if TYPE_CHECKING:
    from flows.graph import Project


def find_obstacle(project: Project, address: str) -> str | None:
    """Say why a planned stage cannot be taken over from a run-cache, or None: it has to run in the workspace."""
    stage = project.get_stage(address)
    if not all([stage.cmd, stage.deps, stage.outs]) or stage.is_callback or stage.always_changed:
        return "DVC's run-cache takes no stage without dependencies, and none that always runs"
    if stage.frozen:
        return "it is frozen"
    if any(out.protocol != "local" or out.persist or not out.is_in_repo for out in stage.outs):
        return "it has an output that persists or lies outside the repository"
    if any(not (out.use_cache or out.is_metric or out.is_plot) for out in stage.outs):
        return "it has an output that DVC does not hold (cache: false)"
    if any(dep.protocol != "local" or not dep.def_path for dep in stage.deps):
        return "it has a dependency outside the repository"
    return None


def find_remote(project: Project, name: str | None) -> str:
    """Name a DVC remote; by default DVC's own default.

    Raises:
        LookupError: there is none.
    """
    repository = project.repository
    name = name or repository.config["core"].get("remote")
    if not name:
        raise LookupError("no DVC remote is configured: dvc remote add --default NAME s3://BUCKET/PREFIX (docs/s3.md)")
    if name not in repository.config["remote"]:
        raise LookupError(f"the DVC remote {name} is not configured: dvc remote add {name} s3://BUCKET/PREFIX")
    return str(name)


def check_is_shared(project: Project, remote: str) -> None:
    """Make sure that workers will find a DVC remote in `.dvc/config`, which goes with the code.

    Raises:
        LookupError: only this machine's configuration has it.
    """
    if remote not in project.repository.config.load_one("repo").get("remote", {}):
        raise LookupError(
            f"the DVC remote {remote} is configured for this machine only; workers read .dvc/config, which git holds"
        )


def collect_outputs(project: Project) -> Outputs:
    """Collect what the project's stages make, planned or not."""
    return Outputs(out.fs_path for stage in project.repository.index.stages for out in stage.outs)


def list_sources(project: Project, address: str, outputs: Outputs) -> list[Path]:
    """List the dependencies of a planned stage that are none of the outputs; params files too."""
    deps = (Path(dep.fs_path) for dep in project.get_stage(address).deps if dep.protocol == "local")
    return [path for path in deps if not outputs.touch(path)]


def list_lock_files(project: Project) -> list[Path]:
    """List where every dvc.lock of the project is or will be."""
    files = {Path(stage.dvcfile._lockfile.path).resolve() for stage in project.repository.index.stages if stage.cmd}
    return sorted(files)
