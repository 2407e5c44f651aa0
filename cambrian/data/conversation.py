"""Conversations as ids and labels: what a template does, and the one of the tiny language models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from cambrian.interfaces import IGNORE_LABEL, IMAGE_PLACEHOLDER, IMAGE_TOKEN_ID, RecordError, Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.tokenizer import Tokenizer


class Template(Protocol):
    """How conversations of one form are read; all that training, evaluation and chat know of a template.

    All of them by name: `cambrian.release.templates`.
    """

    @property
    def assistant_end(self) -> str:
        """Closes an assistant's turn and is learned with it."""
        ...

    def encode_conversation(self, turns: Sequence[Turn], tokenizer: Tokenizer, num_image_positions: int) -> Encoded:
        """Encode the turns; labels are the ids of the assistant's words and of the token that ends its turn.

        Every tag of a turn with an image is removed and one image is put before its text. A leading turn of the
        assistant is left out.

        Raises:
            RecordError: the turns do not alternate, or the last is not the assistant's.
            ValueError: a word is not in the vocabulary.
        """
        ...

    def encode_dialogue(self, turns: Sequence[Turn], tokenizer: Tokenizer, num_image_positions: int) -> list[int]:
        """Encode turns of which the last is the user's, up to where the assistant's answer begins.

        The ids are those that `encode_conversation` puts before the answer.

        Raises:
            RecordError: the turns do not alternate, or the last is not the user's.
            ValueError: a word is not in the vocabulary.
        """
        ...


@dataclass(frozen=True, slots=True)
class PiecewiseTemplate:
    """What stands around the turns of a conversation, where each piece is tokenised by itself.

    The borders of pieces must be borders of tokens: true of special tokens, and of words in a word-level vocabulary.
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

    def encode_conversation(self, turns: Sequence[Turn], tokenizer: Tokenizer, num_image_positions: int) -> Encoded:
        """See `Template`.

        Raises:
            RecordError: the turns do not alternate, the last is not the assistant's, or more than one has an image.
            ValueError: a word is not in the vocabulary.

        Source: the release's preprocessing (train_fsdp.py), which keeps the same words and masks the same positions.
        """
        if turns and turns[0].speaker == "gpt":
            turns = turns[1:]
        _check_turns(turns)
        input_ids = tokenizer.encode(self.beginning)
        labels = [IGNORE_LABEL] * len(input_ids)
        for turn in turns:
            if turn.speaker == "human":
                ids = self._encode_user(turn.text, tokenizer, num_image_positions)
                learned = [IGNORE_LABEL] * len(ids)
            else:
                opening = tokenizer.encode(self.assistant)
                answer = tokenizer.encode(turn.text.strip()) + tokenizer.encode(self.assistant_end)
                ids, learned = opening + answer, [IGNORE_LABEL] * len(opening) + answer
            input_ids += ids
            labels += learned
        return Encoded(input_ids, labels)

    def encode_dialogue(self, turns: Sequence[Turn], tokenizer: Tokenizer, num_image_positions: int) -> list[int]:
        """See `Template`.

        Raises:
            RecordError: the turns do not alternate, the last is not the user's, or more than one has an image.
            ValueError: a word is not in the vocabulary.
        """
        ids = self.encode_conversation([*turns, Turn("gpt", "")], tokenizer, num_image_positions).input_ids
        return ids[: len(ids) - len(tokenizer.encode(self.assistant_end))]

    def _encode_user(self, text: str, tokenizer: Tokenizer, num_image_positions: int) -> list[int]:
        has_image = IMAGE_PLACEHOLDER in text
        text = text.replace(IMAGE_PLACEHOLDER, "").strip()
        image = [IMAGE_TOKEN_ID] * num_image_positions + tokenizer.encode(self.image_end) if has_image else []
        return [*tokenizer.encode(self.user), *image, *tokenizer.encode(text), *tokenizer.encode(self.user_end)]


TURNS = PiecewiseTemplate(beginning="", user="<user>", user_end="", image_end="", assistant="", assistant_end="<end>")
"""Ours: the tiny language models, whose vocabulary has one word for each of these.

Nothing stands between question and answer, so the answer is predicted at the question's last word, which names what
is asked for.
"""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One conversation: ids with IMAGE_TOKEN_ID at every position of the image, and the labels of the same length."""

    input_ids: list[int]
    labels: list[int]

    @property
    def num_labels(self) -> int:
        """Positions that the loss counts."""
        return sum(label != IGNORE_LABEL for label in self.labels)


def encode_prompt(
    question: str, has_image: bool, template: Template, tokenizer: Tokenizer, num_image_positions: int
) -> list[int]:
    """Encode one question up to where the assistant's answer begins; `question` is without the image's tag.

    Raises:
        ValueError: a word is not in the vocabulary.
    """
    turn = Turn("human", f"{IMAGE_PLACEHOLDER}\n{question}" if has_image else question)
    return template.encode_dialogue([turn], tokenizer, num_image_positions)


def without_images(turns: Sequence[Turn]) -> list[Turn]:
    """The turns without images and their places."""
    return [
        Turn(turn.speaker, turn.text.replace(IMAGE_PLACEHOLDER, "").strip()) if IMAGE_PLACEHOLDER in turn.text else turn
        for turn in turns
    ]


def truncate(encoded: Encoded, max_length: int) -> tuple[Encoded, int]:
    """Cut what lies beyond `max_length` positions, as the release does, and say how many were cut.

    Raises:
        RecordError: there is nothing to learn, the cut goes through the image, or leaves nothing to learn.
    """
    if not encoded.num_labels:
        raise RecordError(
            "nothing-to-learn",
            f"{len(encoded.input_ids)} positions and no label: this tokenizer reads the turns otherwise alone than "
            "together, and the release learns nothing of such a conversation",
        )
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


def _check_turns(turns: Sequence[Turn]) -> None:
    speakers = [turn.speaker for turn in turns]
    if not turns or speakers != ["human", "gpt"] * (len(turns) // 2):
        found = ", ".join(speakers) or "no turns"
        raise RecordError("turn-order", f"found {found}; expected human and gpt in turn, gpt last")
    num_images = sum(IMAGE_PLACEHOLDER in turn.text for turn in turns if turn.speaker == "human")
    if num_images > 1:
        raise RecordError("several-images", f"{num_images} turns have {IMAGE_PLACEHOLDER}, at most one can")
