"""DVC's graph and status, read from DVC itself: the only module that imports dvc.

DVC's Python interface is not official. What is used of it is here, and the version is pinned.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.stage.exceptions import StageFileDoesNotExistError, StageNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType


class GraphError(RuntimeError):
    """DVC cannot read the project, or a target that it does not have; the message is DVC's."""


@dataclass(frozen=True, slots=True)
class StageNode:
    """One stage instance: `train`, `train@small` of a foreach, `data/raw.dvc` of a `dvc add`."""

    address: str
    """What `dvc repro` takes, from the current folder."""
    command: str
    """Empty for files that were added, not made."""
    upstream: tuple[str, ...]
    """Addresses of the stages that make this one's dependencies, in the order of the plan."""
    outs: tuple[Path, ...]
    """Absolute paths of what the stage writes: outputs, metrics and plots."""


class Project:
    """The DVC project around the current folder, as it is when this is made; a context manager.

    Addresses are relative to the current folder, as on DVC's command line.
    """

    def __init__(self) -> None:
        try:
            self._repo = Repo(_wait_for_lock=True)
        except DvcException as error:
            raise GraphError(f"{error}. Start this inside a DVC project.") from error
        self._stages: dict[str, Any] = {}

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._repo.close()

    def plan(self, targets: Sequence[str] = ()) -> list[StageNode]:
        """List the stages that `dvc repro TARGETS` would look at, each after everything that it depends on.

        No targets means the dvc.yaml of the current folder and what it depends on. The order is DVC's own. A frozen
        stage does not pull in its dependencies.

        Raises:
            GraphError: dvc.yaml cannot be read, has a cycle or overlapping outputs, or lacks a target.
        """
        try:
            graph = get_active_graph(self._repo.index.graph)
            stages = plan_repro(graph, collect_stages(self._repo, targets or ["dvc.yaml"]))
        except (StageNotFound, StageFileDoesNotExistError) as error:
            raise GraphError(f"{error}; `dvc stage list --all` names what there is") from error
        except DvcException as error:
            raise GraphError(str(error)) from error
        self._stages = {stage.addressing: stage for stage in stages}
        position = {address: index for index, address in enumerate(self._stages)}
        return [
            StageNode(
                address=address,
                command=_join_commands(stage.cmd),
                upstream=tuple(sorted((s.addressing for s in graph.successors(stage)), key=position.__getitem__)),
                outs=tuple(Path(out.fs_path) for out in stage.outs),
            )
            for address, stage in self._stages.items()
        ]

    def is_up_to_date(self, address: str) -> bool:
        """Ask DVC whether a planned stage has nothing to do, by the files as they are now.

        Right only when everything upstream has been brought up to date; `dvc.lock` is taken as it was when the stage
        was planned. Waits for DVC's lock.

        Raises:
            GraphError: DVC cannot tell, for example because a params file cannot be parsed.
        """
        try:
            with self._repo.lock:
                return not self._stages[address].changed()
        except (DvcException, LockError) as error:
            raise GraphError(f"cannot tell whether {address} is up to date: {error}") from error

    def read_params(self, address: str) -> dict[str, Any]:
        """Read the values that a planned stage tracks: name to value, names of other files as `FILE:NAME`."""
        values: dict[str, Any] = {}
        for file in self._stages[address].params:
            try:
                read = file.read_params()
            except DvcException as error:
                raise GraphError(f"cannot read the params of {address}: {error}") from error
            prefix = "" if str(file) == file.DEFAULT_PARAMS_FILE else f"{file}:"
            values.update({f"{prefix}{name}": value for name, value in read.items()})
        return values


def _join_commands(command: str | list[str] | None) -> str:
    return "\n".join(command) if isinstance(command, list) else command or ""
