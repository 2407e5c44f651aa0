"""A conversation so far and the next question, as the ids that a model was trained to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.interfaces import IMAGE_PLACEHOLDER, RecordError, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.conversation import Template
    from cambrian.data.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and what was answered to it."""

    question: str
    answer: str


def encode_dialogue(
    exchanges: Sequence[Exchange],
    question: str,
    *,
    num_images: int,
    template: Template,
    tokenizer: Tokenizer,
    num_image_positions: int,
) -> list[int]:
    """Encode the exchanges and the question up to where the next answer begins.

    All images stand side by side before the first question, whether it has markers for them or not. Without exchanges
    the ids are those that the evaluation asks with.

    Raises:
        RecordError: `empty-question`; `image-markers`, where their number is not that of the images, or one stands in
            a later question; `unknown-word`, where the vocabulary is closed.
    """
    _check_questions([*(exchange.question for exchange in exchanges), question], num_images)
    turns = _to_turns(exchanges, question, has_images=num_images > 0)
    try:
        return template.encode_dialogue(turns, tokenizer, num_image_positions * num_images)
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError("unknown-word", str(error)) from error


def _check_questions(questions: Sequence[str], num_images: int) -> None:
    if not all(question.replace(IMAGE_PLACEHOLDER, "").strip() for question in questions):
        raise RecordError("empty-question", "the question is empty: write what the model is to answer")
    first, *later = (question.count(IMAGE_PLACEHOLDER) for question in questions)
    if any(later):
        raise RecordError(
            "image-markers",
            f"a later question has {IMAGE_PLACEHOLDER}: all images stand before the first question; leave it out",
        )
    if first not in (0, num_images):
        raise RecordError(
            "image-markers",
            f"the question has {first} {IMAGE_PLACEHOLDER}, the number of images is {num_images}: write one for each "
            "image, or none",
        )


def _to_turns(exchanges: Sequence[Exchange], question: str, *, has_images: bool) -> list[Turn]:
    """The turns, ending in the question; a marker that a model has written itself is no image."""
    turns: list[Turn] = []
    for exchange in [*exchanges, Exchange(question, "")]:
        text = exchange.question.replace(IMAGE_PLACEHOLDER, "").strip()
        turns.append(Turn("human", f"{IMAGE_PLACEHOLDER}\n{text}" if has_images and not turns else text))
        turns.append(Turn("gpt", exchange.answer.replace(IMAGE_PLACEHOLDER, "")))
    return turns[:-1]
