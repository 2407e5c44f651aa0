"""What the release evaluates besides the sixteen, answered by a letter or by yes or no.

MMBench-CN, MMStar, Q-Bench, POPE, BLINK, V* (V-Star).
"""

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
    row_id,
    texts,
)
from cambrian.evaluation.benchmarks.general import MMBENCH, read_mmbench
from cambrian.evaluation.matching import match_choice, match_first_word

if TYPE_CHECKING:
    from collections.abc import Mapping

_BRACKETED_OPTION = re.compile(r"^\(([A-Z])\)\s*(.*?)\s*$", re.MULTILINE)


def _read_mmstar(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=row_id(row, "index"),
        text=row["question"],  # the options stand in it
        answers=(row["answer"],),
        image=image_bytes(row["image"]),
        category=row["category"],
    )


def _read_qbench(row: Mapping[str, Any], number: int) -> Question:
    choices = texts(row, "candidates")
    if row["correct_ans"] not in choices:
        raise ValueError(f"the answer {row['correct_ans']!r} is none of the candidates {choices}")
    return Question(
        id=str(number),
        text=row["question"],
        choices=choices,
        answers=(row["correct_ans"],),
        image=image_bytes(row["image"]),
    )


def _read_pope(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=f"{row['category']}/{row_id(row, 'question_id')}",
        text=row["question"],
        answers=(row["answer"],),
        image=image_bytes(row["image"]),
        category=row["category"],
    )


def _read_blink(row: Mapping[str, Any], number: int) -> Question:
    choices = texts(row, "choices")
    return Question(
        id=row_id(row, "idx"),
        text=row["question"],
        own_wording=row["prompt"],
        choices=choices,
        answers=pick(choices, letter_index(row["answer"])),
        image=image_bytes(row["image_1"]),  # the release shows the first image of several
        category=row["sub_task"],
    )


def _read_vstar(row: Mapping[str, Any], number: int) -> Question:
    choices = tuple(text for _, text in _BRACKETED_OPTION.findall(row["text"]))
    return Question(
        id=row_id(row, "question_id"),
        text=row["text"].split("\n", 1)[0],
        own_wording=row["text"],
        choices=choices,
        answers=pick(choices, letter_index(row["label"])),
        image=image_bytes(row["image"]),
        category=row["category"],
    )


ALL = (
    Benchmark(
        name="MMBench-CN",
        columns=MMBENCH.columns,
        read_row=read_mmbench,
        match=match_choice,
        metric=MMBENCH.metric,
        guessed_answers=(),
    ),
    Benchmark(
        name="MMStar",
        columns=("index", "question", "answer", "category", "image"),
        read_row=_read_mmstar,
        match=match_first_word,
        metric=PERCENT,
        guessed_answers=("a", "b", "c", "d"),
    ),
    Benchmark(
        name="Q-Bench",
        columns=("question", "candidates", "correct_ans", "image"),
        read_row=_read_qbench,
        match=match_choice,
        metric=PERCENT,
        guessed_answers=(),
    ),
    Benchmark(
        name="POPE",
        columns=("question_id", "question", "answer", "category", "image"),
        read_row=_read_pope,
        match=match_first_word,
        metric=PERCENT,  # release: plain accuracy over all three categories, no F1
        guessed_answers=("yes", "no"),
    ),
    Benchmark(
        name="BLINK",
        columns=("idx", "question", "prompt", "choices", "answer", "sub_task", "image_1"),
        read_row=_read_blink,
        match=match_choice,
        metric=PERCENT,
        guessed_answers=(),
    ),
    Benchmark(
        name="V-Star",
        columns=("question_id", "text", "label", "category", "image"),
        read_row=_read_vstar,
        match=match_choice,
        metric=PERCENT,
        guessed_answers=(),
    ),
)
