"""Folders that several processes may want to make at the same moment: the first one that is done counts."""

from __future__ import annotations

import os
import shutil
import socket
from typing import TYPE_CHECKING

from cambrian.artifacts import MANIFEST_NAME, write_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_once(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder, whole or not at all, unless it is there already.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    if (folder / MANIFEST_NAME).is_file():
        return
    own = folder.with_name(f"{folder.name}.{socket.gethostname()}.{os.getpid()}")
    with write_folder(own) as partial:
        write(partial)
    try:
        os.replace(own, folder)
    except OSError:  # another process was first, with equal bytes
        shutil.rmtree(own)
        if not (folder / MANIFEST_NAME).is_file():
            raise
