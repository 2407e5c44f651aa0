"""A run that nobody watches: values set, stages run, results on a branch, and what changed as Markdown.

The deployments of prefect.yaml start this. It works in a clone of its own, never in somebody's checkout.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before prefect, which reads the environment when imported)

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, Failed

from flows.actual import write_actual
from flows.causes import RevisionError
from flows.delivery import DeliveryError, commit_results
from flows.difference import DifferenceError, compare_revisions, write_file
from flows.difference_text import write_markdown
from flows.durations import read_runs
from flows.graph import GraphError, Project
from flows.reproduce import reproduce
from flows.settings import SettingsError, read_settings
from flows.timings import STAGE_LOG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flows.difference import Difference
    from flows.settings import Settings


@flow(name="scheduled", persist_result=False, validate_parameters=True)
def scheduled(
    branch: str,
    values: dict[str, str] | None = None,
    targets: list[str] | None = None,
    cpus: int | None = None,
    gpus: list[str] | None = None,
    push_to: str | None = None,
    pool: str | None = None,
) -> Any:
    """Bring the project around the current folder up to date and commit what it made to a branch.

    Args:
        branch: made, or moved, to one commit on top of the one that is checked out, with what the run wrote of what
            git holds: params.yaml, every dvc.lock, metrics, tables.
        values: top-level values of params.yaml to set first.
        targets: as for `dvc repro`.
        cpus: as for the flow `reproduce`.
        gpus: as for the flow `reproduce`.
        push_to: a git remote that is to get the branch; none by default. What DVC holds goes to its own remote.
        pool: a work pool whose workers run the stages, as for the flow `reproduce`.

    Returns:
        The final state: that of the run, or Failed when the results could not be committed.
    """
    log = get_run_logger()
    try:
        if values:
            set_values(Path("params.yaml"), values)
        state: Any = reproduce(targets=targets, keep_going=True, cpus=cpus, gpus=gpus, pool=pool, return_state=True)
        settings = read_settings(Path("pyproject.toml"))
        with Project() as project:
            root = project.root
            runs = read_runs(project.temporary)
        difference = compare_revisions(root, "HEAD", None, settings)
        text = write_markdown(difference, runs)
        written = _write_for_report(root, difference, settings)
        if written and state.is_completed():  # the report, with what the run took and changed
            state = reproduce(targets=targets, keep_going=True, cpus=cpus, gpus=gpus, pool=pool, return_state=True)
        create_markdown_artifact(text, key="difference", description="what this run changed")
        subject = f"Results: {', '.join(f'{key} {value}' for key, value in (values or {}).items()) or 'as committed'}"
        outs = [out["path"] for entry in difference.locks.after.values() for out in entry["outs"]]
        outs += [path.relative_to(root).as_posix() for path in written]
        commit = commit_results(root, branch, f"{subject}\n\n{state.message}\n\n{text}", outs)
        if commit is not None and push_to is not None:
            # a lease, not --force: what somebody else has put there since the last fetch stays
            subprocess.run(["git", "push", "--force-with-lease", push_to, branch], cwd=root, check=True)
    except (
        DeliveryError,
        DifferenceError,
        GraphError,
        RevisionError,
        SettingsError,
        subprocess.CalledProcessError,
    ) as error:
        log.error("%s", error)
        return Failed(message=f"the results were not committed: {error}")
    if not state.is_completed():
        return Failed(message=str(state.message))
    return Completed(message=f"{branch} is at {commit[:10]}" if commit else "nothing changed")


def _write_for_report(root: Path, difference: Difference, settings: Settings) -> list[Path]:
    """Write what the run took and changed where a report reads it; nothing where no report does."""
    written = []
    if settings.actual_file and (root / STAGE_LOG).exists():
        with Project() as project:
            written.append(write_actual(project, root / STAGE_LOG, settings))
    if settings.difference_file:
        written.append(write_file(difference, settings, root))
    return written


def set_values(path: Path, values: Mapping[str, str]) -> None:
    """Set top-level values of a YAML file and leave the rest of it as it is, comments and layout included.

    Raises:
        SettingsError: the file has no such value, or it is more than one word.
    """
    text = path.read_text(encoding="utf-8")
    for name, value in values.items():
        text, count = re.subn(rf"^{re.escape(name)}:[ \t]+[^\s#]+", f"{name}: {value}", text, flags=re.MULTILINE)
        if count != 1:
            raise SettingsError(f"{path}: {name} cannot be set; expected one line `{name}: WORD` at its left edge")
    path.write_text(text, encoding="utf-8")
