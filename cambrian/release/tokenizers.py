"""Published tokenizers as one `tokenizer.json` with the names of their padding and end."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from cambrian.artifacts import read_json, write_json
from cambrian.interfaces import ArtifactError
from cambrian.release.sentencepiece import read_sentencepiece

if TYPE_CHECKING:
    from pathlib import Path


def write_tokenizer(folder: Path, source: Path, *, padding_token: str | None) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` from a publisher's folder.

    Padding is the tokenizer's own, else its unknown token, else `padding_token`.

    Raises:
        ArtifactError: there is no tokenizer, or it has no such tokens.
    """
    from tokenizers import Tokenizer

    values = read_json(source / "tokenizer_config.json")
    if (source / "tokenizer.json").is_file():
        shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    else:
        added = read_json(source / "added_tokens.json") if (source / "added_tokens.json").is_file() else {}
        pieces = read_sentencepiece(source / "tokenizer.model")
        new = sorted((token for token in added if pieces.token_to_id(token) is None), key=lambda token: added[token])
        read_sentencepiece(source / "tokenizer.model", new).save(str(folder / "tokenizer.json"))
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = _token(values.get("eos_token"))
    pad = _token(values.get("pad_token")) or _token(values.get("unk_token")) or padding_token
    if end is None or pad is None or None in (vocabulary.token_to_id(end), vocabulary.token_to_id(pad)):
        raise ArtifactError(
            f"{source}: the tokenizer ends with {end!r} and pads with {pad!r}, expected two tokens of its vocabulary: "
            "name them in tokenizer_config.json"
        )
    write_json(folder / "tokenizer_config.json", {"eos_token": end, "pad_token": pad})


def _token(entry: str | dict[str, str] | None) -> str | None:
    return entry["content"] if isinstance(entry, dict) else entry
