from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cambrian.artifacts import write_folder, write_json
from cambrian.backbones.corpora import read_documents, read_images, read_vocabulary
from cambrian.interfaces import ArtifactError, Turn
from tests.backbones.corpora import WORDS

if TYPE_CHECKING:
    from pathlib import Path


def change(corpora: Path, folder: Path, name: str, text: str) -> Path:
    with write_folder(folder) as partial:
        for path in corpora.iterdir():
            if path.name != "manifest.json":
                shutil.copy(path, partial)
        (partial / name).write_text(text)
    return folder


def test_documents_come_without_the_image_placeholder(corpora: Path) -> None:
    document = read_documents(corpora)[0]
    assert document.turns == (Turn("human", "what"), Turn("gpt", "red"))
    assert document.phrases == (("red", "ball"), ())


def test_images_and_captions_are_of_one_length(corpora: Path) -> None:
    images = read_images(corpora)
    assert len(images) == len(images.captions) == len(images.depth) == 40
    assert {caption.split()[1] for caption in images.captions} == {"cube"}


def test_vocabulary_is_read(corpora: Path) -> None:
    assert read_vocabulary(corpora) == WORDS


def test_a_line_that_is_no_document_is_named(corpora: Path, tmp_path: Path) -> None:
    broken = change(corpora, tmp_path / "broken", "documents.jsonl", '{"phrases": []}\n')
    with pytest.raises(ArtifactError, match=r"documents.jsonl, line 1 is not a document"):
        read_documents(broken)


def test_turns_out_of_order_are_refused(corpora: Path, tmp_path: Path) -> None:
    line = json.dumps({"phrases": [], "turns": [{"from": "gpt", "value": "red"}]})
    broken = change(corpora, tmp_path / "broken", "documents.jsonl", line)
    with pytest.raises(ArtifactError, match="line 1: expected turns of human and gpt"):
        read_documents(broken)


def test_malformed_json_is_an_artifact_error(corpora: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"documents.jsonl cannot be read"):
        read_documents(change(corpora, tmp_path / "broken", "documents.jsonl", "{"))


def test_a_missing_caption_is_found(corpora: Path, tmp_path: Path) -> None:
    lines = (corpora / "captions.jsonl").read_text().splitlines()[:-1]
    with pytest.raises(ArtifactError, match="'captions': 39"):
        read_images(change(corpora, tmp_path / "broken", "captions.jsonl", "\n".join(lines)))


def test_a_missing_array_is_named(corpora: Path, tmp_path: Path) -> None:
    broken = change(corpora, tmp_path / "broken", "captions.jsonl", "")
    with write_folder(tmp_path / "other") as partial:
        np.savez(partial / "arrays.npz", pixels=np.zeros((1, 2, 2, 3), dtype=np.uint8))
        shutil.copy(broken / "captions.jsonl", partial)
    with pytest.raises(ArtifactError, match="segmentation"):
        read_images(tmp_path / "other")


def test_unfinished_corpora_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"has no manifest.json"):
        read_documents(tmp_path)


def test_a_vocabulary_with_a_word_twice_is_refused(tmp_path: Path) -> None:
    with write_folder(tmp_path / "corpora") as partial:
        write_json(partial / "vocabulary.json", ["a", "a"])
    with pytest.raises(ArtifactError, match="names 1 words twice"):
        read_vocabulary(tmp_path / "corpora")
