import struct
from pathlib import Path

import pytest

from cambrian.interfaces import ArtifactError
from cambrian.release.sentencepiece import read_sentencepiece

BLANK = "\u2581"


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def piece(text: str, score: float, kind: int = 1) -> bytes:
    return field(1, field(1, text.encode()) + b"\x15" + struct.pack("<f", score) + field(3, kind))


def write_model(path: Path, *, model_type: int = 2, removes_blanks: int = 0) -> Path:
    pieces = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    pieces += [(f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)]
    texts = ["ab", f"{BLANK}ab", "bc", BLANK, "a", "b", "c"]
    pieces += [(text, -float(rank), 1) for rank, text in enumerate(texts)]
    data = b"".join(piece(*one) for one in pieces)
    data += field(2, field(3, model_type)) + field(3, field(1, b"identity") + field(4, removes_blanks))
    path.write_bytes(data)
    return path


def tokens(path: Path, text: str, *added: str) -> list[str]:
    tokens: list[str] = read_sentencepiece(path, added).encode(text, add_special_tokens=False).tokens
    return tokens


def test_the_best_pieces_are_joined_first(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tokenizer.model")
    assert tokens(path, "abc") == [f"{BLANK}ab", "c"]
    assert tokens(path, "cbc") == [BLANK, "c", "bc"]


def test_blanks_are_kept(tmp_path: Path) -> None:
    assert tokens(write_model(tmp_path / "m"), "a  b ") == [BLANK, "a", BLANK, BLANK, "b", BLANK]


def test_unknown_characters_become_bytes(tmp_path: Path) -> None:
    assert tokens(write_model(tmp_path / "m"), "é\n") == [BLANK, "<0xC3>", "<0xA9>", "<0x0A>"]


def test_every_stretch_between_special_tokens_begins_with_a_blank(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m")
    assert tokens(path, "a</s>ab<|im_end|>c", "<|im_end|>") == [
        BLANK, "a", "</s>", f"{BLANK}ab", "<|im_end|>", BLANK, "c",
    ]  # fmt: skip


def test_added_tokens_get_the_next_ids(tmp_path: Path) -> None:
    backend = read_sentencepiece(write_model(tmp_path / "m"), ["<x>", "<y>"])
    assert [backend.token_to_id(token) for token in ("<unk>", "<s>", "c", "<x>", "<y>")] == [0, 1, 265, 266, 267]


def test_ids_become_text_again(tmp_path: Path) -> None:
    backend = read_sentencepiece(write_model(tmp_path / "m"))
    assert backend.decode(backend.encode("ab é c", add_special_tokens=False).ids) == "ab é c"


@pytest.mark.parametrize("changes", [{"model_type": 1}, {"removes_blanks": 1}])
def test_another_kind_of_model_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(ArtifactError, match=r"expected a BPE model \(type 2\) that keeps its text"):
        read_sentencepiece(write_model(tmp_path / "m", **changes))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match="is not a SentencePiece model"):
        read_sentencepiece(path)
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_sentencepiece(tmp_path / "absent")
