"""Conversations as ids and labels, by templates that are data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.interfaces import IGNORE_LABEL, IMAGE_PLACEHOLDER, IMAGE_TOKEN_ID, ParamsError, RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.tokenizer import Tokenizer
    from cambrian.interfaces import Turn


@dataclass(frozen=True, slots=True)
class Template:
    """What stands around the turns of a conversation.

    Each piece is tokenised by itself, so its borders must be borders of tokens: true of special tokens, and of words
    in a word-level vocabulary.
    """

    beginning: str
    """Before the first turn; empty where there is nothing."""
    user: str
    """Opens a user's turn."""
    user_end: str
    image_end: str
    """Between an image and the text of its turn."""
    assistant: str
    """Opens an assistant's turn, if anything does; a prompt ends here."""
    assistant_end: str
    """Closes an assistant's turn and is learned with it."""


TEMPLATES = {
    # ours: the tiny language models, whose vocabulary has one word for each of these. Nothing stands between question
    # and answer, so the answer is predicted at the question's last word, which names what is asked for.
    "turns": Template(beginning="", user="<user>", user_end="", image_end="", assistant="", assistant_end="<end>"),
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation: ids with IMAGE_TOKEN_ID at every position of the image, and the labels of the same length."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_labels(self) -> int:
        """Positions that the loss counts."""
        return sum(label != IGNORE_LABEL for label in self.labels)


def find_template(name: str) -> Template:
    """The template of this name.

    Raises:
        ParamsError: there is none.
    """
    if name not in TEMPLATES:
        raise ParamsError(f"unknown conversation template {name!r}; known: {', '.join(sorted(TEMPLATES))}")
    return TEMPLATES[name]


def encode_conversation(
    turns: Sequence[Turn], template: Template, tokenizer: Tokenizer, num_image_positions: int
) -> Encoded:
    """Encode the turns; labels are the ids of the assistant's words and of the token that ends its turn.

    Every tag of a turn with an image is removed and one image is put before its text. A leading turn of the assistant
    is left out.

    Raises:
        RecordError: the turns do not alternate, the last is not the assistant's, or more than one has an image.
        ValueError: a word is not in the vocabulary.

    Source: the release's preprocessing (train_fsdp.py), which keeps the same words and masks the same positions.
    """
    if turns and turns[0].speaker == "gpt":
        turns = turns[1:]
    _check_turns(turns)
    input_ids = tokenizer.encode(template.beginning)
    labels = [IGNORE_LABEL] * len(input_ids)
    for turn in turns:
        if turn.speaker == "human":
            has_image = IMAGE_PLACEHOLDER in turn.text
            text = turn.text.replace(IMAGE_PLACEHOLDER, "").strip()
            ids = _encode_user(text, has_image, template, tokenizer, num_image_positions)
            learned = [IGNORE_LABEL] * len(ids)
        else:
            opening = tokenizer.encode(template.assistant)
            answer = tokenizer.encode(turn.text.strip()) + tokenizer.encode(template.assistant_end)
            ids, learned = opening + answer, [IGNORE_LABEL] * len(opening) + answer
        input_ids += ids
        labels += learned
    return Encoded(input_ids, labels)


def encode_prompt(
    question: str, has_image: bool, template: Template, tokenizer: Tokenizer, num_image_positions: int
) -> list[int]:
    """Encode one question up to where the assistant's answer begins; `question` is without the image's tag.

    Raises:
        ValueError: a word is not in the vocabulary.
    """
    return [
        *tokenizer.encode(template.beginning),
        *_encode_user(question.strip(), has_image, template, tokenizer, num_image_positions),
        *tokenizer.encode(template.assistant),
    ]


def truncate(encoded: Encoded, max_length: int) -> tuple[Encoded, int]:
    """Cut what lies beyond `max_length` positions, as the release does, and say how many were cut.

    Raises:
        RecordError: the cut goes through the image, or leaves nothing to learn.
    """
    num_cut = max(len(encoded.input_ids) - max_length, 0)
    if num_cut == 0:
        return encoded, 0
    cut = Encoded(encoded.input_ids[:max_length], encoded.labels[:max_length])
    if encoded.input_ids[max_length] == IMAGE_TOKEN_ID or not cut.num_labels:
        raise RecordError(
            "too-long",
            f"{len(encoded.input_ids)} positions, of which max_length {max_length} leaves no whole image with an "
            "answer: raise max_length",
        )
    return cut, num_cut


def _encode_user(
    text: str, has_image: bool, template: Template, tokenizer: Tokenizer, num_image_positions: int
) -> list[int]:
    image = [IMAGE_TOKEN_ID] * num_image_positions + tokenizer.encode(template.image_end) if has_image else []
    return [*tokenizer.encode(template.user), *image, *tokenizer.encode(text), *tokenizer.encode(template.user_end)]


def _check_turns(turns: Sequence[Turn]) -> None:
    speakers = [turn.speaker for turn in turns]
    if not turns or speakers != ["human", "gpt"] * (len(turns) // 2):
        found = ", ".join(speakers) or "no turns"
        raise RecordError("turn-order", f"found {found}; expected human and gpt in turn, gpt last")
    num_images = sum(IMAGE_PLACEHOLDER in turn.text for turn in turns if turn.speaker == "human")
    if num_images > 1:
        raise RecordError("several-images", f"{num_images} turns have {IMAGE_PLACEHOLDER}, at most one can")
