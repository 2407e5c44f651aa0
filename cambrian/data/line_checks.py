"""Checks of many decoded lines at once: on the bytes of all their texts together, not record by record."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np
import xxhash

from cambrian.data.duplicates import ASCII_WHITE_SPACE, squeeze_text
from cambrian.interfaces import IMAGE_PLACEHOLDER

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from jaxtyping import Bool, Int64, UInt8, UInt64

_MARKER = IMAGE_PLACEHOLDER.encode()
_SMALL_LETTERS = bytes(range(256)).lower()
_SPACE, _NEWLINE = 0x20, 0x0A
_PLACE_FACTOR = np.uint64(0x9E3779B97F4A7C15)


class DecodedTurn(msgspec.Struct, gc=False):
    """One turn as it stands in a line."""

    speaker: Literal["human", "gpt"] = msgspec.field(name="from")
    value: str


class DecodedLine(msgspec.Struct, gc=False):
    """What is read of a line."""

    id: str
    source: str
    conversations: list[DecodedTurn]
    image: str | None = None


_get_turns, _get_image = attrgetter("conversations"), attrgetter("image")
_get_id, _get_source = attrgetter("id"), attrgetter("source")
_get_speaker, _get_value = attrgetter("speaker"), attrgetter("value")


@dataclass(slots=True)
class _Texts:
    """The texts of many lines, one after the other; those that are not ASCII without white space and in small letters.

    White space and letters' case of a text that is not ASCII are Python's business, so such texts are looked at one by
    one; what is asked of their bytes here is only whether there are any.
    """

    texts: list[str]
    lines: Int64[np.ndarray, " texts"]
    """To which line each belongs."""
    places: Int64[np.ndarray, " texts"]
    """Its turn's number within the line."""
    is_foreign: Bool[np.ndarray, " texts"]
    joined: bytes
    """With a zero byte after each."""
    bytes: UInt8[np.ndarray, " bytes"]
    starts: Int64[np.ndarray, " texts"]
    ends: Int64[np.ndarray, " texts"]


def check_lines(
    decoded: Sequence[DecodedLine], known_sources: Collection[str]
) -> tuple[Bool[np.ndarray, " lines"], UInt64[np.ndarray, " lines"]]:
    """Which lines are usable beyond doubt, and a key of each line's words.

    Keys are equal for words that differ only in case and white space, and for few others. A line about which anything
    is unusual counts as doubtful; it may still be usable.
    """
    turns = list(chain.from_iterable(map(_get_turns, decoded)))
    num_turns = np.fromiter(map(len, map(_get_turns, decoded)), np.int64, len(decoded))
    texts = _join(list(map(_get_value, turns)), num_turns)
    is_plain = (num_turns > 0) & (num_turns % 2 == 0)
    is_answer = np.fromiter(map("gpt".__eq__, map(_get_speaker, turns)), bool, len(turns))
    is_plain[texts.lines[is_answer != (texts.places % 2 == 1)]] = False
    images = list(map(_get_image, decoded))
    is_plain &= np.fromiter(map(known_sources.__contains__, map(_get_source, decoded)), bool, len(decoded))
    is_plain &= np.fromiter(map(bool, map(str.strip, map(_get_id, decoded))), bool, len(decoded))
    is_plain &= _are_safe(images)
    if turns:
        _check_texts(texts, images, is_plain)
    return is_plain, _key_words(texts, num_turns)


def is_safe_name(name: str) -> bool:
    """Whether an image's name stays within a folder, wherever the folder is."""
    return (
        bool(name.strip()) and name[0] != "/" and "\\" not in name and "\0" not in name and ".." not in name.split("/")
    )


def _join(texts: list[str], num_turns: Int64[np.ndarray, " lines"]) -> _Texts:
    lines = np.repeat(np.arange(len(num_turns)), num_turns)
    places = np.arange(len(texts)) - np.repeat(np.cumsum(num_turns) - num_turns, num_turns)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    is_foreign = ~np.fromiter(map(str.isascii, texts), bool, len(texts))
    pieces = texts
    if is_foreign.any():
        pieces = texts.copy()
        for number in np.flatnonzero(is_foreign).tolist():
            squeezed = squeeze_text(texts[number])
            pieces[number] = squeezed.decode()
            lengths[number] = len(squeezed)
    joined = "\0".join([*pieces, ""]).encode()
    ends = np.cumsum(lengths + 1) - 1
    return _Texts(
        texts=texts, lines=lines, places=places, is_foreign=is_foreign, joined=joined,
        bytes=np.frombuffer(joined, np.uint8), starts=ends - lengths, ends=ends,
    )  # fmt: skip


def _check_texts(texts: _Texts, images: Sequence[str | None], is_plain: Bool[np.ndarray, " lines"]) -> None:
    """Look for texts without words and for markers that do not fit the images."""
    may_be_blank = texts.bytes[texts.starts] <= _SPACE  # the zero byte after it where a text is empty
    for number in np.flatnonzero(may_be_blank).tolist():
        if not texts.texts[number].strip():
            is_plain[texts.lines[number]] = False
    markers = _find_markers(texts.bytes)
    marked = np.searchsorted(texts.starts, markers, "right") - 1
    is_sure = ~texts.is_foreign[marked]
    markers, marked = markers[is_sure], marked[is_sure]
    counts = np.bincount(texts.lines[marked], minlength=len(images))
    for number in np.flatnonzero(texts.is_foreign).tolist():
        counts[texts.lines[number]] += texts.texts[number].count(IMAGE_PLACEHOLDER)
    is_plain &= counts == np.fromiter((image is not None for image in images), bool, len(images))
    # The first question must have words beside its marker. That is plain where it begins with a word, or with the
    # marker and, perhaps after one space or line, a word.
    is_first = texts.places == 0
    is_doubtful = is_first & (may_be_blank | texts.is_foreign)
    leads = is_first[marked] & (markers == texts.starts[marked])
    is_doubtful[marked[leads & ~_has_word(texts, markers + len(_MARKER), texts.ends[marked])]] = True
    for number in np.flatnonzero(is_doubtful).tolist():
        if not texts.texts[number].replace(IMAGE_PLACEHOLDER, "").strip():
            is_plain[texts.lines[number]] = False


def _find_markers(found: UInt8[np.ndarray, " bytes"]) -> Int64[np.ndarray, " markers"]:
    places: Int64[np.ndarray, " markers"] = np.flatnonzero(found == _MARKER[0])
    places = places[places + len(_MARKER) <= len(found)]
    for number, code in enumerate(_MARKER):
        places = places[found[places + number] == code]
    return places


def _has_word(
    texts: _Texts, starts: Int64[np.ndarray, " places"], ends: Int64[np.ndarray, " places"]
) -> Bool[np.ndarray, " places"]:
    """Whether a word begins at a place of a text, or after one space or line's end there."""
    first = texts.bytes[starts]  # the zero byte where the text ends here
    second = texts.bytes[np.minimum(starts + 1, ends)]
    is_gap = (first == _SPACE) | (first == _NEWLINE)
    has_word: Bool[np.ndarray, " places"] = (first > _SPACE) | (is_gap & (second > _SPACE))
    return has_word


def _are_safe(images: Sequence[str | None]) -> Bool[np.ndarray, " lines"]:
    joined = "/".join(["", *(image for image in images if image is not None), ""])
    if joined.isascii() and joined.isprintable() and not any(sign in joined for sign in ("//", "/ ", "..", "\\")):
        return np.ones(len(images), bool)
    return np.fromiter((image is None or is_safe_name(image) for image in images), bool, len(images))


def _key_words(texts: _Texts, num_turns: Int64[np.ndarray, " lines"]) -> UInt64[np.ndarray, " lines"]:
    """One number of all turns of a line: each turn's hash, times an odd factor of its place, added up."""
    squeezed = texts.joined.translate(_SMALL_LETTERS, ASCII_WHITE_SPACE).split(b"\0")[:-1]
    if len(squeezed) != len(texts.texts):  # a text has a zero byte of its own
        squeezed = [squeeze_text(text) for text in texts.texts]
    digests = np.frombuffer(b"".join(map(xxhash.xxh3_64_digest, squeezed)), ">u8").astype(np.uint64)
    digests *= (2 * texts.places + 1).astype(np.uint64) * _PLACE_FACTOR
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(digests, dtype=np.uint64)])
    ends = np.cumsum(num_turns)
    return sums[ends] - sums[ends - num_turns]  # type: ignore[no-any-return]
