"""OCR & Chart: ChartQA, OCRBench, TextVQA, DocVQA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian.evaluation.benchmarks.benchmark import PERCENT, Benchmark, Question, image_bytes, row_id, texts
from cambrian.evaluation.matching import match_contained, match_edits, match_number, match_vote

if TYPE_CHECKING:
    from collections.abc import Mapping


def _read_chartqa(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=str(number),
        text=row["question"],
        answers=(row["answer"],),
        image=image_bytes(row["image"]),
        category=row["type"],
    )


def _read_ocrbench(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=str(number),
        text=row["question"],
        answers=texts(row, "answer"),
        image=image_bytes(row["image"]),
        category=row["question_type"],
    )


def _read_textvqa(row: Mapping[str, Any], number: int) -> Question:
    return Question(
        id=row_id(row, "question_id"),
        text=row["question"],
        answers=texts(row, "answers"),
        image=image_bytes(row["image"]),
        ocr_tokens=texts(row, "ocr_tokens"),
    )


def read_docvqa(row: Mapping[str, Any], number: int) -> Question:
    """A row of DocVQA or of InfographicVQA, whose test splits have no answers."""
    return Question(
        id=row_id(row, "questionId"),
        text=row["question"],
        answers=texts(row, "answers"),
        image=image_bytes(row["image"]),
    )


CHARTQA = Benchmark(
    name="ChartQA",
    columns=("question", "answer", "type", "image"),
    read_row=_read_chartqa,
    match=match_number,
    metric=PERCENT,
    guessed_answers=(),
)
OCRBENCH = Benchmark(
    name="OCRBench",
    columns=("question", "answer", "question_type", "image"),
    read_row=_read_ocrbench,
    match=match_contained,
    metric=PERCENT,
    guessed_answers=(),
)
TEXTVQA = Benchmark(
    name="TextVQA",
    columns=("question_id", "question", "answers", "ocr_tokens", "image"),
    read_row=_read_textvqa,
    match=match_vote,
    metric=PERCENT,
    guessed_answers=(),
)
DOCVQA = Benchmark(
    name="DocVQA",
    columns=("questionId", "question", "answers", "image"),
    read_row=read_docvqa,
    match=match_edits,
    metric=PERCENT,
    guessed_answers=(),
)
