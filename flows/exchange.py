"""What workspaces of one project hand each other through a DVC remote: a stage's inputs, outputs and run-cache entry.

    python -m flows.exchange send ADDRESS --remote NAME         the coordinator puts the stage's inputs there
    python -m flows.exchange run ADDRESS --remote NAME          a worker takes them, runs, puts there what it made
    python -m flows.exchange take ADDRESS --remote NAME ...     the coordinator takes it over, into its dvc.lock

Nobody types these; each is a process of its own, as DVC is not made for several threads, and starting DVC takes a
second. The last line of output is the answer to the caller. Objects go before the run-cache entry that names them, so
that an entry whose writer was killed does not exist.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before dvc, which reads the environment when imported)

import argparse
import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvc.exceptions import DvcException
from dvc.fs import generic
from dvc.lock import LockError
from dvc.repo import lock_repo
from dvc.repo.reproduce import collect_stages
from dvc.stage.cache import _get_cache_hash, _get_stage_hash
from dvc.stage.serialize import to_single_stage_lockfile

from flows.patience import OutOfPatienceError, insist
from flows.repository import open_repository
from flows.runner import TRANSFER_STATUS, write_answer
from flows.stage import run_stage
from flows.unfinished import mark_finished, mark_started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dvc.repo import Repo

_TRANSFER_LOG = "dvc_data.hashfile.transfer"
"""Where DVC says why an object did not pass; its answer only has which."""


class ExchangeError(RuntimeError):
    """The remote did not give or take something, or what it gave does not fit."""


def main() -> None:
    """Do one of the three; the exit status is 0, 1 after a stage's own error, TRANSFER_STATUS after another one."""
    parser = argparse.ArgumentParser(description="Hand over a stage's files.", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("send", "run", "take"):
        command = commands.add_parser(name)
        command.add_argument("address", metavar="ADDRESS")
        command.add_argument("--remote", required=True, metavar="NAME")
    commands.choices["run"].add_argument("--force", action="store_true")
    commands.choices["take"].add_argument("--entry", required=True, metavar="KEY/VALUE")
    args = parser.parse_args()
    try:
        if args.command == "send":
            answer = _exchange(args, Exchange.send)
        elif args.command == "take":
            answer = _exchange(args, lambda exchange: exchange.take(args.entry))
        else:
            _exchange(args, Exchange.receive)
            status = run_stage(args.address, force=args.force)
            if status != 0:
                sys.exit(status)
            answer = _exchange(args, Exchange.publish)
    except (DvcException, LockError, ExchangeError, OSError) as error:
        sys.stderr.write(f"{args.address}: {args.command}: {error}\n")
        sys.exit(TRANSFER_STATUS)
    write_answer(answer)


def _exchange(args: argparse.Namespace, do: Callable[[Exchange], dict[str, Any]]) -> dict[str, Any]:
    repository = open_repository()
    try:
        return do(Exchange(repository, args.address, args.remote))
    finally:
        repository.close()


class Exchange:
    """One stage of a workspace, and the remote."""

    def __init__(self, repository: Repo, address: str, remote: str) -> None:
        self._repository: Any = repository
        self._address = address
        self._remote = remote
        (self._stage,) = collect_stages(repository, [address])

    def send(self) -> dict[str, Any]:
        """Put the stage's inputs where a worker finds them.

        Returns:
            `key`: of the stage in the run-cache; `is_here`: this workspace's own run-cache has its result; `entry`:
            the remote's has it (else None); `files`: inputs that DVC does not hold, which go with the code.
        """
        stage = self._stage
        with lock_repo(self._repository):
            stage.save_deps()
            key = _get_stage_hash(stage)
            cached = self._repository.stage_cache._load(stage)
            is_here = bool(cached) and self._make_from(cached).outs_cached()
        entry = None if is_here else self._find_entry(key)
        files: list[str] = []
        for path, out in self._list_inputs():
            if out.use_cache:
                if not is_here and entry is None:
                    self._push(out.get_used_objs(filter_info=path))
            else:
                files.append(path)
        return {"key": key, "is_here": is_here, "entry": entry, "files": files}

    def receive(self) -> dict[str, Any]:
        """Take the stage's inputs, by the hashes of dvc.lock."""
        for path, out in self._list_inputs():
            if out.use_cache:
                self._pull(out.get_used_objs(filter_info=path, remote=self._remote))
                out.checkout(force=True, filter_info=path)
        return {}

    def publish(self) -> dict[str, Any]:
        """Put there what the stage made, with its run-cache entry.

        Returns:
            `entry`: its name there, `KEY/VALUE`.
        """
        lock = to_single_stage_lockfile(self._stage)
        value = _get_cache_hash(to_single_stage_lockfile(self._stage))
        key = _get_cache_hash(lock, key=True)
        cached = self._repository.stage_cache._load_cache(key, value)
        if cached is None:
            raise ExchangeError("DVC has not put it into its run-cache")
        self._push(self._make_from(cached).get_used_objs())
        remote = self._get_odb()
        local = self._repository.cache.legacy
        source = local.fs.join(local.path, *_locate(key), value)
        target = remote.fs.join(remote.path, *_locate(key), value)
        self._insist("put", target, lambda: generic.copy(local.fs, source, remote.fs, target))
        return {"entry": f"{key}/{value}"}

    def take(self, entry: str) -> dict[str, Any]:
        """Take over a stage that somebody else ran: outputs into the workspace, the rest into dvc.lock.

        Raises:
            ExchangeError: a source is not any more what the stage ran with; nothing was recorded.
        """
        key, value = entry.split("/")
        made = self._make_from(self._fetch_entry(key, value))
        self._pull(made.get_used_objs(remote=self._remote))
        stage = self._stage
        with lock_repo(self._repository), self._repository.scm_context(quiet=True):
            stage.save_deps()
            if _get_stage_hash(stage) != key:
                raise ExchangeError(
                    "its sources, params or command changed here while it ran elsewhere, so what it made belongs to "
                    "neither version; nothing was recorded. Run it again"
                )
            mark_started(self._repository.tmp_dir, self._address)
            stage.remove_outs(ignore_remove=False, force=False)
            made.checkout(force=True)
            stage.save(run_cache=False)
            stage.commit()
            stage.dump(update_pipeline=False)
            mark_finished(self._repository.tmp_dir, self._address)
        return {}

    def _list_inputs(self) -> Iterator[tuple[str, Any]]:
        """List what other stages make of this one's dependencies: the path that is needed, and the output it is of."""
        outs = [out for stage in self._repository.index.stages for out in stage.outs if out.protocol == "local"]
        for dep in self._stage.deps:
            if dep.protocol != "local":
                continue
            path = Path(dep.fs_path)
            for out in outs:
                if path.is_relative_to(out.fs_path):
                    yield str(path), out
                elif Path(out.fs_path).is_relative_to(path):
                    yield out.fs_path, out

    def _make_from(self, cached: Any) -> Any:
        return self._repository.stage_cache._create_stage(cached, wdir=self._stage.wdir)

    def _get_odb(self) -> Any:
        return self._repository.cloud.get_remote_odb(self._remote, "exchange", hash_name="md5-dos2unix")

    def _find_entry(self, key: str) -> str | None:
        remote = self._get_odb()
        folder = remote.fs.join(remote.path, *_locate(key))
        if not self._insist("look for", folder, lambda: remote.fs.exists(folder)):
            return None
        found = self._insist("list", folder, lambda: list(remote.fs.find(folder)))
        names = sorted(remote.fs.name(path) for path in found)
        return f"{key}/{names[0]}" if names else None

    def _fetch_entry(self, key: str, value: str) -> Any:
        remote, local = self._get_odb(), self._repository.cache.legacy
        target = local.fs.join(local.path, *_locate(key), value)
        local.makedirs(local.fs.parent(target))
        part = f"{target}.part"
        source = remote.fs.join(remote.path, *_locate(key), value)
        self._insist("get", source, lambda: generic.copy(remote.fs, source, local.fs, part))
        os.replace(part, target)
        cached = self._repository.stage_cache._load_cache(key, value)
        if cached is None:
            raise ExchangeError(f"the run-cache entry {key}/{value} of {self._remote} cannot be read")
        return cached

    def _push(self, used: dict[Any, Any]) -> None:
        for objects in used.values():
            self._transfer("put", objects, self._repository.cloud.push)

    def _pull(self, used: dict[Any, Any]) -> None:
        for objects in used.values():
            self._transfer("get", objects, self._repository.cloud.pull)
            cache = self._repository.cache.local
            missing = [found.value for found in objects if found.name == "md5" and not cache.exists(found.value)]
            if missing:
                raise ExchangeError(f"{self._remote} does not have {', '.join(missing[:3])}")

    def _transfer(self, verb: str, objects: Any, move: Callable[..., Any]) -> None:
        odb = self._repository.cloud.get_remote_odb(self._remote, "exchange")

        def move_all() -> None:
            with _noted_causes() as causes:
                failed = sorted(move(objects, remote=self._remote).failed, key=lambda found: str(found.value))
            if failed:
                cause = causes.get(failed[0].value)
                more = f" and {len(failed) - 1} more of {len(objects)}" if len(failed) > 1 else ""
                why = "DVC does not say why" if cause is None else f"{type(cause).__name__}: {cause}"
                raise ExchangeError(f"{odb.oid_to_path(failed[0].value)}{more}: {why}") from cause

        self._insist(verb, f"{len(objects)} object{'s' if len(objects) != 1 else ''}", move_all)

    def _insist(self, verb: str, what: str, move: Callable[[], Any]) -> Any:
        """Try for as long as the patience lasts.

        Raises:
            ExchangeError: with the remote, what did not pass, and what to do.
        """
        try:
            return insist(move)
        except OutOfPatienceError as error:
            url = self._repository.config["remote"][self._remote]["url"]
            raise ExchangeError(
                f"could not {verb} {what} at the DVC remote {self._remote} ({url}): {error}. Look at it with "
                f"`python -m flows.storage --remote {self._remote} check`; the next run goes on from here when it works"
            ) from error


@contextmanager
def _noted_causes() -> Iterator[dict[str, BaseException]]:
    """Give a dictionary that will have, by its hash, the error of each object that did not pass."""
    causes: dict[str, BaseException] = {}

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None and isinstance(record.args, tuple) and record.args:
                causes[str(record.args[0])] = record.exc_info[1]

    note = Note()
    logging.getLogger(_TRANSFER_LOG).addHandler(note)
    try:
        yield causes
    finally:
        logging.getLogger(_TRANSFER_LOG).removeHandler(note)


def _locate(key: str) -> tuple[str, str, str]:
    return "runs", key[:2], key


if __name__ == "__main__":
    main()
