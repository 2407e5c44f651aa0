"""Stages that run on another machine: what has to be true before, the way there, and the way back into dvc.lock.

The coordinator puts a stage's inputs into the DVC remote and its code, as a commit, onto a git remote; a worker of the
pool runs it (`flows.worker`) and puts outputs and run-cache into the DVC remote; the coordinator takes them from there.
Prefect only carries messages: whatever it says or forgets, a stage whose result is in the remote is not run again.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.bucket import BucketError, check_bucket, open_bucket
from flows.checks import RunRefusedError
from flows.execute import Execution, execute_stage
from flows.handover import (
    check_is_shared,
    collect_outputs,
    find_obstacle,
    find_remote,
    list_lock_files,
    list_sources,
)
from flows.pool import UNREACHABLE
from flows.runner import Runner, TransferError
from flows.snapshot import (
    Snapshot,
    SnapshotError,
    add_files,
    drop_snapshot,
    find_address,
    list_unknown,
    push_snapshot,
    take_snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from flows.graph import Project
    from flows.nursery import Nursery
    from flows.pool import Pool
    from flows.process import Stop
    from flows.slots import Holding
    from flows.watchdog import Watchdog

_MAX_TRIES = 3


class ElsewhereError(RunRefusedError):
    """Other machines could not do what is wanted; nothing was started."""


class StageFailedError(RuntimeError):
    """A stage did not end well on the workers that had it."""


class Refs:
    """The commits that stages of this run have on the git remote: those that start together have the same one."""

    def __init__(self, remote: str) -> None:
        self._remote = remote
        self._users: Counter[str] = Counter()
        self._lock = threading.Lock()

    def push(self, snapshot: Snapshot) -> None:
        """Put a commit there for one more stage.

        Raises:
            SnapshotError: the git remote does not take it.
        """
        with self._lock:
            self._users[snapshot.commit] += 1
            push_snapshot(snapshot, self._remote)

    def push_again(self, snapshot: Snapshot) -> None:
        """Make sure that it is still there: another coordinator of the same files may have taken it away."""
        with self._lock:
            push_snapshot(snapshot, self._remote)

    def drop(self, snapshot: Snapshot) -> None:
        """Take a commit away when no other stage needs it: one that waits for a worker has it still to fetch."""
        with self._lock:
            self._users[snapshot.commit] -= 1
            if self._users[snapshot.commit] == 0:
                with suppress(SnapshotError):  # another coordinator of the same files was faster
                    drop_snapshot(snapshot, self._remote)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another place for stages to run at, ready for use."""

    pool: Pool
    addresses: frozenset[str]
    """The stages that go there."""
    remote: str
    """Name of the DVC remote."""
    refs: Refs
    repository: str
    """Address of the git remote."""
    snapshot: Snapshot
    """The workspace when the run began."""
    locks: tuple[Path, ...]
    """Every dvc.lock of the project."""
    folder: str
    """Current folder, from the repository's."""
    warnings: tuple[str, ...]
    """What is not as it should be, though it works."""


def choose_stages(project: Project, to_run: Iterable[str], patterns: Sequence[str] | None) -> frozenset[str]:
    """Choose the stages that run elsewhere: those that DVC's run-cache can bring back, and that fit a pattern.

    Without patterns, all that can.
    """
    return frozenset(
        address
        for address in to_run
        if find_obstacle(project, address) is None
        and (patterns is None or any(fnmatchcase(address, pattern) for pattern in patterns))
    )


def prepare(
    project: Project, pool: Pool, addresses: frozenset[str], *, remote: str | None, git_remote: str
) -> Elsewhere:
    """Get ready to run planned stages in a pool.

    Raises:
        ElsewhereError: the DVC remote is not configured where workers see it, the git remote does not take the code, or
            a source is in neither git nor DVC.
    """
    try:
        name = find_remote(project, remote)
        check_is_shared(project, name)
        warnings = _check_bucket(project, name)
        snapshot = take_snapshot(project.root)
        outputs = collect_outputs(project)
        sources = {address: list_sources(project, address, outputs) for address in sorted(addresses)}
        unknown = set(list_unknown(snapshot, sorted({path for paths in sources.values() for path in paths})))
        problems = [
            f"{address} needs {path}, which neither git nor DVC holds: git ignores it, so no other machine has it"
            for address, paths in sources.items()
            for path in paths
            if path in unknown
        ]
        repository = find_address(project.root, git_remote)
        if not problems:
            push_snapshot(snapshot, git_remote)
    except (SnapshotError, LookupError, BucketError) as error:
        raise ElsewhereError(f"nothing was started: {error}") from error
    if problems:
        raise ElsewhereError("nothing was started:\n" + "\n".join(f"- {problem}" for problem in problems))
    return Elsewhere(
        pool,
        addresses,
        name,
        Refs(git_remote),
        repository,
        snapshot,
        tuple(list_lock_files(project)),
        Path.cwd().resolve().relative_to(snapshot.top.resolve()).as_posix(),
        warnings,
    )


def _check_bucket(project: Project, remote: str) -> tuple[str, ...]:
    """Look at the remote's bucket, if it is one; returns warnings.

    Raises:
        BucketError: it cannot be reached or written.
    """
    options = project.repository.config["remote"][remote]
    if not str(options.get("url", "")).startswith("s3://"):
        return ()
    bad = [finding for finding in check_bucket(open_bucket(remote, options)) if not finding.is_good]
    needed = [finding.message for finding in bad if finding.is_needed]
    if needed:
        raise BucketError("; ".join(needed))
    return tuple(f"the DVC remote {remote}: {finding.message}" for finding in bad)


def execute_elsewhere(
    address: str,
    elsewhere: Elsewhere,
    *,
    force: bool,
    run_key: str,
    holding: Holding,
    watchdog: Watchdog,
    stop: Stop,
    nursery: Nursery,
    write_line: Callable[[str], None],
    on_start: Callable[[], None],
) -> Execution:
    """Bring a stage up to date whose dependencies are, on a worker of the pool; see `execute_stage`.

    What this workspace's run-cache or the remote's has is taken from there. `run_key` names the coordinator's run: a
    forced stage is that run's own, others belong to whoever needs the same result.

    Raises:
        CancelledError: `stop` was asked, and the worker was told.
    """
    on_start()
    runner = Runner(watchdog, stop, write_line, nursery)
    try:
        sent = runner.exchange("send", address, elsewhere.remote)
        if not force:
            if sent["is_here"]:
                return execute_stage(
                    address,
                    force=False,
                    holding=holding,
                    watchdog=watchdog,
                    stop=stop,
                    nursery=nursery,
                    write_line=write_line,
                    on_start=lambda: None,
                )
            if sent["entry"] is not None and _take(runner, address, elsewhere, sent["entry"], write_line):
                return Execution(0, restored=True, unchanged=False, tail="")
        with _published(elsewhere, sent["files"]) as snapshot:
            parameters = {
                "repository": elsewhere.repository,
                "commit": snapshot.commit,
                "folder": elsewhere.folder,
                "address": address,
                "remote": elsewhere.remote,
                "force": force,
                "gpus": holding.needs.gpus,
                "limit_s": holding.needs.limit_s,
            }
            key = f"{elsewhere.repository} {address} {run_key if force else ''} {sent['key']}"
            entry = _run_there(runner, elsewhere, snapshot, parameters, key, holding, stop, write_line)
        runner.exchange("take", address, elsewhere.remote, "--entry", entry)
    except (TransferError, SnapshotError, StageFailedError) as error:
        return Execution(1, restored=False, unchanged=False, tail=str(error))
    return Execution(0, restored=False, unchanged=False, tail="")


def _run_there(
    runner: Runner,
    elsewhere: Elsewhere,
    snapshot: Snapshot,
    parameters: dict[str, Any],
    key: str,
    holding: Holding,
    stop: Stop,
    write_line: Callable[[str], None],
) -> str:
    """Run a stage on some worker, on another one when that is lost; returns its entry in the remote's run-cache.

    Raises:
        StageFailedError: its command failed, somebody cancelled it, or no worker brought it to an end.
    """
    address = parameters["address"]
    messages = []
    for _ in range(_MAX_TRIES):
        run = elsewhere.pool.submit(parameters, holding.needs, name=address, key=key)
        write_line(f"given to pool {elsewhere.pool.name} as flow run {run.name} ({run.id})")
        state = elsewhere.pool.follow(run.id, stop=stop, write_line=write_line)
        if state.is_completed():
            return str(state.message)
        messages.append(f"{state.name}: {state.message}")
        if not state.is_crashed() and state.name != UNREACHABLE:
            break
        # a worker may have finished, and lost only the server
        entry = None if parameters["force"] else runner.exchange("send", address, elsewhere.remote)["entry"]
        if entry is not None:
            return str(entry)
        write_line(f"{messages[-1]}; once more")
        elsewhere.refs.push_again(snapshot)
    raise StageFailedError("\n".join(messages))


def _take(runner: Runner, address: str, elsewhere: Elsewhere, entry: str, write_line: Callable[[str], None]) -> bool:
    """Take a result that somebody else left in the remote; False when not all of it is there any more."""
    try:
        runner.exchange("take", address, elsewhere.remote, "--entry", entry)
    except TransferError as error:
        write_line(f"the remote's run-cache names a result of {address} that cannot be had, so it runs: {error}")
        return False
    return True


@contextmanager
def _published(elsewhere: Elsewhere, files: Iterable[str]) -> Iterator[Snapshot]:
    """Put the code, with dvc.lock as it is now, where workers find it."""
    present = [path for path in (*elsewhere.locks, *map(Path, files)) if path.exists()]
    snapshot = add_files(elsewhere.snapshot, present) if present else elsewhere.snapshot
    elsewhere.refs.push(snapshot)
    yield snapshot
    # not after an exception: a worker may have it still to fetch, for the next coordinator
    if snapshot.commit != elsewhere.snapshot.commit:
        elsewhere.refs.drop(snapshot)
