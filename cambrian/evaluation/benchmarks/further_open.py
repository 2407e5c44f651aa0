"""What the release evaluates besides the sixteen, answered in free text: VizWiz, ST-VQA, InfoVQA, SynthDoG, MM-Vet."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cambrian.evaluation.benchmarks.benchmark import PERCENT, Benchmark, Question, image_bytes, row_id, texts
from cambrian.evaluation.benchmarks.ocr_chart import DOCVQA, read_docvqa
from cambrian.evaluation.matching import match_edits, match_keywords, match_transcript, match_vote

if TYPE_CHECKING:
    from collections.abc import Mapping


def _read_vizwiz(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=row_id(row, "question_id"),
        text=row["question"],
        answers=texts(row, "answers"),
        image=image_bytes(row["image"]),
        category=row["category"] or "",
    )


def _read_stvqa(row: Mapping[str, Any], number: int) -> Question:
    # The public rows have no answers: they are scored by https://rrc.cvc.uab.es/?ch=11
    return Question(id=row_id(row, "question_id"), text=row["question"], answers=(), image=image_bytes(row["image"]))


def _read_synthdog(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=str(number),
        text="",
        answers=(json.loads(row["ground_truth"])["gt_parse"]["text_sequence"],),
        image=image_bytes(row["image"]),
    )


def _read_mmvet(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=row_id(row, "question_id"),
        text=row["question"],
        answers=(row["answer"],),
        image=image_bytes(row["image"]),
        category=row["capability"],
    )


ALL = (
    Benchmark(
        name="VizWiz",
        columns=("question_id", "question", "answers", "category", "image"),
        read_row=_read_vizwiz,
        match=match_vote,
        metric=PERCENT,
        guessed_answers=(),
    ),
    Benchmark(
        name="ST-VQA",
        columns=("question_id", "question", "image"),
        read_row=_read_stvqa,
        match=match_edits,
        metric=PERCENT,
        guessed_answers=(),
    ),
    Benchmark(
        name="InfoVQA",
        columns=DOCVQA.columns,
        read_row=read_docvqa,
        match=match_edits,
        metric=PERCENT,
        guessed_answers=(),
    ),
    Benchmark(
        name="SynthDoG",
        columns=("image", "ground_truth"),
        read_row=_read_synthdog,
        match=match_transcript,
        metric=PERCENT,  # the mean of the release's five shares
        guessed_answers=(),
    ),
    Benchmark(
        name="MM-Vet",
        columns=("question_id", "question", "answer", "capability", "image"),
        read_row=_read_mmvet,
        match=match_keywords,
        metric=PERCENT,
        guessed_answers=(),
    ),
)
