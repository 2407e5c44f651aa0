"""How alike two samples are: exact keys of text and bytes, and difference hashes of images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import numpy as np
import xxhash
from pydantic import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jaxtyping import Bool, UInt64
    from PIL.Image import Image

    from cambrian.interfaces import Turn

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole."""

HashSide = Annotated[int, Field(gt=0, multiple_of=4)]
"""A difference hash has so many bits squared; a multiple of 4 fills whole bytes."""

_BITS_PER_BYTE = 8
ASCII_WHITE_SPACE = bytes(code for code in range(128) if chr(code).isspace())
"""What Python takes for white space in a text of ASCII."""


def text_key(turns: Sequence[Turn]) -> str:
    """The identity of a conversation's words: equal for texts that differ only in case or white space."""
    words = "".join([f"{turn.speaker}\0{' '.join(turn.text.lower().split())}\0" for turn in turns])
    return xxhash.xxh3_128_hexdigest(words.encode())


def squeeze_text(text: str) -> bytes:
    """The text in small letters without white space: equal for all texts with one `text_key`, and for few others."""
    if text.isascii():
        return text.lower().encode().translate(None, ASCII_WHITE_SPACE)
    return "".join(text.lower().split()).encode()


def content_key(turns: Sequence[Turn], image_digest: str | None) -> str:
    """The identity of a sample: equal only for the same words and the same image bytes."""
    words = "".join([f"{turn.speaker}\0{turn.text}\0" for turn in turns])
    return xxhash.xxh3_128_hexdigest((words + (image_digest or "")).encode())


def hash_all(values: Iterable[bytes]) -> UInt64[np.ndarray, " values"]:
    """The 64-bit hash of each value."""
    return np.frombuffer(b"".join(map(xxhash.xxh3_64_digest, values)), ">u8").astype(np.uint64)


def find_repeated(keys: UInt64[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Which keys are there more than once."""
    order = np.argsort(keys)
    same = np.diff(keys[order]) == 0
    repeated = np.zeros(len(keys), bool)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return repeated


def spoken_keys(texts: Sequence[str], image_digest: str | None) -> tuple[str, str]:
    """`text_key` and `content_key` of a conversation of these texts, in turn a person's and the model's."""
    speakers = ("human", "gpt") * (len(texts) // 2)
    words = "".join([f"{who}\0{' '.join(text.lower().split())}\0" for who, text in zip(speakers, texts, strict=True)])
    content = "".join([f"{who}\0{text}\0" for who, text in zip(speakers, texts, strict=True)]) + (image_digest or "")
    return xxhash.xxh3_128_hexdigest(words.encode()), xxhash.xxh3_128_hexdigest(content.encode())


def difference_hash(image: Image, side: int) -> bytes:
    """Hash a picture by which pixels are brighter than their right neighbour in a grey thumbnail of side + 1 x side.

    Returns side**2 bits, packed row by row.

    Raises:
        ValueError: side**2 is not a multiple of 8.

    Source: paper, appendix on data leakage (difference hashing of test images).
    """
    if side**2 % _BITS_PER_BYTE:
        raise ValueError(f"hash side is {side}: expected a multiple of 4, so that the bits fill whole bytes")
    from PIL.Image import Resampling

    grey = np.asarray(image.convert("L").resize((side + 1, side), Resampling.BILINEAR))
    return np.packbits(grey[:, 1:] < grey[:, :-1]).tobytes()


def hash_distance(left: bytes, right: bytes) -> int:
    """The number of bits in which two hashes of one length differ."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).bit_count()


class HashIndex:
    """Finds every stored hash within a distance, without comparing all pairs.

    Two hashes that differ in at most d bits agree wholly in at least one of d + 1 bands, so only those that share a
    band are compared; the answer is exact.
    """

    def __init__(self, max_distance: int) -> None:
        self._max_distance = max_distance
        self._hashes: list[bytes] = []
        self._bands: dict[tuple[int, bytes], list[int]] = {}

    def add(self, value: bytes) -> None:
        """Store a hash; its number is how many were stored before it."""
        for band in self._iter_bands(value):
            self._bands.setdefault(band, []).append(len(self._hashes))
        self._hashes.append(value)

    def find(self, value: bytes) -> list[int]:
        """The numbers of all stored hashes within the distance, in the order in which they were stored."""
        candidates = {number for band in self._iter_bands(value) for number in self._bands.get(band, ())}
        return sorted(
            number for number in candidates if hash_distance(self._hashes[number], value) <= self._max_distance
        )

    def _iter_bands(self, value: bytes) -> Iterator[tuple[int, bytes]]:
        num_bands = self._max_distance + 1
        if num_bands > len(value):
            yield 0, b""  # no band would hold a whole byte: one band of nothing, which compares all pairs
            return
        for band in range(num_bands):
            yield band, value[band * len(value) // num_bands : (band + 1) * len(value) // num_bands]
