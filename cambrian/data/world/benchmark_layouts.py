"""The columns of the sixteen data sets as they stand on the hub, filled from drawn questions.

Columns that nobody reads (licences, lectures, model-made explanations) are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cambrian.data.world.pictures import Picture
    from cambrian.data.world.question_forms import Question

IMAGE_COLUMNS = ("image", "image_1", "decoded_image")
"""Columns that hold an encoded picture (or, in SEED-Bench, a list of them)."""

MME_SUBTASKS = {"exists": "existence", "number-is": "count", "side": "position", "attribute": "color"}
"""Kinds of yes/no questions and the perception subtask of MME that each stands for."""

MMBENCH_ROTATION = 1_000_000
"""What MMBench adds to an item's index for every turn of its options."""

NUM_ANNOTATORS = 10
"""How many people answered each question of TextVQA."""

_LETTERS = "ABCD"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One draw of a benchmark: its pictures and the questions about them, one each or two."""

    pictures: tuple[Picture, ...]
    questions: tuple[Question, ...]
    ocr_tokens: tuple[str, ...] = ()
    """Every word that is written on the picture."""
    source: str = ""
    """CV-Bench's, as are the boxes."""
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Of the things that are asked about: left, top, right, bottom in pixels."""


def _mme(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    category = MME_SUBTASKS[drawn.questions[0].kind]
    return [
        {
            "question_id": f"{category}/{index:04d}.png",
            "image": images[0],
            "question": question.text,
            "answer": question.answer.capitalize(),
            "category": category,
        }
        for question in drawn.questions
    ]


def _mmbench(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    count = len(question.choices)
    rows = []
    for turn in range(count):
        turned = question.choices[turn:] + question.choices[:turn]
        options = {letter: turned[place] if place < count else "nan" for place, letter in enumerate(_LETTERS)}
        rows.append(
            {
                "index": index + turn * MMBENCH_ROTATION,
                "question": question.text,
                "hint": "nan",
                **options,
                "answer": _LETTERS[turned.index(question.answer)],
                "category": question.kind,
                "image": images[0],
                "source": "generated",
                "split": "dev",
            }
        )
    return rows


def _seed(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    if len(question.choices) != len(_LETTERS):
        raise ValueError(f"a question of {question.kind} has {len(question.choices)} options, SEED-Bench has four")
    return [
        {
            "question_id": f"{index}",
            "question": question.text,
            **{f"choice_{letter.lower()}": choice for letter, choice in zip(_LETTERS, question.choices, strict=True)},
            "answer": _letter(question),
            "image": [images[0]],
            "data_type": "image",
        }
    ]


def _gqa(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "id": f"{index:08d}",
            "imageId": f"n{index}",
            "question": question.text,
            "answer": question.answer,
            "image": images[0],
        }
    ]


def _scienceqa(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "image": images[0],
            "question": question.text,
            "choices": list(question.choices),
            "answer": question.choices.index(question.answer),
            "hint": "",
            "subject": question.kind,
        }
    ]


def _mmmu(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "id": f"validation_{question.kind}_{index}",
            "question": f"<image 1> {question.text}",
            "options": str(list(question.choices)),
            "answer": _letter(question) if question.choices else question.answer,
            "image_1": images[0],
            "question_type": "multiple-choice" if question.choices else "open",
            "subfield": question.kind,
        }
    ]


def _mathvista(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "pid": str(index + 1),
            "question": question.text,
            "query": question.text,
            "image": images[0]["path"],
            "decoded_image": images[0],
            "choices": list(question.choices) if question.needs_choices else None,
            "answer": question.answer,
            "question_type": "multi_choice" if question.needs_choices else "free_form",
        }
    ]


def _ai2d(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "question": question.text,
            "options": list(question.choices),
            "answer": str(question.choices.index(question.answer)),
            "image": images[0],
        }
    ]


def _chartqa(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [{"type": "generated", "question": question.text, "answer": question.answer, "image": images[0]}]


def _ocrbench(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "dataset": "generated",
            "question": question.text,
            "question_type": question.kind,
            "answer": [question.answer],
            "image": images[0],
        }
    ]


def _textvqa(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "image_id": f"{index:016x}",
            "question_id": index,
            "question": question.text,
            "answers": [question.answer] * NUM_ANNOTATORS,
            "ocr_tokens": list(drawn.ocr_tokens),
            "image": images[0],
        }
    ]


def _docvqa(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "questionId": str(index),
            "question": question.text,
            "question_types": [question.kind],
            "answers": [question.answer],
            "image": images[0],
        }
    ]


def _mmvp(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    return [
        {
            "Index": 2 * index + number + 1,
            "Question": question.text,
            "Options": " ".join(
                f"({letter.lower()}) {choice}" for letter, choice in zip(_LETTERS, question.choices, strict=False)
            ),
            "Correct Answer": f"({_letter(question).lower()})",
            "image": images[number],
        }
        for number, question in enumerate(drawn.questions)
    ]


def _realworldqa(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    return [
        {
            "question": question.text,
            "answer": question.answer,
            "image_path": images[0]["path"],
            "image": images[0],
        }
    ]


def _cvbench(index: int, drawn: Drawn, images: Sequence[Row]) -> list[Row]:
    (question,) = drawn.questions
    options = "\n".join(f"({letter}) {choice}" for letter, choice in zip(_LETTERS, question.choices, strict=False))
    return [
        {
            "idx": index,
            "type": "3D" if question.kind in ("Depth", "Distance") else "2D",
            "task": question.kind,
            "image": images[0],
            "question": question.text,
            "choices": list(question.choices),
            "answer": f"({_letter(question)})",
            "prompt": f"{question.text} Select from the following choices.\n{options}",
            "filename": images[0]["path"],
            "source": drawn.source,
            "source_dataset": drawn.source,
            "source_filename": images[0]["path"],
            "bbox": [list(box) for box in drawn.boxes],
        }
    ]


def _letter(question: Question) -> str:
    return _LETTERS[question.choices.index(question.answer)]


LAYOUTS: dict[str, Callable[[int, Drawn, Sequence[Row]], list[Row]]] = {
    "MME-P": _mme,
    "MMB": _mmbench,
    "SEED-I": _seed,
    "GQA": _gqa,
    "SQA-I": _scienceqa,
    "MMMU-V": _mmmu,
    "MathVista-M": _mathvista,
    "AI2D": _ai2d,
    "ChartQA": _chartqa,
    "OCRBench": _ocrbench,
    "TextVQA": _textvqa,
    "DocVQA": _docvqa,
    "MMVP": _mmvp,
    "RealWorldQA": _realworldqa,
    "CV-Bench-2D": _cvbench,
    "CV-Bench-3D": _cvbench,
}
"""By score, in the paper's order: the rows of one draw."""
