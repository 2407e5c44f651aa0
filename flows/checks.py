"""What is wrong with a run, found before any of it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from flows.graph import Project
    from flows.settings import Needs
    from flows.slots import Capacity


class RunRefusedError(RuntimeError):
    """A run that would fail, or destroy work; nothing was started."""


def check_run(
    project: Project,
    to_run: Iterable[str],
    needs: Mapping[str, Needs],
    capacity: Capacity,
    *,
    force: bool,
    elsewhere: Mapping[str, Capacity] | None = None,
) -> None:
    """Check the stages that would run, all of them, so that one look is enough.

    Args:
        project: where the stages are planned.
        to_run: addresses of the stages that are not up to date, or depend on one that is not.
        needs: what each takes of the machine.
        capacity: what the machine has.
        elsewhere: what the pool has to which a stage goes that does not run here.
        force: whether outputs that were edited by hand may be overwritten.

    Raises:
        RunRefusedError: a missing source or value, an edited output, a stage that needs more than there is.
    """
    problems = []
    for address in to_run:
        lack = (elsewhere or {}).get(address, capacity).find_lack(needs[address])
        if lack is not None:
            problems.append(f"{address} {lack}")
        problems += project.list_problems(address, may_overwrite=force)
    if problems:
        raise RunRefusedError("nothing was started:\n" + "\n".join(f"- {problem}" for problem in problems))
