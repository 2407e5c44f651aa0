"""The word-level tokenizer of an LLM that is trained here."""

from collections.abc import Sequence
from pathlib import Path

PAD, UNKNOWN, USER, END = "<pad>", "<unk>", "<user>", "<end>"
SPECIAL_TOKENS = (PAD, UNKNOWN, USER, END)
"""In the order of their ids."""


def token_ids(vocabulary: Sequence[str]) -> dict[str, int]:
    """The id of every token: the special ones, then the words in the vocabulary's order.

    Raises:
        ValueError: a word is one of the special tokens, or has white space in it and could never be found.
    """
    wrong = [word for word in vocabulary if word in SPECIAL_TOKENS or word.split() != [word]]
    if wrong:
        raise ValueError(f"the vocabulary holds {wrong[:5]}: expected words without white space, no special token")
    return {token: index for index, token in enumerate([*SPECIAL_TOKENS, *vocabulary])}


def write_tokenizer(folder: Path, vocabulary: Sequence[str], *, max_num_tokens: int) -> None:
    """Write `tokenizer.json` and its configuration, as `transformers.AutoTokenizer` reads them.

    A text is cut at white space and nowhere else, so decoding gives the words back with single spaces.
    """
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel(token_ids(vocabulary), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        extra_special_tokens=[USER],
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=max_num_tokens,
    ).save_pretrained(folder)
