"""General: MME perception, MMBench, SEED-Bench, GQA."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cambrian.evaluation.benchmarks.benchmark import (
    PERCENT,
    Benchmark,
    Metric,
    Question,
    image_bytes,
    letter_index,
    pick,
    row_id,
)
from cambrian.evaluation.matching import match_choice, match_first_word, match_same_word

if TYPE_CHECKING:
    from collections.abc import Mapping

PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)  # fmt: skip
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
"""The other score of MME, which the paper does not use."""


def _read_mme(row: Mapping[str, Any], number: int) -> Question | None:
    if row["category"] in COGNITION:
        return None
    if row["category"] not in PERCEPTION:
        raise ValueError(f"its category {row['category']!r} is none of MME's: {', '.join((*PERCEPTION, *COGNITION))}")
    return Question(
        id=str(number),  # question_id names the image, which two questions share
        text=row["question"],
        answers=(row["answer"],),
        image=image_bytes(row["image"]),
        category=row["category"],
        group=row_id(row, "question_id"),
    )


def read_mmbench(row: Mapping[str, Any], number: int) -> Question:
    """A row of MMBench, in either language."""
    choices = tuple(row[letter] for letter in "ABCD" if row[letter] not in (None, "nan"))
    image = image_bytes(row["image"])
    # A group is one question over one image with its options turned round (release: text, hash of the image, source).
    digest = hashlib.sha256(image or b"").hexdigest()[:16]
    return Question(
        id=row_id(row, "index"),
        text=row["question"],
        choices=choices,
        answers=pick(choices, letter_index(row["answer"])),
        image=image,
        hint="" if row["hint"] in (None, "nan") else row["hint"],
        category=row["category"],
        group=f"{row['question']}/{'/'.join(sorted(choices))}/{digest}",
    )


def _read_seed(row: Mapping[str, Any], number: int) -> Question | None:
    if len(row["image"]) != 1:
        return None  # SEED-I: items with one image; the others are frames of a video
    choices = tuple(row[f"choice_{letter}"] for letter in "abcd")
    return Question(
        id=row_id(row, "question_id"),
        text=row["question"],
        choices=choices,
        answers=pick(choices, letter_index(row["answer"])),
        image=image_bytes(row["image"][0]),
    )


def _read_gqa(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=row_id(row, "id"), text=row["question"], answers=(row["answer"],), image=image_bytes(row["image"])
    )


MME_P = Benchmark(
    name="MME-P",
    columns=("question_id", "image", "question", "answer", "category"),
    read_row=_read_mme,
    match=match_first_word,
    # Official: the sum over the ten subtasks of 100 * (accuracy + pair accuracy), 0 to 2000. Ten times the mean over
    # subtasks is the same number, and keeps the range where a set has fewer of them.
    metric=Metric(group_value="mean-plus-all", by_category=True, full_marks=1000),
    guessed_answers=("yes", "no"),
)
MMBENCH = Benchmark(
    name="MMB",
    columns=("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image"),
    read_row=read_mmbench,
    match=match_choice,
    metric=Metric(group_value="all", by_category=False, full_marks=100),
    guessed_answers=(),
)
SEED = Benchmark(
    name="SEED-I",
    columns=("question_id", "question", "choice_a", "choice_b", "choice_c", "choice_d", "answer", "image"),
    read_row=_read_seed,
    match=match_choice,
    metric=PERCENT,
    guessed_answers=(),
)
GQA = Benchmark(
    name="GQA",
    columns=("id", "question", "answer", "image"),
    read_row=_read_gqa,
    match=match_same_word,
    metric=PERCENT,
    guessed_answers=(),
)
