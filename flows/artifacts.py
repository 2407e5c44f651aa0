"""The files that a run shows in Prefect's UI beside its logs: which of them, and in what form."""

from __future__ import annotations

import base64
import csv
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IMAGE_TYPES = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
}
_MAX_BYTES = 4 * 2**20  # they are stored in the server's database at every run


class ArtifactFileError(ValueError):
    """A file that cannot be shown."""


def find_files(patterns: Iterable[str], *, outs: Sequence[Path]) -> list[Path]:
    """List the files that match a pattern and lie in one of the outs, sorted, each once.

    What the planned stages do not make (the results of another scale, for example) is not this run's to show.
    """
    root = Path.cwd()
    found = {path for pattern in patterns for path in root.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(root) for path in found if any(path == out or out in path.parents for out in outs))


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a CSV file as rows of column to text.

    Raises:
        ArtifactFileError: not text, or too large for the UI.
    """
    try:
        with _check_size(path).open(encoding="utf-8", newline="") as file:
            return [{name: value or "" for name, value in row.items() if name} for row in csv.DictReader(file)]
    except UnicodeDecodeError as error:
        raise ArtifactFileError(f"{path} is not a CSV file in UTF-8: {error}") from error


def read_image(path: Path) -> str:
    """Read an image as a data URI, which needs no web server.

    Raises:
        ArtifactFileError: not a kind of image that browsers show, or too large for the UI.
    """
    kind = IMAGE_TYPES.get(path.suffix.lower())
    if kind is None:
        raise ArtifactFileError(f"{path} is not an image that browsers show; expected {', '.join(IMAGE_TYPES)}")
    return f"data:{kind};base64,{base64.b64encode(_check_size(path).read_bytes()).decode('ascii')}"


def build_key(path: Path) -> str:
    """Turn a path into an artifact key: small letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", path.with_suffix("").as_posix().lower()).strip("-")


def _check_size(path: Path) -> Path:
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise ArtifactFileError(f"{path} has {size} bytes; the UI is given at most {_MAX_BYTES}")
    return path
