"""Replies as they come: a log beside the pipeline's outputs, from which a stopped run goes on.

A log belongs to one model with one way of decoding, on one kind of device, as this code computes them; a line is one
prompt with its reply. A run that starts again asks only what the log lacks, in the batches in which it would have been
asked, so its replies are those of a run that was never stopped; a run of which only the scoring changed asks nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import MANIFEST_NAME, read_manifest
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_log = logging.getLogger("cambrian")

Prompt = tuple[str, bytes | None]
"""What a model is asked: the user's turn and its image."""

_ROOM = Path(__file__).parents[1]
_CODE = (
    "models",
    "data/collate.py",
    "data/conversation.py",
    "data/images.py",
    "data/tokenizer.py",
    "evaluation/answering.py",
    "evaluation/foreign.py",
    "release/templates.py",
)
"""Sources of which a change may change replies."""
_PACKAGES = ("torch", "transformers")


class ReplyLog:
    """The log of one model: a file per process that answers."""

    def __init__(self, folder: Path, *, process: int = 0) -> None:
        self._folder = folder
        self._path = folder / f"{process}.jsonl"
        self._replies: dict[str, tuple[int, str]] = {}
        for path in sorted(folder.glob("*.jsonl")):
            self._read(path)

    def __len__(self) -> int:
        return len(self._replies)

    def find(self, key: str) -> str | None:
        """The reply to the prompt of a key, or None where it was not asked yet."""
        found = self._replies.get(key)
        return None if found is None else found[1]

    def add(self, keys: Sequence[str], texts: Sequence[str], *, place: int) -> None:
        """Write a batch's replies down before anything else happens.

        `place` is the batch's number within the whole evaluation. Where two batches hold one prompt, the earlier one's
        reply stands, whichever process was faster.

        Raises:
            ArtifactError: the disk is full or the log cannot be written.
        """
        lines = []
        for key, text in zip(keys, texts, strict=True):
            lines.append(json.dumps({"prompt": key, "place": place, "reply": text}, ensure_ascii=False) + "\n")
            self._keep(key, place, text)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        except OSError as error:
            raise ArtifactError(
                f"{self._path} could not be written: {error}. Free space and run `dvc repro`"
            ) from error

    def _keep(self, key: str, place: int, text: str) -> None:
        known = self._replies.get(key)
        if known is None or place < known[0]:
            self._replies[key] = (place, text)

    def _read(self, path: Path) -> None:
        """Read a file; a line that a killed process left half is cut off, another broken one is named and left out."""
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            _log.warning("%s ends within a line, as after a kill: that batch is asked again", path)
            if path == self._path:
                with path.open("r+b") as file:
                    file.truncate(whole)
        for number, line in enumerate(data[:whole].splitlines(), start=1):
            try:
                entry = json.loads(line)
                self._keep(entry["prompt"], int(entry["place"]), str(entry["reply"]))
            except (ValueError, KeyError, TypeError):
                _log.warning("%s, line %d is no reply and is passed over: its prompt is asked again", path, number)


def prompt_key(prompt: Prompt, *, max_new_tokens: int) -> str:
    """A short name for a prompt: its words, its image and where its reply is cut off."""
    question, image = prompt
    shown = None if image is None else hashlib.sha256(image).hexdigest()
    value = json.dumps([question, shown, max_new_tokens])
    return hashlib.sha256(value.encode()).hexdigest()[:32]


def log_folder(root: Path, name: str, *, values: Mapping[str, Any], folders: Iterable[Path]) -> Path:
    """Where the log of `name` lies for these decoding values, the contents of these finished folders, and this code.

    Logs of the same name for other values or contents are removed: their model is gone.

    Raises:
        ArtifactError: a folder is missing or unfinished.
    """
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for folder in folders:
        read_manifest(folder)
        digest.update((folder / MANIFEST_NAME).read_bytes())
    for part in _CODE:
        path = _ROOM / part
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.read_bytes())
    digest.update(json.dumps([version(package) for package in _PACKAGES]).encode())
    chosen = root / f"{name}-{digest.hexdigest()[:16]}"
    for old in root.glob(f"{name}-" + "[0-9a-f]" * 16):
        if old != chosen:
            shutil.rmtree(old, ignore_errors=True)
    return chosen
