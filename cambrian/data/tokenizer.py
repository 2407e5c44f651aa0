"""A checkpoint folder's tokenizer, without transformers around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian.artifacts import read_json
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import tokenizers

TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"


class Tokenizer:
    """Text to ids and back; adds no token that the text does not name."""

    def __init__(self, backend: tokenizers.Tokenizer, *, pad_token: str, end_token: str) -> None:
        self._backend = backend
        model = backend.model
        self._has_closed_vocabulary = type(model).__name__ == "WordLevel"
        self._unknown_id = backend.token_to_id(model.unk_token) if self._has_closed_vocabulary else None
        self.pad_id = self.token_id(pad_token)
        self.end_id = self.token_id(end_token)
        """What a generator stops on, beside the token that closes a template's turn."""

    def encode(self, text: str) -> list[int]:
        """The text's ids, with neither a beginning nor an end added.

        Raises:
            ValueError: a word is outside a word-level vocabulary; such a word is never read as `<unk>`.
        """
        try:
            encoding = self._backend.encode(text, add_special_tokens=False)
        except Exception as error:  # the backend raises this bare class when the vocabulary has no <unk> either
            raise ValueError(f"cannot encode {text!r}: {error}") from error
        ids: list[int] = encoding.ids
        if self._unknown_id is not None and self._unknown_id in ids:
            start, end = encoding.offsets[ids.index(self._unknown_id)]
            raise ValueError(
                f"{text[start:end]!r} in {text!r} is not among the {self._backend.get_vocab_size()} words of the "
                "vocabulary: add it where the vocabulary is made, or mend the text"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The ids' text; special tokens are left out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def token(self, token_id: int) -> str:
        """One token's text, special ones by their names; bytes that are no character alone are shown as U+FFFD."""
        text: str = self._backend.decode([token_id], skip_special_tokens=False)
        return text

    def token_id(self, token: str) -> int:
        """The id of one token.

        Raises:
            ValueError: the vocabulary has no such token.
        """
        token_id: int | None = self._backend.token_to_id(token)
        if token_id is None:
            raise ValueError(f"the tokenizer has no token {token!r} among its {self._backend.get_vocab_size()}")
        return token_id


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`, and the names of the padding and end tokens from `tokenizer_config.json`.

    Raises:
        ArtifactError: a file is missing or broken, or a token that it names is not in the vocabulary.
    """
    from tokenizers import Tokenizer as Backend

    path = folder / TOKENIZER_NAME
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: {folder} is not the folder of a language model")
    config = read_json(folder / CONFIG_NAME)
    try:
        backend = Backend.from_file(str(path))
        return Tokenizer(
            backend, pad_token=_token_name(config["pad_token"]), end_token=_token_name(config["eos_token"])
        )
    except KeyError as error:
        raise ArtifactError(f"{folder / CONFIG_NAME} has no {error}: it must name pad_token and eos_token") from error
    except Exception as error:  # the backend raises this bare class for a file that it cannot read
        raise ArtifactError(f"{path} cannot be used: {error}") from error


def _token_name(entry: str | dict[str, str]) -> str:
    """A token stands as its text or as an object with its text in `content`, as transformers writes both."""
    return entry if isinstance(entry, str) else entry["content"]
