"""Processes that a test interrupts."""

from __future__ import annotations

import signal


def listen_to_ctrl_c() -> None:
    """Undo, between fork and exec, what workers of pytest-xdist hand down: they ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
