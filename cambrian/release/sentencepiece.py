"""SentencePiece BPE models (`tokenizer.model`), read without the sentencepiece library."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import tokenizers

_SPACE = "\u2581"
"""What stands for a blank in the pieces."""

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Types of pieces, by the format."""

_BPE = 2
"""The format's `model_type` of a BPE model."""


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    score: float
    kind: int


def read_sentencepiece(path: Path, added_tokens: Sequence[str] = ()) -> tokenizers.Tokenizer:
    """Make a tokenizer that gives the ids of the release's slow Llama tokenizer, without a beginning or an end.

    Every stretch of text between two special tokens begins with a blank of its own (the tokenizer's "legacy" form).
    `added_tokens` get the ids after the model's own.

    Raises:
        ArtifactError: the file is missing, broken, or no BPE model with the identity normalizer.

    Source: the fields of sentencepiece_model.proto; transformers 4.37, `LlamaTokenizer` with `legacy=True`.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    pieces = _read_pieces(path)
    ids = {piece.text: index for index, piece in enumerate(pieces)}
    unknown = next((piece.text for piece in pieces if piece.kind == _UNKNOWN), None)
    backend = Tokenizer(
        models.BPE(ids, _merges(pieces, ids), unk_token=unknown, fuse_unk=True, byte_fallback="<0x00>" in ids)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = [piece.text for piece in pieces if piece.kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)]
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in [*special, *added_tokens]])
    return backend


def _merges(pieces: Sequence[_Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """Pairs of pieces that make another, the ones with the best score first."""
    ranked = []
    for piece in pieces:
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if left in ids and right in ids:
                ranked.append((-piece.score, ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(ranked)]


def _read_pieces(path: Path) -> list[_Piece]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error}): download the tokenizer's files") from error
    pieces: list[_Piece] = []
    model_type, normalizer = 1, {}
    try:
        for field, value in _fields(data):
            if field == 1:
                parts = dict(_fields(value))
                pieces.append(_Piece(parts[1].decode(), struct.unpack("<f", parts[2])[0], parts.get(3, 1)))
            elif field == 2:
                model_type = dict(_fields(value)).get(3, 1)
            elif field == 3:
                normalizer = dict(_fields(value))
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError, struct.error, ValueError) as error:
        raise ArtifactError(f"{path} is not a SentencePiece model ({error}): download it again") from error
    is_plain = not normalizer.get(2) and normalizer.get(3, 1) and not normalizer.get(4, 1)
    if not pieces or model_type != _BPE or not is_plain:
        raise ArtifactError(
            f"{path}: {len(pieces)} pieces, model type {model_type}, normalizer {normalizer.get(1, b'')!r}; expected a "
            "BPE model (type 2) that keeps its text, with a blank put first, as those of Llama and Yi are"
        )
    return pieces


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Fields of one protocol buffer message: numbers for varints, bytes for everything else."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        match key & 7:
            case 0:
                value: Any
                value, place = _varint(data, place)
            case 1:
                value, place = data[place : place + 8], place + 8
            case 2:
                length, place = _varint(data, place)
                value, place = data[place : place + length], place + length
            case 5:
                value, place = data[place : place + 4], place + 4
            case wire:
                raise ValueError(f"wire type {wire} at byte {place}")
        if place > len(data):
            raise ValueError("it ends in the middle of a field")
        yield key >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
