"""Cancel in Prefect's UI, noticed by a run that has no worker; and the end of a run that was killed."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect import get_client, get_run_logger
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Crashed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

SERVER_FAULTS = (httpx.HTTPError, PrefectHTTPStatusError)
"""What a server that is gone, or comes back, makes of a request; it fails no stage."""

_CANCEL_INTERVAL_S = 5.0


def end_killed(flow_run_id: str) -> None:
    """Show a run whose process was killed as Crashed: nobody else would, and the UI would call it Running for ever."""
    with suppress(*SERVER_FAULTS, ObjectNotFound, ValueError), get_client(sync_client=True) as client:
        run_id = UUID(flow_run_id)
        state = client.read_flow_run(run_id).state
        if state is not None and not state.is_final():
            client.set_flow_run_state(run_id, Crashed(message="its process was killed"), force=True)


class CancelWatch:
    """Asks the server whether somebody pressed Cancel; nobody else would tell a flow that has no worker.

    In a thread of its own, as a server that is gone takes a minute to say nothing.
    """

    def __init__(self, flow_run_id: UUID) -> None:
        self._flow_run_id = flow_run_id
        self._is_cancelled = threading.Event()
        self._is_over = threading.Event()

    def __enter__(self) -> Callable[[], bool]:
        threading.Thread(target=self._ask, args=(get_run_logger(),), daemon=True).start()
        return self._is_cancelled.is_set

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()

    def _ask(self, log: Any) -> None:
        while not self._is_over.wait(_CANCEL_INTERVAL_S):
            try:
                with get_client(sync_client=True) as client:
                    state = client.read_flow_run(self._flow_run_id).state
            except SERVER_FAULTS as error:
                # hours of training are not lost to a server that is being restarted
                log.warning("cannot ask the server whether this run was cancelled: %r", error)
                continue
            # a final state is somebody else's word too: a worker that was given up as lost
            if state is not None and (state.is_cancelling() or state.is_final()):
                self._is_cancelled.set()
