"""Links to outputs in the bucket, for whoever has no credentials for it."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.bucket import Bucket
    from flows.graph import Project

MAX_HOURS = 7 * 24
"""S3 takes no longer ones."""
_HOUR_S = 3600


class LinkError(RuntimeError):
    """There is nothing to link to."""


def make_link(project: Project, bucket: Bucket, path: Path, *, hours: float) -> str:
    """Make a link to a file that is an output, or lies in one, in the version that dvc.lock names.

    Raises:
        LinkError: no output, a folder, not in the bucket yet, or a link that would be valid for too long.
    """
    if not 0 < hours <= MAX_HOURS:
        raise LinkError(f"a link for {hours:g} hours; expected more than 0, and at most {MAX_HOURS}, which S3 allows")
    digest = find_digest(project, path)
    if not bucket.holds(digest):
        raise LinkError(f"{path} ({digest}) is not in s3://{bucket.name}/{bucket.prefix}: dvc push {path}")
    kind = mimetypes.guess_type(path.name)[0] or ("text/plain" if path.suffix == ".jsonl" else None)
    return bucket.make_link(
        digest, name=path.name, content_type=kind or "application/octet-stream", seconds=round(hours * _HOUR_S)
    )


def find_digest(project: Project, path: Path) -> str:
    """Look up the hash under which DVC keeps a file.

    Raises:
        LinkError: DVC does not hold it, or holds a folder of that name.
    """
    wanted = Path.cwd() / path
    for out in project.repository.index.outs:
        if not (out.use_cache and wanted.is_relative_to(out.fs_path)) or out.hash_info is None:
            continue
        if not out.hash_info.isdir:
            return str(out.hash_info.value)
        tree = out.get_obj()
        entry = None if tree is None else tree.get(wanted.relative_to(out.fs_path).parts)
        if entry is None:
            raise LinkError(f"{path} is no file of the output {out}; a link goes to one file")
        return str(entry[1].value)
    raise LinkError(f"{path} is no output that DVC holds; `dvc list . --dvc-only --recursive` names them")
