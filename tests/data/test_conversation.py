from __future__ import annotations

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cambrian.data.conversation import (
    TURNS,
    Encoded,
    PiecewiseTemplate,
    Template,
    encode_prompt,
    truncate,
    without_images,
)
from cambrian.data.tokenizer import Tokenizer
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, RecordError, Turn

TOKENS = ("<pad>", "<unk>", "<user>", "<assistant>", "<end>", "what", "colour", "red", "blue", "system", ":")
PAD, UNKNOWN, USER, ASSISTANT, END, WHAT, COLOUR, RED, BLUE, SYSTEM, COLON = range(len(TOKENS))
IMAGE, SKIP = IMAGE_TOKEN_ID, IGNORE_LABEL


def make_tokenizer() -> Tokenizer:
    backend = Backend(WordLevel({token: index for index, token in enumerate(TOKENS)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    return Tokenizer(backend, pad_token="<pad>", end_token="<end>")


TOKENIZER = make_tokenizer()


def encode(*texts: str, template: Template = TURNS, num_image_positions: int = 3) -> Encoded:
    turns = [Turn("gpt" if index % 2 else "human", text) for index, text in enumerate(texts)]
    return template.encode_conversation(turns, TOKENIZER, num_image_positions)


def test_only_the_answers_and_their_ends_are_learned() -> None:
    encoded = encode("<image>\nwhat colour", "red", "what", "blue blue")
    expected = [
        (USER, SKIP), (IMAGE, SKIP), (IMAGE, SKIP), (IMAGE, SKIP), (WHAT, SKIP), (COLOUR, SKIP),
        (RED, RED), (END, END),
        (USER, SKIP), (WHAT, SKIP), (BLUE, BLUE), (BLUE, BLUE), (END, END),
    ]  # fmt: skip
    assert list(zip(encoded.input_ids, encoded.labels, strict=True)) == expected
    assert encoded.num_labels == 5


def test_a_text_only_conversation_has_no_image_positions() -> None:
    assert encode("what", "red").input_ids == [USER, WHAT, RED, END]


def test_the_tag_may_stand_anywhere_in_its_turn_and_more_than_once() -> None:
    assert encode("what colour\n<image> <image>", "red") == encode("<image>\nwhat colour", "red")


def test_an_image_may_come_in_a_later_turn() -> None:
    ids = encode("what", "red", "<image> what", "blue", num_image_positions=1).input_ids
    assert ids == [USER, WHAT, RED, END, USER, IMAGE, WHAT, BLUE, END]


def test_a_leading_turn_of_the_assistant_is_left_out() -> None:
    turns = [Turn("gpt", "blue"), Turn("human", "what"), Turn("gpt", "red")]
    assert TURNS.encode_conversation(turns, TOKENIZER, 3) == encode("what", "red")


def test_a_template_with_more_around_the_turns_learns_no_more() -> None:
    template = PiecewiseTemplate(
        beginning="system :", user="<user> :", user_end="<end>", image_end=":", assistant="<assistant> :",
        assistant_end="<end>",
    )  # fmt: skip
    encoded = encode("<image> what", "red", template=template, num_image_positions=1)
    assert encoded.input_ids == [
        SYSTEM, COLON, USER, COLON, IMAGE, COLON, WHAT, END, ASSISTANT, COLON, RED, END,
    ]  # fmt: skip
    assert encoded.labels == [SKIP] * 10 + [RED, END]


@pytest.mark.parametrize("has_image", [True, False])
def test_a_prompt_is_the_conversation_up_to_its_answer(has_image: bool) -> None:
    prompt = encode_prompt("what colour", has_image, TURNS, TOKENIZER, 3)
    whole = encode("<image>\nwhat colour" if has_image else "what colour", "red").input_ids
    assert prompt == whole[:-2]


@pytest.mark.parametrize("speakers", [[], ["human"], ["human", "human", "gpt"], ["gpt"], ["human", "gpt", "human"]])
def test_turns_that_do_not_alternate_are_refused(speakers: list[str]) -> None:
    turns = [Turn("gpt" if speaker == "gpt" else "human", "what") for speaker in speakers]
    with pytest.raises(RecordError, match="expected human and gpt in turn") as error:
        TURNS.encode_conversation(turns, TOKENIZER, 3)
    assert error.value.reason == "turn-order"


def test_images_in_two_turns_are_refused() -> None:
    with pytest.raises(RecordError, match="2 turns have <image>"):
        encode("<image> what", "red", "<image> what", "blue")


def test_an_unknown_word_is_named() -> None:
    with pytest.raises(ValueError, match="'purple'"):
        encode("what", "purple")


def test_a_long_conversation_is_cut_on_the_right_and_the_cut_is_counted() -> None:
    encoded = encode("what", "red", "what", "blue")
    cut, num_cut = truncate(encoded, 7)
    assert (cut.input_ids, num_cut) == (encoded.input_ids[:7], 1)
    assert truncate(encoded, 10) == (encoded, 0)


@pytest.mark.parametrize(("max_length", "case"), [(2, "through the image"), (5, "before the answer")])
def test_a_cut_that_leaves_nothing_to_learn_is_refused(max_length: int, case: str) -> None:
    with pytest.raises(RecordError, match=f"max_length {max_length}") as error:
        truncate(encode("<image> what", "red"), max_length)
    assert error.value.reason == "too-long", case


def test_a_cut_through_an_image_of_a_later_turn_is_refused() -> None:
    with pytest.raises(RecordError, match="no whole image"):
        truncate(encode("what", "red", "<image> what", "blue"), 7)


def test_a_conversation_without_a_label_is_refused_whatever_its_length() -> None:
    with pytest.raises(RecordError, match="3 positions and no label") as error:
        truncate(Encoded([USER, WHAT, RED], [SKIP] * 3), 10)
    assert error.value.reason == "nothing-to-learn"


def test_taking_images_away_leaves_other_turns_as_they_are() -> None:
    turns = [Turn("human", "<image>\nwhat"), Turn("gpt", " red "), Turn("human", "what\n"), Turn("gpt", "blue")]
    assert without_images(turns) == [Turn("human", "what"), *turns[1:]]
