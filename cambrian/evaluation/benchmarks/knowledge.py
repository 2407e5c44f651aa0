"""Knowledge: ScienceQA, MMMU, MathVista, AI2D."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cambrian.evaluation.benchmarks.benchmark import (
    PERCENT,
    Benchmark,
    Question,
    image_bytes,
    letter_index,
    pick,
    read_list,
    row_id,
    texts,
)
from cambrian.evaluation.matching import match_choice, match_choice_or_number

if TYPE_CHECKING:
    from collections.abc import Mapping

_IMAGE_TAG = re.compile(r"\s*<image \d+>\s*")


def _read_scienceqa(row: Mapping[str, Any], number: int) -> Question | None:
    if row["image"] is None:
        return None  # SQA-I: the questions with an image
    choices = texts(row, "choices")
    return Question(
        id=str(number),
        text=row["question"],
        choices=choices,
        answers=pick(choices, row["answer"]),
        image=image_bytes(row["image"]),
        hint=row["hint"],
        category=row["subject"],
    )


def _read_mmmu(row: Mapping[str, Any], number: int) -> Question:
    choices = read_list(row["options"])
    if row["question_type"] not in ("multiple-choice", "open"):
        raise ValueError(f"its question_type is {row['question_type']!r}, expected multiple-choice or open")
    is_open = row["question_type"] == "open"
    # An open question's answer may itself be the text of a list of accepted answers.
    accepted = read_list(row["answer"]) if is_open and row["answer"].startswith("[") else (row["answer"],)
    return Question(
        id=row_id(row, "id"),
        text=_IMAGE_TAG.sub(" ", row["question"]).strip(),
        choices=() if is_open else choices,
        answers=accepted if is_open else pick(choices, letter_index(row["answer"])),
        image=image_bytes(row["image_1"]),  # the release takes the first image of several
        category=row["subfield"],
    )


def _read_mathvista(row: Mapping[str, Any], number: int) -> Question:
    choices = texts(row, "choices")
    return Question(
        id=row_id(row, "pid"),
        text=row["question"],
        own_wording=row["query"],
        choices=choices,
        answers=(row["answer"],),
        image=image_bytes(row["decoded_image"]),
        category=row["question_type"],
    )


def _read_ai2d(row: Mapping[str, Any], number: int) -> Question:
    choices = texts(row, "options")
    return Question(
        id=str(number),
        text=row["question"],
        choices=choices,
        answers=pick(choices, int(row["answer"])),
        image=image_bytes(row["image"]),
    )


SCIENCEQA = Benchmark(
    name="SQA-I",
    columns=("image", "question", "choices", "answer", "hint", "subject"),
    read_row=_read_scienceqa,
    match=match_choice,
    metric=PERCENT,
    guessed_answers=(),
)
MMMU = Benchmark(
    name="MMMU-V",
    columns=("id", "question", "options", "answer", "image_1", "question_type", "subfield"),
    read_row=_read_mmmu,
    match=match_choice_or_number,
    metric=PERCENT,
    guessed_answers=(),
)
MATHVISTA = Benchmark(
    name="MathVista-M",
    columns=("pid", "question", "query", "decoded_image", "choices", "answer", "question_type"),
    read_row=_read_mathvista,
    match=match_choice_or_number,
    metric=PERCENT,
    guessed_answers=(),
)
AI2D = Benchmark(
    name="AI2D",
    columns=("question", "options", "answer", "image"),
    read_row=_read_ai2d,
    match=match_choice,
    metric=PERCENT,
    guessed_answers=(),
)
