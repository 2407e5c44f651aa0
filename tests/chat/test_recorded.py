"""Dialogues held by a program: every question after the model's own replies, and what is measured of a reply."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest

from cambrian.artifacts import write_folder
from cambrian.chat.dialogue import Exchange
from cambrian.chat.recorded import DialoguesConfig, hold_dialogues, overlap, split_words
from cambrian.interfaces import ArtifactError
from cambrian.runtime import RuntimeConfig
from tests.chat.conftest import png

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.chat.talker import Talker


def write_dialogues(folder: Path, questions: list[list[str]]) -> Path:
    rows = [
        {
            "image": {"bytes": png(9, 9), "path": "a.png"},
            "turns": [{"question": question, "answer": "red green blue"} for question in one],
        }
        for one in questions
    ]
    with write_folder(folder) as output:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), output / "dialogues.parquet")
    return folder


def hold(scale: Path, dialogues: Path, output: Path) -> dict[str, Any]:
    hold_dialogues(
        DialoguesConfig(max_new_tokens=4),
        model=scale / "runs" / "sva-in-llm",
        backbones=scale / "backbones",
        dialogues=dialogues,
        runtime=RuntimeConfig(device="cpu", threads=1),
        run="a-run",
        scale="tiny",
        output=output,
    )
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def test_each_question_follows_the_models_own_replies(scale: Path, talker: Talker, tmp_path: Path) -> None:
    folder = write_dialogues(tmp_path / "set", [["what colour is it", "which"], ["what"]])
    found = hold(scale, folder, tmp_path / "out.json")
    assert (found["run"], found["scale"], [len(one["turns"]) for one in found["dialogues"]]) == (
        "a-run",
        "tiny",
        [2, 1],
    )
    first, second = found["dialogues"][0]["turns"]
    assert first["reply"] == talker.answer([png(9, 9)], [], "what colour is it", max_new_tokens=4).text
    history = [Exchange("what colour is it", first["reply"])]
    assert second["reply"] == talker.answer([png(9, 9)], history, "which", max_new_tokens=4).text
    for turn in (first, second):
        assert turn["words"] == len(split_words(turn["reply"]))
        assert (turn["reference_words"], turn["overlap"]) == (3, overlap(turn["reply"], "red green blue"))


def test_a_question_that_cannot_be_asked_is_named(scale: Path, tmp_path: Path) -> None:
    folder = write_dialogues(tmp_path / "set", [["what"], ["  "]])
    with pytest.raises(ArtifactError, match="dialogue 1: '  ' cannot be asked"):
        hold(scale, folder, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("reply", "reference", "expected"),
    [
        ("A red ball.", "a red ball", 1.0),
        ("red", "red ball and blue cone", 2 / 6),
        ("red red", "red", 2 / 3),
        ("", "red", 0.0),
        ("...", "", 0.0),
        ("blue", "red", 0.0),
    ],
)
def test_overlap_is_the_f_measure_of_shared_words(reply: str, reference: str, expected: float) -> None:
    assert overlap(reply, reference) == pytest.approx(expected)
    assert overlap(reference, reply) == pytest.approx(expected)


def test_words_are_split_in_any_alphabet() -> None:
    assert split_words("It's a_red-ish ball, №3: синий!") == ["it's", "a", "red-ish", "ball", "3", "синий"]
