from pathlib import Path

import pytest

from cambrian.data.tokenizer import Tokenizer
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, ParamsError, RecordError, Turn
from cambrian.release.sentencepiece import read_sentencepiece
from cambrian.release.templates import (
    encode_release_conversation,
    encode_release_prompt,
    find_release_template,
    prepare_turns,
    render,
    render_prompt,
)
from tests.release.test_sentencepiece import write_model


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    added = ["<|im_start|>", "<|im_end|>", "<|end|>"]
    return Tokenizer(read_sentencepiece(write_model(tmp_path / "m"), added), pad_token="<unk>", end_token="</s>")


def conversation(*texts: str) -> list[Turn]:
    return [Turn("gpt" if index % 2 else "human", text) for index, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["vicuna_v1", "chatml_direct"])
def test_answers_and_their_ends_are_learned_and_nothing_else(tokenizer: Tokenizer, name: str) -> None:
    turns = conversation("<image>\nab", "b a", "c", " leading, trailing \n")
    template = find_release_template(name)
    encoded = encode_release_conversation(turns, template, tokenizer, num_image_positions=3)
    assert len(encoded.labels) == len(encoded.input_ids)
    assert encoded.input_ids.count(IMAGE_TOKEN_ID) == 3
    learned = [label for label in encoded.labels if label != IGNORE_LABEL]
    ends = [index for index, label in enumerate(learned) if label == tokenizer.token_id(template.assistant_end)]
    assert len(ends) == 2
    assert ends[-1] == len(learned) - 1
    assert tokenizer.decode(learned[: ends[0]]).strip() == "b a"
    assert tokenizer.decode(learned[ends[0] + 1 :]).strip() == "leading, trailing"
    assert all(label in (IGNORE_LABEL, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))


def test_an_image_may_stand_in_a_later_turn(tokenizer: Tokenizer) -> None:
    turns = conversation("ab", "b", "what? <image>", "c")
    encoded = encode_release_conversation(turns, find_release_template("vicuna_v1"), tokenizer, 2)
    assert encoded.num_labels > 0
    assert encoded.input_ids.count(IMAGE_TOKEN_ID) == 2


@pytest.mark.parametrize("name", ["llama_3", "vicuna_v1", "chatml_direct", "phi3"])
def test_a_prompt_is_the_beginning_of_the_conversation(name: str) -> None:
    template = find_release_template(name)
    turns = prepare_turns(conversation("<image>\nab", "c"))
    whole = render(turns, template)
    assert whole.startswith(render_prompt("<image>\nab", template))
    assert whole.endswith(f"c{template.assistant_end}")


def test_a_prompts_ids_are_those_of_training(tokenizer: Tokenizer) -> None:
    template = find_release_template("chatml_direct")
    encoded = encode_release_conversation(conversation("<image>\nab", "c"), template, tokenizer, 2)
    prompt = encode_release_prompt("ab", True, template, tokenizer, 2)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert IMAGE_TOKEN_ID not in encode_release_prompt("ab", False, template, tokenizer, 2)


def test_tags_are_brought_to_the_front_of_their_turn() -> None:
    turns = prepare_turns(conversation(" look: <image> here <image> ", " kept "))
    assert [turn.text for turn in turns] == ["<image>\nlook:  here", " kept "]


def test_a_leading_answer_is_left_out() -> None:
    turns = prepare_turns([Turn("gpt", "hello"), *conversation("ab", "c")])
    assert [turn.text for turn in turns] == ["ab", "c"]


def test_turns_out_of_order_are_refused() -> None:
    with pytest.raises(RecordError, match="found human, human"):
        prepare_turns([Turn("human", "a"), Turn("human", "b")])


def test_phi3s_labels_are_not_guessed(tokenizer: Tokenizer) -> None:
    with pytest.raises(ParamsError, match="can only be used for prompts"):
        encode_release_conversation(conversation("a", "b"), find_release_template("phi3"), tokenizer, 1)


def test_an_unknown_template_is_named_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="did you mean 'llama_3'"):
        find_release_template("llama3")
