"""What has to be true after a fault, whichever it was: the next run goes on, and nothing of the broken one is left.

Kinds of locks and leases that flows and DVC have, all of which are looked at:

- files with an advisory lock of the kernel's, which stay and must not be held: the lease on the workspace
  (`.dvc/tmp/flows/run.lock`), on GPUs (`TMPDIR/flows-gpus/`), on a worker's checkout (`FLOWS_WORKER_DIR/*/N.lock`),
  and DVC's own (`.dvc/tmp/lock`, `.dvc/tmp/rwlock.lock`);
- files whose content is the lock: DVC's list `.dvc/tmp/rwlock`, which must be empty;
- files that are the lock by being there, and must not be: `.git/*.lock`, halves of `dvc.lock` and of DVC's list, and in
  the workspace marks of stages that did not end (`.dvc/tmp/flows/unfinished/`);
- flow runs: those on the workers of a pool, and that of a run that was killed, which must have ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psutil
import yaml
from dvc.repo import Repo
from prefect import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import TERMINAL_STATES, StateType

from flows.leases import read_holder
from flows.reproduce import reproduce

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prefect.client.schemas.objects import State

    from tests.flows.conftest import DemoProject

_PATIENCE_S = 60.0
_sequential: dict[tuple[tuple[str, bytes], ...], dict[str, Any]] = {}


def assert_goes_on(
    project: DemoProject,
    *,
    left: Sequence[str],
    restored: Sequence[str] = (),
    folders: Iterable[Path] = (),
    **parameters: Any,
) -> State[Any]:
    """Look at what a fault left, run again with the fault gone, and look at everything.

    Args:
        project: which no process works in any more, or soon.
        left: stages that the fault kept from being finished, in the order in which they run now; no other runs.
        restored: stages that ran and could not be recorded, whose results are to be found without running them.
        folders: FLOWS_WORKER_DIR of the workers that had stages, with their temporary folders.
        parameters: of the next run; one processor by default, so that the order is known.

    Returns:
        The state of the next run.
    """
    finished = read_stages(project.root)
    assert_soon(lambda: find_processes(project.root))
    assert_soon(lambda: [*find_held(project.root), *find_entries(project.root, living=True)])
    project.list_ran()
    holder = read_holder(project.root / ".dvc/tmp/flows/run.lock")
    state: Any = reproduce(**({"cpus": 1} | parameters), return_state=True)
    assert state.is_completed(), state.message
    if holder:  # the run did not come to its end; who was killed cannot say so itself
        assert_soon(lambda: [] if is_over(json.loads(holder)["flow_run"]) else [f"{holder} is Running"])
    ran = project.list_ran()
    if "pool" not in parameters:
        assert ran == list(left)
    else:
        assert sorted(ran) == sorted(left)  # workers take what is ready in any order
        assert_soon(lambda: find_flow_runs(parameters["pool"]))
    expected = repeat_in_sequence(project)
    # what was there before is whole, of the stages that were finished, and of them only
    assert finished == {name: expected[name] for name in finished}
    assert finished.keys().isdisjoint([*left, *restored])
    assert read_stages(project.root) == expected
    for root, kinds in [(project.root, {"run.lock", "lock", "rwlock.lock"}), *((one, {"0.lock"}) for one in folders)]:
        assert kinds <= {path.name for path in list_lock_files(root)}
        assert_soon(lambda root=root: [*find_processes(root), *find_held(root)])  # type: ignore[misc]
        assert [*find_entries(root, living=False), *find_pieces(root)] == []
    assert find_marks(project.root) == []
    assert_dvc_has_nothing_to_do(project)
    return state


def assert_dvc_has_nothing_to_do(project: DemoProject) -> None:
    """Ask DVC itself, as `dvc status` and `dvc repro` do, and see that neither runs or writes anything."""
    project.list_ran()
    lock = (project.root / "dvc.lock").read_bytes()
    with _enter(project.root) as repository:
        assert repository.status() == {}
        assert repository.reproduce() == []
    assert project.list_ran() == []
    assert (project.root / "dvc.lock").read_bytes() == lock


def repeat_in_sequence(project: DemoProject) -> dict[str, Any]:
    """Read the dvc.lock that a plain `dvc repro` makes of the same sources, in a folder beside the project."""
    with _enter(project.root) as repository:
        made = {Path(out.fs_path) for stage in repository.index.stages for out in stage.outs}
        used = {Path(dep.fs_path) for stage in repository.index.stages for dep in stage.deps}
    files = sorted({project.root / "dvc.yaml", project.root / "params.yaml", *used} - made)
    key = tuple((path.relative_to(project.root).as_posix(), path.read_bytes()) for path in files)
    if key not in _sequential:
        with tempfile.TemporaryDirectory(dir=project.root.parent, prefix="sequential-") as folder:
            for name, content in key:
                (Path(folder) / name).write_bytes(content)
            shutil.copytree(project.root / ".dvc", Path(folder) / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
            (Path(folder) / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
            with _enter(Path(folder)) as repository:
                repository.reproduce()
            _sequential[key] = read_stages(Path(folder))
        project.list_ran()
    return _sequential[key]


def read_stages(root: Path) -> dict[str, Any]:
    """Read what dvc.lock says, whatever the order; a torn one does not parse, or lacks what a whole one has."""
    path = root / "dvc.lock"
    if not path.exists():
        return {}
    read = yaml.safe_load(path.read_text())
    assert read.keys() == {"schema", "stages"}
    stages: dict[str, Any] = read["stages"]
    return stages


def find_processes(root: Path) -> list[str]:
    """Name living processes that work in the folder, but for this one."""
    left = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            is_inside = Path(process.cwd()).is_relative_to(root)
            if process.pid != os.getpid() and is_inside and process.status() != psutil.STATUS_ZOMBIE:
                left.append(f"{process.name()} {process.pid}")
    return left


def is_alive(process: psutil.Process) -> bool:
    """Say whether a process still runs; one that has ended and whom nobody has asked for its status does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_over(flow_run_id: str) -> bool:
    """Say whether a flow run has ended."""
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run_id)).state
        return state is not None and state.is_final()


def find_flow_runs(pool: str) -> list[str]:
    """Name the flow runs of a work pool that have not ended."""
    open_states = [kind for kind in StateType if kind not in TERMINAL_STATES]
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=open_states))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        )
    return [f"{run.name} is {run.state_name}" for run in found]


def find_held(root: Path) -> list[str]:
    """Name files below the folder that somebody has locked."""
    return [str(path) for path in list_lock_files(root) if _is_held(path)]


def list_lock_files(root: Path) -> list[Path]:
    """List the files below a folder that are there to be locked."""
    return [*_iter_below(root, "lock"), *_iter_below(root, "*.lock"), *_iter_below(root, "flows-gpus/*")]


def find_entries(root: Path, *, living: bool) -> list[str]:
    """Name entries of DVC's lists of locks; with `living` those whose process is there (DVC passes over the others)."""
    found = []
    for path in _iter_below(root, "rwlock"):
        is_checkout = path != root / ".dvc/tmp/rwlock"  # of a worker, which empties it before it is used again
        for kind, entries in json.loads(path.read_text() or "{}").items():
            for name, holders in entries.items():
                for holder in holders if isinstance(holders, list) else [holders]:
                    if not (living or is_checkout) or psutil.pid_exists(holder["pid"]):
                        found.append(f"{path}: {kind} of {name} by {holder}")
    return found


def find_pieces(root: Path) -> list[str]:
    """Name files whose being there is a lock, or a piece of one."""
    found = [path for pattern in (".dvc.lock.*", ".rwlock.*") for path in _iter_below(root, pattern)]
    return [str(path) for path in [*found, *(path for path in _iter_below(root, "*.lock") if ".git" in path.parts)]]


def find_marks(root: Path) -> list[str]:
    """Name the marks of stages that did not end in this workspace.

    In the checkout of a worker that was killed such a mark stays, as it has to: the pieces that it speaks of do, too,
    and whoever has the stage there next may write over them.
    """
    return [str(path) for path in _iter_below(root / ".dvc/tmp", "flows/unfinished/*")]


def assert_soon(find: Callable[[], list[str]]) -> None:
    """Wait until nothing is found: after `kill -9` a watchdog ends what is left, which takes it a moment."""
    deadline = time.monotonic() + _PATIENCE_S
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == []


def _iter_below(root: Path, pattern: str) -> list[Path]:
    return sorted(path for path in root.rglob(pattern) if path.is_file())


def _is_held(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _enter(root: Path) -> Iterator[Any]:
    """Open DVC's own repository, from its folder."""
    with contextlib.chdir(root):
        repository = Repo()
        try:
            yield repository
        finally:
            repository.close()
