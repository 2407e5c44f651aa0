from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cambrian.backbones.tokenizer import SPECIAL_TOKENS, token_ids, write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def test_special_tokens_come_first() -> None:
    assert token_ids(["a", "b"]) == {"<pad>": 0, "<unk>": 1, "<user>": 2, "<end>": 3, "a": 4, "b": 5}


@pytest.mark.parametrize("word", ["two words", "<pad>", ""])
def test_a_word_that_could_never_be_found_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match="the vocabulary holds"):
        token_ids(["a", word])


def test_transformers_reads_what_is_written(tmp_path: Path) -> None:
    from cambrian.models.torchvision_shim import declare_missing_operators

    declare_missing_operators()
    from transformers import AutoTokenizer

    write_tokenizer(tmp_path, ["a", "b."], max_num_tokens=64)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("<user> a\nb. c<end>").input_ids == [2, 4, 5, 1, 3]
    assert tokenizer.decode([4, 5]) == "a b."
    assert (tokenizer.pad_token, tokenizer.unk_token, tokenizer.eos_token) == ("<pad>", "<unk>", "<end>")
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [0, 1, 2, 3]
    assert tokenizer.model_max_length == 64
