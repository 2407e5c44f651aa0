"""Files of published checkpoints in a local folder, at the revision that is pinned."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.backbones.config import FolderSource, HubSource
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUM_SHOWN = 8
"""Files of a source that an error lists."""


def fetch(source: HubSource | FolderSource, patterns: Sequence[str]) -> Path:
    """Return a local folder with a source's files; a hub's files are downloaded once into its cache.

    A mirror that speaks the hub's protocol stands in for it by `HF_ENDPOINT`, as everywhere in huggingface_hub.

    Raises:
        ArtifactError: the folder does not exist, or the hub cannot be reached or has no such revision.
    """
    if isinstance(source, FolderSource):
        path = Path(source.path)
        if not path.is_dir():
            raise ArtifactError(f"{path} is not a folder: put the checkpoint there or name another source")
        return path
    from httpx2 import HTTPError  # of a connection that is refused or cut
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source.repository, revision=source.revision, allow_patterns=list(patterns)))
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(_cannot_fetch(source, error)) from error


def list_files(source: HubSource | FolderSource) -> list[str]:
    """Return the names of a source's files, with their folders, in order.

    Raises:
        ArtifactError: as `fetch`.
    """
    if isinstance(source, FolderSource):
        folder = fetch(source, ())
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    from httpx2 import HTTPError  # of a connection that is refused or cut
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return sorted(HfApi().list_repo_files(source.repository, revision=source.revision))
    except (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(_cannot_fetch(source, error)) from error


def choose_file(found: Sequence[str], wanted: Sequence[str], *, where: str) -> str:
    """Return the first of `wanted` (names or patterns) that is found.

    Raises:
        ArtifactError: none is; the message lists what there is.
    """
    for pattern in wanted:
        if chosen := [name for name in found if fnmatch(name, pattern)]:
            return chosen[0]
    there = ", ".join(found[:_NUM_SHOWN]) or "nothing"
    raise ArtifactError(f"{where} has none of {', '.join(wanted)}; it has {there}: is it the checkpoint of this row?")


def fetch_address(address: str, sha256: str) -> Path:
    """Return a local copy of one file, downloaded once, whose SHA-256 is the pinned one.

    Raises:
        ArtifactError: it cannot be fetched, or is another file.
    """
    import torch.hub

    target = Path(torch.hub.get_dir()) / "checkpoints" / f"{sha256[:16]}-{address.rsplit('/', 1)[-1]}"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, str(target), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:
            raise ArtifactError(
                f"{address} cannot be fetched, or is not the file with SHA-256 {sha256} ({error}): check the network, "
                "or put the file into a folder and name that as the source"
            ) from error
    return target


def pinned(checkpoint: str | None, revision: str | None, *, row: str) -> HubSource | str:
    """Return where a row's weights are: a repository at its commit, or an address.

    Raises:
        ArtifactError: they are published nowhere, or no revision is pinned.
    """
    if checkpoint is None:
        raise ArtifactError(f"{row}: nobody has published these weights: give a folder of your own as the source")
    if revision is None:
        what = "the SHA-256 of the file" if is_address(checkpoint) else "the commit of the repository"
        raise ArtifactError(
            f"{row}: no revision of {checkpoint} is pinned: look up {what} and write it into the row, or name a source "
            "of kind hub or folder"
        )
    if is_address(checkpoint):
        return checkpoint
    return HubSource(kind="hub", repository=checkpoint, revision=revision)


def is_address(checkpoint: str) -> bool:
    """Whether a checkpoint is one file at an address and not a repository of the hub."""
    return re.match(r"https?://", checkpoint) is not None


def _cannot_fetch(source: HubSource, error: Exception) -> str:
    return (
        f"{source.repository} at {source.revision} cannot be fetched ({error}): check the network, the name and "
        "whether its licence was accepted"
    )
