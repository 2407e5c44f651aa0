"""Reads what backbones are trained on: documents for the LLM, images with captions and exact maps for encoders."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cambrian.artifacts import read_json, read_manifest
from cambrian.interfaces import IMAGE_PLACEHOLDER, ArtifactError, Turn

DOCUMENTS_NAME = "documents.jsonl"
CAPTIONS_NAME = "captions.jsonl"
ARRAYS_NAME = "arrays.npz"
VOCABULARY_NAME = "vocabulary.json"

_SPEAKERS = {"human": "human", "gpt": "gpt"}


@dataclass(frozen=True, slots=True)
class Document:
    """A conversation as text; `phrases` stands for its image, one entry per visual token."""

    phrases: tuple[tuple[str, ...], ...]
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class ImageCorpus:
    """Images and all that is known about them; index i of every array is the same image."""

    pixels: npt.NDArray[np.uint8]
    """(image, row, column, channel)"""
    segmentation: npt.NDArray[np.uint8]
    """The class of every pixel: (image, row, column)."""
    depth: npt.NDArray[np.float16]
    """(image, row, column)"""
    labels: npt.NDArray[np.uint8]
    """Which classes an image shows: (image, class), 0 or 1."""
    kind: npt.NDArray[np.uint8]
    """What sort of picture an image is; only its equality has a meaning here."""
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pixels)


def read_vocabulary(folder: Path) -> list[str]:
    """Every word of the world, sorted.

    Raises:
        ArtifactError: the folder is not finished or its vocabulary is not a list of different words.
    """
    read_manifest(folder)
    path = folder / VOCABULARY_NAME
    words = read_json(path)
    if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
        raise ArtifactError(f"{path} is not a list of words: delete {folder} and run `dvc repro`")
    if len(set(words)) != len(words):
        raise ArtifactError(f"{path} names {len(words) - len(set(words))} words twice: delete {folder}, `dvc repro`")
    return words


def read_documents(folder: Path) -> list[Document]:
    """The text that an LLM is pretrained on.

    Raises:
        ArtifactError: the folder is not finished, or a line is not a document; the message names the line.
    """
    read_manifest(folder)
    documents = []
    for where, value in _iter_lines(folder / DOCUMENTS_NAME):
        try:
            turns = tuple(
                Turn(_SPEAKERS[turn["from"]], turn["value"].replace(IMAGE_PLACEHOLDER, "").strip())  # type: ignore[arg-type]
                for turn in value["turns"]
            )
            phrases = tuple(tuple(words) for words in value["phrases"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(
                f"{where} is not a document ({error!r}): delete {folder} and run `dvc repro`"
            ) from error
        if [turn.speaker for turn in turns] != ["human", "gpt"] * (len(turns) // 2) or not turns:
            raise ArtifactError(f"{where}: expected turns of human and gpt, one after the other: make {folder} again")
        documents.append(Document(phrases, turns))
    return documents


def read_images(folder: Path) -> ImageCorpus:
    """The images that encoders are trained on.

    Raises:
        ArtifactError: the folder is not finished, or arrays and captions are not of one length.
    """
    read_manifest(folder)
    with np.load(folder / ARRAYS_NAME, allow_pickle=False) as arrays:
        try:
            found = {name: arrays[name] for name in ("pixels", "segmentation", "depth", "labels", "kind")}
        except KeyError as error:
            raise ArtifactError(f"{folder / ARRAYS_NAME}: {error}: delete {folder} and run `dvc repro`") from error
    captions = {value["index"]: value["text"] for _, value in _iter_lines(folder / CAPTIONS_NAME)}
    lengths = {name: len(array) for name, array in found.items()} | {"captions": len(captions)}
    if len(set(lengths.values())) != 1 or sorted(captions) != list(range(len(captions))):
        raise ArtifactError(f"{folder} does not hold one of each per image ({lengths}): delete it and run `dvc repro`")
    return ImageCorpus(**found, captions=tuple(captions[index] for index in range(len(captions))))


def _iter_lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield f"{path}, line {number}", json.loads(line)
    except (OSError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): delete its folder and run `dvc repro`") from error
