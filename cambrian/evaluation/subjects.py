"""What is evaluated: a run's model, or any vision-language model of transformers; named by what its replies rest on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from cambrian.artifacts import read_json, read_manifest
from cambrian.evaluation.reply_log import log_folder
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.evaluation.answering import Answerer


class Subject(Protocol):
    """Something that can be opened as an answerer, here or in another process."""

    def find_log(self, root: Path, name: str, values: dict[str, Any]) -> Path:
        """Where this subject's replies with these decoding values are logged."""
        ...

    def open(self, device: str) -> Answerer:
        """The model on a device, ready to answer. Slow, and not needed where every reply is in the log."""
        ...


@dataclass(frozen=True, slots=True)
class OwnModel:
    """The finished folder of a run's model."""

    folder: Path
    backbones: Path
    """The folder that holds the backbones it was made with."""

    def find_log(self, root: Path, name: str, values: dict[str, Any]) -> Path:
        """By the contents of the model's folder and of its backbones'.

        Raises:
            ArtifactError: one of them is missing, unfinished or no model.
        """
        read_manifest(self.folder)
        stored = read_json(self.folder / "model.json")
        try:
            names = sorted({*stored["config"]["encoders"], stored["config"]["llm"]})
        except (KeyError, TypeError) as error:
            raise ArtifactError(
                f"{self.folder / 'model.json'} has no {error}: the folder was written by another version, make it again"
            ) from error
        return log_folder(
            root, name, values=values, folders=[self.folder, *(self.backbones / backbone for backbone in names)]
        )

    def open(self, device: str) -> Answerer:
        """Read the model.

        Raises:
            ArtifactError: the model or a backbone is missing or broken.
        """
        from cambrian.evaluation.answering import open_own_model

        return open_own_model(self.folder, backbones=self.backbones, device=device)
