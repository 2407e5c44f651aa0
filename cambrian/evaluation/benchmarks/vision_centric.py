"""Vision-Centric: MMVP, RealWorldQA, CV-Bench in two and in three dimensions."""

from __future__ import annotations

import re
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
    texts,
)
from cambrian.evaluation.matching import match_choice, match_phrase

if TYPE_CHECKING:
    from collections.abc import Mapping

_MMVP_OPTION = re.compile(r"\([a-z]\)\s*(.*?)\s*(?=\([a-z]\)|$)")


def _read_mmvp(row: Mapping[str, Any], number: int) -> Question:
    choices = tuple(_MMVP_OPTION.findall(row["Options"]))
    index = int(row["Index"])  # the published table is a CSV file
    return Question(
        id=str(index),
        text=row["Question"],
        choices=choices,
        answers=pick(choices, letter_index(row["Correct Answer"])),
        image=image_bytes(row["image"]),
        group=str((index - 1) // 2),  # questions 1 and 2 are a pair, 3 and 4 the next
    )


def _read_realworldqa(row: Mapping[str, Any], number: int) -> Question:
    return Question(id=str(number), text=row["question"], answers=(row["answer"],), image=image_bytes(row["image"]))


def _read_cvbench(row: Mapping[str, Any], kind: str) -> Question | None:
    if row["type"] not in ("2D", "3D"):
        raise ValueError(f"its type is {row['type']!r}, expected 2D or 3D")
    if row["type"] != kind:
        return None  # the published set has both kinds in one table
    choices = texts(row, "choices")
    return Question(
        id=row_id(row, "idx"),
        text=row["question"],
        own_wording=row["prompt"],
        choices=choices,
        answers=pick(choices, letter_index(row["answer"])),
        image=image_bytes(row["image"]),
        category=row["source"],
    )


def _read_cvbench_2d(row: Mapping[str, Any], number: int) -> Question | None:
    return _read_cvbench(row, "2D")


def _read_cvbench_3d(row: Mapping[str, Any], number: int) -> Question | None:
    return _read_cvbench(row, "3D")


_CVBENCH_COLUMNS = ("idx", "type", "question", "choices", "answer", "prompt", "image", "source")

MMVP = Benchmark(
    name="MMVP",
    columns=("Index", "Question", "Options", "Correct Answer", "image"),
    read_row=_read_mmvp,
    match=match_choice,
    metric=Metric(group_value="all", by_category=False, full_marks=100),
    guessed_answers=(),
)
REALWORLDQA = Benchmark(
    name="RealWorldQA",
    columns=("question", "answer", "image"),
    read_row=_read_realworldqa,
    match=match_phrase,
    metric=PERCENT,
    guessed_answers=("yes", "no"),
)
CVBENCH_2D = Benchmark(
    name="CV-Bench-2D",
    columns=_CVBENCH_COLUMNS,
    read_row=_read_cvbench_2d,
    match=match_choice,
    metric=Metric(group_value="mean", by_category=True, full_marks=100),  # the mean of its two sources' accuracies
    guessed_answers=(),
)
CVBENCH_3D = Benchmark(
    name="CV-Bench-3D",
    columns=_CVBENCH_COLUMNS,
    read_row=_read_cvbench_3d,
    match=match_choice,
    metric=PERCENT,
    guessed_answers=(),
)
