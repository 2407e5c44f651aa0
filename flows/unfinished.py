"""Which stages were started and did not end: their outputs are pieces, not somebody's edits.

One empty file per stage, in DVC's own temporary folder.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


def mark_started(dvc_tmp: str, address: str) -> None:
    """Note that a stage is about to run."""
    path = _locate(dvc_tmp, address)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def mark_finished(dvc_tmp: str, address: str) -> None:
    """Note that what it made is recorded."""
    _locate(dvc_tmp, address).unlink(missing_ok=True)


def is_unfinished(dvc_tmp: str, address: str) -> bool:
    """Say whether a stage was started and has not ended well since."""
    return _locate(dvc_tmp, address).exists()


def _locate(dvc_tmp: str, address: str) -> Path:
    return Path(dvc_tmp) / "flows" / "unfinished" / quote(address, safe="")
