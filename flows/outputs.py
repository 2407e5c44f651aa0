"""What stages make, to be asked of any path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Outputs:
    """The paths that stages write.

    No question goes through all of them: before the first run every dependency of every stage is asked about, and five
    hundred stages would take minutes.
    """

    def __init__(self, paths: Iterable[str | Path]) -> None:
        """Take note of absolute paths of files and folders."""
        self._paths = {Path(path) for path in paths}
        self._above = {parent for path in self._paths for parent in path.parents}

    def touch(self, path: Path) -> bool:
        """Say whether an absolute path is an output, lies in one, or holds one."""
        return path in self._above or not self._paths.isdisjoint((path, *path.parents))
