from pathlib import Path

import pytest

from cambrian.chat.dialogue import Exchange, encode_dialogue
from cambrian.data.conversation import TURNS, Template, encode_prompt
from cambrian.data.tokenizer import Tokenizer, read_tokenizer
from cambrian.interfaces import IMAGE_TOKEN_ID, RecordError
from cambrian.release.sentencepiece import read_sentencepiece
from cambrian.release.templates import find_release_template
from tests.release.test_sentencepiece import write_model
from tests.training.tiny import write_tokenizer


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    write_tokenizer(tmp_path)
    return read_tokenizer(tmp_path)


@pytest.fixture
def pieces(tmp_path: Path) -> Tokenizer:
    names = ["<|im_start|>", "<|im_end|>"]
    return Tokenizer(read_sentencepiece(write_model(tmp_path / "m"), names), pad_token="<unk>", end_token="</s>")


def encode(
    tokenizer: Tokenizer,
    question: str,
    *exchanges: tuple[str, str],
    num_images: int = 1,
    template: Template = TURNS,
) -> list[int]:
    return encode_dialogue(
        [Exchange(*exchange) for exchange in exchanges],
        question,
        num_images=num_images,
        template=template,
        tokenizer=tokenizer,
        num_image_positions=3,
    )


@pytest.mark.parametrize("num_images", [0, 1])
def test_a_first_question_is_what_the_evaluation_asks(tokenizer: Tokenizer, num_images: int) -> None:
    ids = encode(tokenizer, " what colour ", num_images=num_images)
    assert ids == encode_prompt("what colour", num_images > 0, TURNS, tokenizer, 3)


@pytest.mark.parametrize("num_images", [0, 1])
def test_a_first_question_to_a_released_model_is_the_releases_prompt(pieces: Tokenizer, num_images: int) -> None:
    template = find_release_template("chatml_direct")
    ids = encode(pieces, "a b", num_images=num_images, template=template)
    assert ids == encode_prompt("a b", num_images > 0, template, pieces, 3)


def test_earlier_turns_stand_before_the_question_in_the_template(tokenizer: Tokenizer) -> None:
    ids = encode(tokenizer, "which", ("what colour is it", "it is red"), ("is it blue", "it"))
    text = "<user> what colour is it it is red <end> <user> is it blue it <end> <user> which"
    assert [id_ for id_ in ids if id_ != IMAGE_TOKEN_ID] == tokenizer.encode(text)
    assert ids[:5] == [tokenizer.token_id("<user>"), *[IMAGE_TOKEN_ID] * 3, tokenizer.token_id("what")]


def test_earlier_turns_of_a_released_model_end_as_they_were_trained_to(pieces: Tokenizer) -> None:
    template = find_release_template("chatml_direct")
    first = encode(pieces, "a", template=template)
    ids = encode(pieces, "b", ("a", "c"), template=template)
    assert ids[: len(first)] == first
    closed = ids[len(first) :]
    assert pieces.decode(closed[: closed.index(pieces.token_id("<|im_end|>"))]) == "c"
    assert ids[-len(pieces.encode(template.assistant)) :] == pieces.encode(template.assistant)


def test_several_images_stand_side_by_side_before_the_first_question(tokenizer: Tokenizer) -> None:
    assert encode(tokenizer, "which", ("what", "red"), num_images=2).count(IMAGE_TOKEN_ID) == 6


@pytest.mark.parametrize("question", ["<image> <image> what", "<image>\nwhat <image>"])
def test_markers_that_match_the_images_are_understood(tokenizer: Tokenizer, question: str) -> None:
    assert encode(tokenizer, question, num_images=2) == encode(tokenizer, "what", num_images=2)


@pytest.mark.parametrize(("num_markers", "num_images"), [(1, 0), (2, 1), (1, 2), (5, 2)])
def test_more_or_fewer_markers_than_images_name_both_numbers(
    tokenizer: Tokenizer, num_markers: int, num_images: int
) -> None:
    message = f"the question has {num_markers} <image>, the number of images is {num_images}: write one for each"
    with pytest.raises(RecordError, match=message):
        encode(tokenizer, "<image>" * num_markers + "what", num_images=num_images)


def test_a_marker_in_a_later_question_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(RecordError, match="all images stand before the first question"):
        encode(tokenizer, "<image> which", ("what", "red"))


def test_a_marker_that_the_model_wrote_is_no_image(pieces: Tokenizer) -> None:
    template = find_release_template("chatml_direct")
    assert encode(pieces, "b", ("a", "<image>c"), template=template).count(IMAGE_TOKEN_ID) == 3


@pytest.mark.parametrize("question", ["", " \n", "<image>"])
def test_an_empty_question_is_refused(tokenizer: Tokenizer, question: str) -> None:
    with pytest.raises(RecordError, match="the question is empty"):
        encode(tokenizer, question)


def test_a_word_outside_the_vocabulary_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(RecordError, match="'elephant' in 'what elephant' is not among") as error:
        encode(tokenizer, "what elephant")
    assert error.value.reason == "unknown-word"
