"""One stage brought up to date, in a process of its own: DVC's own steps, and two promises that DVC does not make.

    python -m flows.stage ADDRESS [--force]

What `dvc --wait-for-lock repro --single-item ADDRESS` does, except that

- `dvc.lock` is replaced, never rewritten in place: a process that is killed leaves the old one or the new one;
- a source that changed while the command ran is an error, and nothing is recorded: DVC would record the new source with
  what was made from the old one, in `dvc.lock` and in the run-cache.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before dvc, which reads the environment when imported)

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Any

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import lock_repo
from dvc.repo.reproduce import collect_stages

from flows.repository import open_repository
from flows.unfinished import mark_finished, mark_started

if TYPE_CHECKING:
    from dvc.repo import Repo

_log = logging.getLogger("dvc.flows")


class SourceChangedError(RuntimeError):
    """A source was edited while the stage's command ran."""


def main() -> None:
    """Bring the stage up to date; the exit status is 0, 1 after an error, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Bring one DVC stage up to date.", allow_abbrev=False)
    parser.add_argument("address", metavar="ADDRESS")
    parser.add_argument("--force", action="store_true")
    args = parser.parse_args()
    sys.exit(run_stage(args.address, force=args.force))


def run_stage(address: str, *, force: bool) -> int:
    """Bring the stage up to date and return the exit status; what went wrong is logged."""
    try:
        repository = open_repository()
        try:
            bring_up_to_date(repository, address, force=force)
        finally:
            repository.close()
    except KeyboardInterrupt:
        return 130
    except (DvcException, LockError, SourceChangedError, OSError) as error:
        cause = f": {error.__cause__}" if error.__cause__ is not None else ""
        _log.error("%s: %s%s", address, error, cause)
        return 1
    return 0


def bring_up_to_date(repository: Repo, address: str, *, force: bool) -> None:
    """Do nothing, take the outputs from the run-cache, or run the command: DVC decides.

    Raises:
        SourceChangedError: a dependency is not what it was before the command ran; nothing was recorded.
        DvcException: the command failed, or a dependency is missing.
    """
    with lock_repo(repository), repository.scm_context(quiet=True):
        (stage,) = collect_stages(repository, [address])
        before = _read_dependencies(stage)
        mark_started(repository.tmp_dir, address)
        if stage.reproduce(force=force, no_commit=True, interactive=False, upstream=[]) is not None:
            changed = [name for name, value in _read_saved(stage).items() if name in before and before[name] != value]
            if changed:
                raise SourceChangedError(
                    f"{', '.join(changed)} changed while the stage ran, so what it made belongs to neither version; "
                    "nothing was recorded. Run it again"
                )
            # what Stage.run does where it is not told `no_commit`, which is to come after the check; outputs first, so
            # that a full disk leaves no run-cache entry without them
            stage.commit()
            if all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs):
                repository.stage_cache.save(stage)
            stage.dump(update_pipeline=False)
        mark_finished(repository.tmp_dir, address)


def _read_dependencies(stage: Any) -> dict[str, Any]:
    """Read the value of each dependency in the workspace: a hash, or a dictionary of params."""
    if stage.is_import:  # its source is elsewhere
        return {}
    return {str(dep): dep.get_hash().value for dep in stage.deps if dep.protocol == "local" and dep.exists}


def _read_saved(stage: Any) -> dict[str, Any]:
    """Read the values that DVC has taken up to record them."""
    return {str(dep): dep.hash_info.value for dep in stage.deps if dep.hash_info is not None}


if __name__ == "__main__":
    main()
