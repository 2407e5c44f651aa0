"""A stage's folder: written whole or not at all, with a manifest of what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MANIFEST_NAME = "manifest.json"


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes; the file appears whole or not at all.

    Raises:
        ArtifactError: the disk is full or the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise ArtifactError(
            f"{path} could not be written: {error}. Free space or mend the folder's permissions and run "
            "`dvc repro` again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ArtifactError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} is missing: run the stage that makes it (`dvc repro` does)") from error
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is not JSON ({error}): delete it and run `dvc repro`") from error


@contextmanager
def write_folder(output: Path, **facts: Any) -> Iterator[Path]:
    """Yield an empty folder that becomes `output` when the block ends well, and vanishes when it does not.

    A manifest with `facts` (counts, params) and the size and SHA-256 of every file is added last. An exception,
    Ctrl-C included, leaves no folder; a killed process leaves only `.NAME.partial`, which the next call removes.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        files = {
            path.relative_to(partial).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        write_json(partial / MANIFEST_NAME, {**facts, "files": files})
        shutil.rmtree(output, ignore_errors=True)
        os.replace(partial, output)
    except OSError as error:
        raise ArtifactError(
            f"{output} could not be written: {error}. Nothing was left behind; free space or mend the folder's "
            "permissions and run `dvc repro` again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a finished folder.

    Raises:
        ArtifactError: there is no manifest (the folder was not finished), or a file it names is missing or has
            another size.
    """
    if not (folder / MANIFEST_NAME).is_file():
        raise ArtifactError(
            f"{folder} has no {MANIFEST_NAME}: it is missing or was not finished; run `dvc repro` to make it"
        )
    manifest: dict[str, Any] = read_json(folder / MANIFEST_NAME)
    for name, facts in manifest["files"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != facts["bytes"]:
            raise ArtifactError(
                f"{path} has {'no file' if found is None else f'{found} bytes'}, the manifest says {facts['bytes']}: "
                f"delete {folder} and run `dvc repro`"
            )
    return manifest


def find_damage(folder: Path) -> str | None:
    """Say what is wrong with a finished folder, down to the contents of its files; None where nothing is."""
    try:
        manifest = read_manifest(folder)
    except ArtifactError as error:
        return str(error)
    changed = [name for name, facts in manifest["files"].items() if _sha256(folder / name) != facts["sha256"]]
    return f"{', '.join(changed)} in {folder} is not what was written" if changed else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
