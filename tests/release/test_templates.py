from pathlib import Path

import pytest
from tokenizers import AddedToken, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from cambrian.data.conversation import TURNS, encode_prompt
from cambrian.data.tokenizer import Tokenizer
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, ParamsError, RecordError, Turn
from cambrian.release.sentencepiece import read_sentencepiece
from cambrian.release.templates import (
    RELEASE_TEMPLATES,
    encode_release_conversation,
    find_release_template,
    find_template,
    prepare_turns,
    render,
    render_dialogue,
)
from tests.release.test_sentencepiece import write_model


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    added = ["<|im_start|>", "<|im_end|>", "<|end|>"]
    return Tokenizer(read_sentencepiece(write_model(tmp_path / "m"), added), pad_token="<unk>", end_token="</s>")


def conversation(*texts: str) -> list[Turn]:
    return [Turn("gpt" if index % 2 else "human", text) for index, text in enumerate(texts)]


@pytest.mark.parametrize("name", ["vicuna_v1", "chatml_direct", "phi3"])
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
    assert whole.startswith(render_dialogue(turns[:1], template))
    assert whole.endswith(f"c{template.assistant_end}")


def test_a_prompts_ids_are_those_of_training(tokenizer: Tokenizer) -> None:
    template = find_release_template("chatml_direct")
    encoded = encode_release_conversation(conversation("<image>\nab", "c"), template, tokenizer, 2)
    prompt = encode_prompt("ab", True, template, tokenizer, 2)
    assert encoded.input_ids[: len(prompt)] == prompt
    assert IMAGE_TOKEN_ID not in encode_prompt("ab", False, template, tokenizer, 2)


def test_tags_are_brought_to_the_front_of_their_turn() -> None:
    turns = prepare_turns(conversation(" look: <image> here <image> ", " kept "))
    assert [turn.text for turn in turns] == ["<image>\nlook:  here", " kept "]


def test_a_leading_answer_is_left_out() -> None:
    turns = prepare_turns([Turn("gpt", "hello"), *conversation("ab", "c")])
    assert [turn.text for turn in turns] == ["ab", "c"]


def test_turns_out_of_order_are_refused() -> None:
    with pytest.raises(RecordError, match="found human, human"):
        prepare_turns([Turn("human", "a"), Turn("human", "b")])


@pytest.mark.parametrize("swallows", [True, False], ids=["rstrip", "plain"])
def test_phi3_learns_its_answers_whether_or_not_line_breaks_after_special_tokens_are_dropped(swallows: bool) -> None:
    backend = Backend(models.WordLevel({"<unk>": 0, "<s>": 1, "\n": 2, "a": 3, "b": 4, "c": 5}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    names = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    backend.add_special_tokens([AddedToken(name, rstrip=swallows, normalized=False, special=True) for name in names])
    backend.add_special_tokens([AddedToken("You are a helpful AI assistant.", normalized=False, special=True)])
    tokenizer = Tokenizer(backend, pad_token="<s>", end_token="<|end|>")
    turns = conversation("<image>\na", "b c", "c a", "b")
    encoded = encode_release_conversation(turns, find_release_template("phi3"), tokenizer, num_image_positions=2)
    end = tokenizer.token_id("<|end|>")
    assert [label for label in encoded.labels if label != IGNORE_LABEL] == [4, 5, end, 4, end]
    assert (encoded.input_ids.count(2) == 1) == swallows  # the line break after the image is never dropped
    assert all(label in (IGNORE_LABEL, token) for label, token in zip(encoded.labels, encoded.input_ids, strict=True))


def test_an_unknown_template_is_named_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="did you mean 'llama_3'"):
        find_release_template("llama3")


def test_templates_of_the_release_and_ours_are_found_by_name() -> None:
    assert find_template("turns") is TURNS
    assert all(find_template(name) is template for name, template in RELEASE_TEMPLATES.items())
    with pytest.raises(ParamsError, match="conversation template: unknown name 'turn'; did you mean 'turns'"):
        find_template("turn")
