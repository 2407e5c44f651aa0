"""What a worker of a Prefect work pool does: one stage, from a commit and hashes to a remote that has its outputs.

A worker shares nothing with the coordinator but git, the DVC remote and Prefect's server. It needs this package, git,
and what the stages themselves import; docs/remote.md has the commands.
"""

from __future__ import annotations

import flows.telemetry  # noqa: F401  # isort: skip  (before prefect, which reads the environment when imported)

import os
import platform
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, get_client, get_run_logger
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Failed

from flows.cancellation import SERVER_FAULTS, CancelWatch
from flows.checkout import Checkout, CheckoutError, hold_checkout
from flows.leases import take_gpus
from flows.pool import HEARTBEAT_KEY, UNREACHABLE
from flows.process import CancelledError, LimitError, Stop
from flows.runner import TRANSFER_STATUS, Runner, TransferError
from flows.settings import Needs
from flows.slots import Holding, find_gpus
from flows.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

_HEARTBEAT_S = float(os.environ.get("FLOWS_HEARTBEAT_S", "15"))
_GPU_POLL_S = 2.0


@flow(name="stage", flow_run_name="{address}", persist_result=False, validate_parameters=True)
def work(
    repository: str,
    commit: str,
    folder: str,
    address: str,
    remote: str,
    force: bool,
    gpus: int | None,
    limit_s: float | None,
) -> Any:
    """Run one stage of one commit.

    Args:
        repository: address of the git repository that has the commit.
        commit: with dvc.lock as it is when everything before the stage is up to date.
        folder: where in the repository DVC is called.
        address: of the stage, from that folder.
        remote: name of the DVC remote.
        force: run the command even if this worker has the result.
        gpus: how many; None when the stage did not say.
        limit_s: it is ended when it takes longer, transfers included.

    Returns:
        Completed, with the run-cache entry as its message; Failed, with the last lines of output; Unreachable, when
        files did not get through; Cancelled.
    """
    log = get_run_logger()
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    run_id = context.flow_run.id
    with CancelWatch(run_id) as is_cancelled, _heartbeat(run_id, address), suppress(CancelledError):
        try:
            stop = _StopWhen(is_cancelled)
            needs = Needs(cpus=1, memory_gib=0, gpus=gpus, limit_s=limit_s)
            with hold_checkout(repository, commit) as checkout:
                os.chdir(checkout.folder / folder)
                return _work_in(checkout, address, remote, needs, force=force, stop=stop, write_line=log.info)
        except (CheckoutError, TransferError) as error:
            return Failed(name=UNREACHABLE, message=str(error))
        except LimitError as error:
            return Failed(message=f"{address} {error}, its limit, and was ended; raise limit_s if it should")
    return Cancelled(message="ended because the flow run was cancelled")


def _work_in(
    checkout: Checkout,
    address: str,
    remote: str,
    needs: Needs,
    *,
    force: bool,
    stop: Stop,
    write_line: Callable[[str], None],
) -> Any:
    # commands of stages say `python`, and mean the worker's
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    watchdog = Watchdog(checkout.lease.descriptor)
    runner = Runner(watchdog, stop, write_line)
    try:
        with _hold_gpus(address, needs, stop) as holding:
            command = ["flows.exchange", "run", address, "--remote", remote, *(["--force"] if force else [])]
            status = runner.run(command, holding=holding, limit_s=needs.limit_s)
        tail = runner.show_tail()
        if status == TRANSFER_STATUS:
            raise TransferError(f"files of {address} did not get through on {platform.node()}:\n{tail}")
        if status != 0:
            return Failed(message=f"{address} ended with status {status} on {platform.node()}:\n{tail}")
        return Completed(message=runner.read_answer()["entry"])
    finally:
        watchdog.close()


class _StopWhen(Stop):
    """Asks to stop when somebody has cancelled the flow run."""

    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        super().__init__()
        self._is_cancelled = is_cancelled

    @property
    def is_asked(self) -> bool:
        return self._is_cancelled()


@contextmanager
def _hold_gpus(address: str, needs: Needs, stop: Stop) -> Iterator[Holding]:
    """Lease the GPUs that a stage asked for; waits for them.

    Raises:
        TransferError: this machine has not so many: another worker may.
    """
    there = find_gpus() if needs.gpus else ()
    if needs.gpus and needs.gpus > len(there):
        raise TransferError(f"{address} needs {needs.gpus} gpus, and {platform.node()} has {len(there)}")
    while (leases := take_gpus(needs.gpus or 0, there, holder=f"{address} of process {os.getpid()}")) is None:
        if stop.is_asked:
            raise CancelledError("cancelled")
        time.sleep(_GPU_POLL_S)
    try:
        yield Holding(needs, tuple(leases))
    finally:
        for lease in leases:
            lease.release()


@contextmanager
def _heartbeat(run_id: UUID, address: str) -> Iterator[None]:
    """Tell the server again and again that this run lives: as an artifact, which the UI shows."""
    over = threading.Event()

    def beat() -> None:
        started = time.monotonic()
        artifact_id = None
        while True:
            text = f"{address} on {platform.node()}, process {os.getpid()}, for {time.monotonic() - started:.0f} s"
            with suppress(*SERVER_FAULTS), get_client(sync_client=True) as client:
                if artifact_id is None:
                    artifact_id = client.create_artifact(
                        ArtifactCreate(key=HEARTBEAT_KEY, type="markdown", data=text, flow_run_id=run_id)
                    ).id
                else:
                    client.update_artifact(artifact_id, ArtifactUpdate(data=text))
            if over.wait(_HEARTBEAT_S):
                return

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()
