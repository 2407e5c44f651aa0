from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from cambrian.data.tokenizer import Tokenizer, read_tokenizer
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = ("<pad>", "<unk>", "<end>", "red", "cube")


def write_folder_of_llm(folder: Path, *, config: dict[str, object] | None = None, has_unknown: bool = True) -> None:
    tokens = [token for token in TOKENS if has_unknown or token != "<unk>"]
    backend = Backend(WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = WhitespaceSplit()
    backend.add_special_tokens(["<pad>", "<end>"])
    backend.save(str(folder / "tokenizer.json"))
    config = {"pad_token": "<pad>", "eos_token": "<end>"} if config is None else config
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    write_folder_of_llm(tmp_path)
    return read_tokenizer(tmp_path)


def test_words_become_their_ids_and_nothing_is_added(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("red  cube\nred") == [3, 4, 3]
    assert tokenizer.encode("") == []


def test_special_tokens_in_the_text_are_one_id_each(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("red <end>") == [3, 2]
    assert (tokenizer.pad_id, tokenizer.end_id, tokenizer.token_id("cube")) == (0, 2, 4)


def test_decoding_leaves_special_tokens_out(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([3, 4, 2, 0]) == "red cube"


def test_a_word_outside_the_vocabulary_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="'purple' in 'red purple cube' is not among the 5 words"):
        tokenizer.encode("red purple cube")


def test_a_word_outside_a_vocabulary_without_an_unknown_token_is_an_error_too(tmp_path: Path) -> None:
    write_folder_of_llm(tmp_path, has_unknown=False)
    with pytest.raises(ValueError, match="cannot encode 'purple'"):
        read_tokenizer(tmp_path).encode("purple")


def test_a_token_that_is_not_there_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no token '<image>'"):
        tokenizer.token_id("<image>")


def test_names_of_tokens_may_stand_in_objects_as_transformers_writes_them(tmp_path: Path) -> None:
    write_folder_of_llm(tmp_path, config={"pad_token": {"content": "<pad>"}, "eos_token": {"content": "<end>"}})
    assert read_tokenizer(tmp_path).end_id == 2


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is missing"):
        read_tokenizer(tmp_path)


def test_a_broken_tokenizer_file_says_so(tmp_path: Path) -> None:
    write_folder_of_llm(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json cannot be used"):
        read_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pad_token": "<pad>"}, "has no 'eos_token'"),
        ({"pad_token": "<pad>", "eos_token": "<eos>"}, "no token '<eos>'"),
    ],
)
def test_padding_and_end_must_be_named_and_known(tmp_path: Path, config: dict[str, object], message: str) -> None:
    write_folder_of_llm(tmp_path, config=config)
    with pytest.raises(ArtifactError, match=message):
        read_tokenizer(tmp_path)
