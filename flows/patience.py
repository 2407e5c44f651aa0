"""Trying again: a remote or a network that is away for a minute or two comes back, and hours of work must not be lost.

FLOWS_PATIENCE_S (180) says for how long.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import NoCredentialsError, PartialCredentialsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE_S = float(os.environ.get("FLOWS_PATIENCE_S", "180"))
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0
_HOPELESS = (PermissionError, NoCredentialsError, PartialCredentialsError)
_OURS = (AttributeError, NameError, TypeError)
"""What no remote says: a fault of a program, which is raised as it is."""
_HOPELESS_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class OutOfPatienceError(RuntimeError):
    """It failed until the end; the cause is the last error."""


def insist(move: Callable[[], Any]) -> Any:
    """Call again and again, with growing pauses, until it does not fail.

    Raises:
        OutOfPatienceError: it failed for as long as the patience lasts, or in a way that waiting does not mend (no
            credentials, no permission, a full disk); says how often and how long.
    """
    started = time.monotonic()
    pause_s, tries = _FIRST_PAUSE_S, 1
    while True:
        try:
            return move()
        except _OURS:
            raise
        except Exception as error:  # every kind of remote has errors of its own
            waited_s = time.monotonic() - started
            message = f"{type(error).__name__}: {error}" if not isinstance(error, RuntimeError) else str(error)
            if any(map(_is_hopeless, _iter_causes(error))):
                raise OutOfPatienceError(f"{message} (waiting does not mend it)") from error
            if waited_s + pause_s > _PATIENCE_S:
                raise OutOfPatienceError(f"{message} (tried {tries} times in {waited_s:.0f} s)") from error
            sys.stderr.write(f"{message}; once more in {pause_s:.1f} s\n")
        time.sleep(pause_s)
        pause_s, tries = min(2 * pause_s, _LONGEST_PAUSE_S), tries + 1


def _iter_causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_hopeless(error: BaseException) -> bool:
    return isinstance(error, _HOPELESS) or (isinstance(error, OSError) and error.errno in _HOPELESS_NUMBERS)
