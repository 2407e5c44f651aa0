"""Every conversation template by name; the release's: text, ids and labels as its models were trained on them.

The template of `cambrian.data.conversation` is tokenised piece by piece; the release's are tokenised as whole
stretches of text between images, because a SentencePiece vocabulary joins what stands on both sides of a piece's
border.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cambrian.data.conversation import TURNS, Encoded
from cambrian.interfaces import IGNORE_LABEL, IMAGE_PLACEHOLDER, IMAGE_TOKEN_ID, RecordError, Turn
from cambrian.params import look_up

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.conversation import Template
    from cambrian.data.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class ReleaseTemplate:
    """What stands around the turns of a conversation, and which of it is learned."""

    beginning: str
    """The system prompt with all that surrounds it."""
    user: str
    user_end: str
    assistant: str
    """Opens an assistant's turn; a prompt ends here."""
    answer_gap: str
    """Between the opening and the answer; a prompt is without it."""
    assistant_end: str
    """Closes an assistant's turn and is learned with it."""
    bos_token: str | None
    """Put before everything; None where the text itself begins with it, or where there is none."""
    counts: Literal["turns", "prefixes"]
    """What the ids of a conversation's turns are counted on, see `encode_release_conversation`."""

    def encode_conversation(self, turns: Sequence[Turn], tokenizer: Tokenizer, num_image_positions: int) -> Encoded:
        """See `encode_release_conversation`."""
        return encode_release_conversation(turns, self, tokenizer, num_image_positions)

    def encode_dialogue(self, turns: Sequence[Turn], tokenizer: Tokenizer, num_image_positions: int) -> list[int]:
        """Encode turns of which the last is the user's, up to where the assistant's answer begins.

        The ids are those of training. (The release's inference drops the line break after the image with llama_3.)

        Raises:
            RecordError: the turns do not alternate, or the last is not the user's.
        """
        return encode_text(render_dialogue(turns, self), self, tokenizer, num_image_positions)


_SYSTEM_LINES = (
    "You are Cambrian, a highly intelligent multimodal AI trained by NYU Vision X.",
    "As a multimodal AI, you have the ability to process and analyze images. Whenever an image is present in the "
    "conversation, very carefully examine it and consider its content when formulating your response.",
    "You should give concise responses to very simple questions, but provide thorough responses to more complex and "
    "open-ended questions.",
)

RELEASE_TEMPLATES = {
    "llama_3": ReleaseTemplate(
        beginning="<|begin_of_text|><|start_header_id|>system<|end_header_id|>"
        + " \n    ".join(_SYSTEM_LINES[:2])
        + f"\n    {_SYSTEM_LINES[2]} <|eot_id|>",
        user="<|start_header_id|>user<|end_header_id|>",
        user_end="<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>",
        answer_gap="",
        assistant_end="<|eot_id|>",
        bos_token=None,
        counts="turns",
    ),
    "vicuna_v1": ReleaseTemplate(
        beginning="A chat between a curious user and an artificial intelligence assistant. The assistant gives "
        "helpful, detailed, and polite answers to the user's questions. ",
        user="USER: ",
        user_end=" ",
        assistant="ASSISTANT:",
        answer_gap=" ",
        assistant_end="</s>",
        bos_token="<s>",
        counts="turns",
    ),
    "chatml_direct": ReleaseTemplate(
        beginning=f"<|im_start|>system\n{' '.join(_SYSTEM_LINES)}<|im_end|>",
        user="<|im_start|>user\n",
        user_end="<|im_end|>",
        assistant="<|im_start|>assistant\n",
        answer_gap="",
        assistant_end="<|im_end|>",
        bos_token=None,
        counts="turns",
    ),
    "phi3": ReleaseTemplate(
        beginning="<|system|>\nYou are a helpful AI assistant.<|end|>",
        user="\n<|user|>\n",
        user_end="<|end|>",
        assistant="\n<|assistant|>\n",
        answer_gap="",
        assistant_end="<|end|>",
        bos_token="<s>",
        counts="prefixes",
    ),
}
"""By the release's names.

Source: release, `conversation.py`.
"""

TEMPLATES: dict[str, Template] = {"turns": TURNS, **RELEASE_TEMPLATES}
"""What a scale's `llms` can name."""


def find_template(name: str) -> Template:
    """The template of this name, ours or the release's.

    Raises:
        ParamsError: there is none.
    """
    template: Template = look_up(TEMPLATES, name, where="conversation template")
    return template


def find_release_template(name: str) -> ReleaseTemplate:
    """The release's template of this name.

    Raises:
        ParamsError: there is none.
    """
    template: ReleaseTemplate = look_up(RELEASE_TEMPLATES, name, where="conversation template")
    return template


def prepare_turns(turns: Sequence[Turn]) -> list[Turn]:
    """Bring turns to the form that the release trains on.

    A leading turn of the assistant is left out. A turn with image tags loses them all and its outer blanks, and gets
    one tag and a line break before its text.

    Raises:
        RecordError: the turns do not alternate, or the last is not the assistant's.
    """
    prepared = []
    for turn in turns[1:] if turns and turns[0].speaker == "gpt" else turns:
        text = turn.text
        if IMAGE_PLACEHOLDER in text:
            text = f"{IMAGE_PLACEHOLDER}\n{text.replace(IMAGE_PLACEHOLDER, '').strip()}"
        prepared.append(Turn(turn.speaker, text))
    speakers = [turn.speaker for turn in prepared]
    if not prepared or speakers != ["human", "gpt"] * (len(prepared) // 2):
        found = ", ".join(speakers) or "no turns"
        raise RecordError("turn-order", f"found {found}; expected human and gpt in turn, gpt last")
    return prepared


def render(turns: Sequence[Turn], template: ReleaseTemplate) -> str:
    """The text of a whole conversation, up to the end of the last answer."""
    return template.beginning + "".join(_render_turn(turn, template) for turn in turns)


def render_dialogue(turns: Sequence[Turn], template: ReleaseTemplate) -> str:
    """The text of turns of which the last is the user's, up to where the answer begins.

    Raises:
        RecordError: the turns do not alternate, or the last is not the user's.
    """
    return render(prepare_turns([*turns, Turn("gpt", "")])[:-1], template) + template.assistant


def encode_release_conversation(
    turns: Sequence[Turn], template: ReleaseTemplate, tokenizer: Tokenizer, num_image_positions: int
) -> Encoded:
    """Encode a conversation as the release does for training; labels are the answers and the tokens that end them.

    The release counts the ids of each turn by encoding it alone. Where its counts do not add up to the whole, it
    learns nothing of the conversation, and so do we: `num_labels` is 0. For Phi-3, whose tokenizer drops the line break
    after a special token and not at the beginning of a text, it corrects these counts by a number that depends on the
    tokenizer's version; we count on the text from its beginning, which needs no correction.

    Raises:
        RecordError: the turns do not alternate, or the last is not the assistant's.

    Source: release, `train_fsdp.py`, its routines for llama_3, v1, mpt and phi3. Unlike there, an image may stand in
    any turn of the user.
    """
    prepared = prepare_turns(turns)
    input_ids = encode_text(render(prepared, template), template, tokenizer, num_image_positions)
    labels = [IGNORE_LABEL] * len(input_ids)
    end = counted = 0 if template.bos_token is None else 1
    text = template.beginning
    for question, answer in zip(prepared[::2], prepared[1::2], strict=True):
        text += _render_turn(question, template) + template.assistant
        learned_from = counted + _count(text, template, tokenizer, num_image_positions)
        text += f"{template.answer_gap}{answer.text}{template.assistant_end}"
        end = counted + _count(text, template, tokenizer, num_image_positions)
        labels[learned_from:end] = input_ids[learned_from:end]
        if template.counts == "turns":
            text, counted = "", end
    if end != len(input_ids):
        labels = [IGNORE_LABEL] * len(input_ids)
    return Encoded(input_ids, labels)


def encode_text(text: str, template: ReleaseTemplate, tokenizer: Tokenizer, num_image_positions: int) -> list[int]:
    """Encode the stretches between image tags one by one, with IMAGE_TOKEN_ID at every position of an image."""
    ids = [] if template.bos_token is None else [tokenizer.token_id(template.bos_token)]
    for index, stretch in enumerate(text.split(IMAGE_PLACEHOLDER)):
        if index:
            ids += [IMAGE_TOKEN_ID] * num_image_positions
        ids += tokenizer.encode(stretch)
    return ids


def _count(text: str, template: ReleaseTemplate, tokenizer: Tokenizer, num_image_positions: int) -> int:
    """How many ids a part of a conversation has when it is encoded alone, without a beginning."""
    has_bos = template.bos_token is not None
    return len(encode_text(text, template, tokenizer, num_image_positions)) - has_bos


def _render_turn(turn: Turn, template: ReleaseTemplate) -> str:
    if turn.speaker == "human":
        return f"{template.user}{turn.text}{template.user_end}"
    return f"{template.assistant}{template.answer_gap}{turn.text}{template.assistant_end}"
