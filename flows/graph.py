"""DVC's graph and status, read from DVC itself.

DVC's Python interface is not official. What is used of it is here, in `flows.repository` and in `flows.stage`, and the
version is pinned.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.stage.exceptions import StageFileDoesNotExistError, StageNotFound

from flows.changes import Change, explain_output, explain_params
from flows.outputs import Outputs
from flows.repository import clear_leftovers, open_repository, read_lock
from flows.unfinished import is_unfinished, mark_finished

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
    """Addresses of the stages of the plan that make this one's dependencies, in the order of the plan."""
    outs: tuple[Path, ...]
    """Absolute paths of what the stage writes: outputs, metrics and plots."""
    meta: Any
    """What dvc.yaml says under `meta:`, for others than DVC."""


class Project:
    """The DVC project around the current folder, as it is when this is made; a context manager.

    Addresses are relative to the current folder, as on DVC's command line.
    """

    def __init__(self) -> None:
        try:
            self._repo = open_repository()
        except DvcException as error:
            raise GraphError(f"{error}. Start this inside a DVC project.") from error
        self._stages: dict[str, Any] = {}
        self._made = Outputs(())

    def __enter__(self) -> Project:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._repo.close()

    @property
    def root(self) -> Path:
        """The folder that holds `.dvc`."""
        return Path(self._repo.root_dir)

    @property
    def temporary(self) -> Path:
        """DVC's folder for files that are of no use to another clone."""
        return Path(self._repo.tmp_dir)

    @property
    def repository(self) -> Any:
        """DVC's own object, for modules that know DVC."""
        return self._repo

    @property
    def has_metrics(self) -> bool:
        """Whether there is something that `dvc metrics` shows."""
        return any(out.metric for out in self._repo.index.outs) or any(self._repo.index._metrics.values())

    def get_stage(self, address: str) -> Any:
        """Return DVC's own object of a planned stage."""
        return self._stages[address]

    def plan(
        self,
        targets: Sequence[str] = (),
        *,
        glob: bool = False,
        downstream: bool = False,
        all_pipelines: bool = False,
    ) -> list[StageNode]:
        """List the stages that `dvc repro TARGETS` would look at, each after everything that it depends on.

        No targets means the dvc.yaml of the current folder and what it depends on. The order is DVC's own. A frozen
        stage does not pull in its dependencies. The options are those of `dvc repro`.

        Raises:
            GraphError: dvc.yaml cannot be read, has a cycle or overlapping outputs, or lacks a target.
        """
        try:
            graph = get_active_graph(self._repo.index.graph)
            wanted = None if all_pipelines else collect_stages(self._repo, targets or ["dvc.yaml"], glob=glob)
            stages = plan_repro(graph, wanted, downstream=downstream)
        except (StageNotFound, StageFileDoesNotExistError) as error:
            raise GraphError(f"{error}; `dvc stage list --all` names what there is") from error
        except DvcException as error:
            raise GraphError(str(error)) from error
        self._stages = {stage.addressing: stage for stage in stages}
        self._made = Outputs(out.fs_path for stage in stages for out in stage.outs)
        position = {address: index for index, address in enumerate(self._stages)}
        return [
            StageNode(
                address=address,
                command=_join_commands(stage.cmd),
                upstream=tuple(
                    sorted(
                        (s.addressing for s in graph.successors(stage) if s.addressing in position),
                        key=position.__getitem__,
                    )
                ),
                outs=tuple(Path(out.fs_path) for out in stage.outs),
                meta=stage.meta,
            )
            for address, stage in self._stages.items()
        ]

    def clear_leftovers(self) -> None:
        """Take away what a run that was killed left; only for who holds the lease on the workspace.

        Raises:
            GraphError: DVC's list of locks is torn.
        """
        try:
            clear_leftovers(self._repo)
        except (DvcException, LockError) as error:
            raise GraphError(f"{error}. Delete that file when nothing runs here") from error

    def find_up_to_date(self, nodes: Sequence[StageNode]) -> set[str]:
        """Name the planned stages that have nothing to do, and nothing upstream either.

        Raises:
            GraphError: as `is_up_to_date`.
        """
        found: set[str] = set()
        with self._locked("the stages"):
            for node in nodes:
                if found.issuperset(node.upstream) and not self._stages[node.address].changed():
                    found.add(node.address)
                    mark_finished(self._repo.tmp_dir, node.address)
        return found

    def is_up_to_date(self, address: str) -> bool:
        """Ask DVC whether a planned stage has nothing to do, by the files as they are now.

        Right only when everything upstream has been brought up to date; `dvc.lock` is taken as it was when the stage
        was planned. Waits for DVC's lock.

        Raises:
            GraphError: DVC cannot tell, for example because a params file cannot be parsed.
        """
        with self._locked(address):
            return not self._stages[address].changed()

    def list_problems(self, address: str, *, may_overwrite: bool) -> list[str]:
        """Say what would make DVC fail on a planned stage, or destroy work, as far as can be known beforehand.

        These are a dependency or a value that is missing and that no planned stage makes, and an output that is
        neither what the stage made last, nor in DVC's cache, nor a piece that an interrupted run left: somebody has
        edited it, and DVC deletes outputs before it runs a stage (which `may_overwrite` allows).
        """
        stage = self._stages[address]
        with self._locked(address):
            problems = [*self._list_missing(stage)]
            is_kept = may_overwrite or stage.frozen or not stage.cmd or is_unfinished(self._repo.tmp_dir, address)
            if not is_kept:
                problems += [
                    f"{out} was changed after {address} made it, by hand or by an interrupted `dvc repro`, and would "
                    f"be deleted. Keep it: dvc commit {address}; take the old one: dvc checkout --force {out}; "
                    "overwrite it: --force"
                    for out in stage.outs
                    if _is_edited(out)
                ]
        return problems

    def explain(self, address: str) -> list[Change]:
        """List the reasons for which DVC would run a planned stage again, as the files are now.

        What stages before it have yet to make is not foreseen: such a dependency is compared as it lies there.

        Raises:
            GraphError: as `is_up_to_date`.
        """
        stage = self._stages[address]
        with self._locked(address):
            recorded = self._read_record(stage)
            if recorded is None and stage.cmd:
                return [Change("new", "", None, None)]
            changes = [Change("always", "", None, None)] if stage.is_callback or stage.always_changed else []
            before = _join_commands(recorded.get("cmd")) if recorded is not None else ""
            if before != _join_commands(stage.cmd):
                changes.append(Change("command", "", before, _join_commands(stage.cmd)))
            params = set(stage.params)
            for dep in stage.deps:
                changes += explain_params(dep) if dep in params else self._explain_dependency(dep)
            return changes + [change for out in stage.outs for change in explain_output(out)]

    def _list_missing(self, stage: Any) -> Iterator[str]:
        params = set(stage.params)
        for dep in stage.deps:
            if dep in params:
                missing = set(dep.params) - set(dep.read_params()) if dep.exists else {"the file"}
                yield from (f"{stage.addressing} needs {name} of {dep}, which is missing" for name in sorted(missing))
            elif dep.protocol == "local" and not dep.exists and not self._made.touch(Path(dep.fs_path)):
                yield f"{stage.addressing} needs {dep}, which is missing, and no stage of this run makes it"
        if not stage.cmd and not stage.is_import:
            for out in stage.outs:
                if not out.exists:
                    yield f"{out} is missing: `dvc pull {stage.addressing}` or `dvc checkout {stage.addressing}`"

    def _explain_dependency(self, dep: Any) -> Iterator[Change]:
        now = dep.get_hash().value if dep.exists else None
        before = dep.hash_info.value if dep.hash_info else None
        if now != before:
            yield Change("dependency", str(dep), before, now, self._find_maker(dep))

    def _find_maker(self, dep: Any) -> str | None:
        for stage in self._repo.index.stages:
            if any(out.fs_path == dep.fs_path for out in stage.outs):
                return str(stage.addressing)
        return None

    def _read_record(self, stage: Any) -> dict[str, Any] | None:
        """Read what dvc.lock holds of a stage; None before its first run. Files that were added have no entry there."""
        if not stage.cmd:
            return None
        recorded = read_lock(Path(stage.dvcfile._lockfile.path)).get(stage.name)
        return None if recorded is None else dict(recorded)

    @contextmanager
    def _locked(self, address: str) -> Iterator[None]:
        try:
            with self._repo.lock:
                yield
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


def _is_edited(out: Any) -> bool:
    if not out.hash_info or not out.exists or out.persist or out.protocol != "local":
        return False
    now = out.get_hash()
    return now != out.hash_info and not (out.use_cache and out.cache.exists(now.value))


def _join_commands(command: str | list[str] | None) -> str:
    return "\n".join(command) if isinstance(command, list) else command or ""
