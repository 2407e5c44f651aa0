"""Checks of many decoded lines at once: on the bytes of all their texts together, not record by record."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from cambrian.data.duplicates import squeeze_text
from cambrian.interfaces import IMAGE_PLACEHOLDER

if TYPE_CHECKING:
    import pyarrow as pa
    from jaxtyping import Bool, Int64, UInt8, UInt64

_MARKER = IMAGE_PLACEHOLDER.encode()
_SMALL_LETTERS = bytes(range(256)).lower()
_SPACE, _NEWLINE = 0x20, 0x0A
_UP_TO_SPACE = bytes(range(_SPACE + 1))
_MAY_BE_SPACE = np.isin(np.arange(256), [*_UP_TO_SPACE, 0xC2, 0xE1, 0xE2, 0xE3])
"""First bytes of all characters that Python takes for white space, and of some others."""
_FIRST_FOREIGN, _WORD_BITS = 0x80, 64
_SPEAKERS = ("human", "gpt")
_KINDS = (np.int32, np.uint8)
"""Of the two buffers of an array of texts: where each begins, and their bytes."""


@dataclass(slots=True)
class _Texts:
    """The texts of many lines, one after the other, as UTF-8."""

    bytes: UInt8[np.ndarray, " bytes"]
    starts: Int64[np.ndarray, " texts"]
    ends: Int64[np.ndarray, " texts"]
    lines: Int64[np.ndarray, " texts"]
    """To which line each belongs."""
    is_first: Bool[np.ndarray, " texts"]
    """Of its line."""
    line_ends: Int64[np.ndarray, " lines"]

    def read(self, number: int) -> str:
        """One text."""
        return self.bytes[self.starts[number] : self.ends[number]].tobytes().decode()


def number_sources(decoded: pa.Table, known_sources: pa.StringArray) -> pa.Table:
    """Decoded lines in one chunk, each source by its place among the known ones; -1 where it is none of them."""
    import pyarrow.compute as pc

    decoded = decoded.combine_chunks()
    codes = pc.index_in(decoded.column("source"), known_sources, skip_nulls=True).fill_null(-1)
    return decoded.set_column(decoded.column_names.index("source"), "source", codes)


def check_lines(lines: pa.Table) -> tuple[Bool[np.ndarray, " lines"], UInt64[np.ndarray, " lines"]]:
    """Which lines with numbered sources are usable beyond doubt, and a key of each line's words.

    Keys are equal for words that differ only in case and white space, and for few others. A line about which anything
    is unusual counts as doubtful; it may still be usable.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    ids, images, conversations = (lines.column(name).combine_chunks() for name in ("id", "image", "conversations"))
    texts, num_turns = _cut(conversations)
    is_plain = (num_turns > 0) & (num_turns % 2 == 0) & (lines.column("source").to_numpy() >= 0)
    places = np.arange(len(texts.lines)) - np.repeat(np.cumsum(num_turns) - num_turns, num_turns)
    speakers = pc.index_in(conversations.flatten().field("from"), pa.array(_SPEAKERS), skip_nulls=True)
    is_plain[texts.lines[speakers.fill_null(len(_SPEAKERS)).to_numpy() != places % 2]] = False
    is_plain &= _begin_with_a_letter(ids)
    is_plain &= _are_safe(images)
    _check_texts(texts, images.is_valid().to_numpy(zero_copy_only=False), is_plain)
    return is_plain, _key_words(texts)


def is_safe_name(name: str) -> bool:
    """Whether an image's name stays within a folder, wherever the folder is."""
    return (
        bool(name.strip()) and name[0] != "/" and "\\" not in name and "\0" not in name and ".." not in name.split("/")
    )


def _cut(conversations: pa.ListArray) -> tuple[_Texts, Int64[np.ndarray, " lines"]]:
    """The texts of all turns, and the number of turns of each line; a turn that is not there has no bytes."""
    num_turns = np.diff(conversations.offsets.to_numpy()).astype(np.int64)
    values = conversations.flatten().field("value")
    offsets, data = (
        np.frombuffer(buffer or b"", kind) for buffer, kind in zip(values.buffers()[1:], _KINDS, strict=True)
    )
    bounds = (
        offsets[values.offset : values.offset + len(values) + 1].astype(np.int64) if len(values) else np.zeros(1, int)
    )
    starts, ends = bounds[:-1] - bounds[0], bounds[1:] - bounds[0]
    is_first = np.zeros(len(ends), bool)
    is_first[(np.cumsum(num_turns) - num_turns)[num_turns > 0]] = True
    texts = _Texts(
        bytes=data[bounds[0] : bounds[-1]], starts=starts, ends=ends, is_first=is_first,
        lines=np.repeat(np.arange(len(num_turns)), num_turns),
        line_ends=np.concatenate([[0], ends])[np.cumsum(num_turns)],
    )  # fmt: skip
    return texts, num_turns


def _check_texts(texts: _Texts, has_image: Bool[np.ndarray, " lines"], is_plain: Bool[np.ndarray, " lines"]) -> None:
    """Look for texts without words and for markers that do not fit the images."""
    may_be_blank = _may_be_space_at(texts, texts.starts)
    for number in np.flatnonzero(may_be_blank).tolist():
        if not texts.read(number).strip():
            is_plain[texts.lines[number]] = False
    markers = _find_markers(texts.bytes)
    marked = np.searchsorted(texts.ends, markers, "right")
    is_whole = markers + len(_MARKER) <= texts.ends[marked]  # and not of one text's end and the next one's beginning
    markers, marked = markers[is_whole], marked[is_whole]
    is_plain &= np.bincount(texts.lines[marked], minlength=len(has_image)) == has_image
    # The first question must have words beside its marker. That is plain where it begins with a word, or with the
    # marker and, perhaps after one space or line, a word.
    is_doubtful = texts.is_first & may_be_blank
    leads = texts.is_first[marked] & (markers == texts.starts[marked])
    is_doubtful[marked[leads & ~_has_word(texts, markers + len(_MARKER), marked)]] = True
    for number in np.flatnonzero(is_doubtful).tolist():
        if not texts.read(number).replace(IMAGE_PLACEHOLDER, "").strip():
            is_plain[texts.lines[number]] = False


def _find_markers(found: UInt8[np.ndarray, " bytes"]) -> Int64[np.ndarray, " markers"]:
    places: Int64[np.ndarray, " markers"] = np.flatnonzero(found == _MARKER[0])
    places = places[places + len(_MARKER) <= len(found)]
    for number, code in enumerate(_MARKER):
        places = places[found[places + number] == code]
    return places


def _has_word(
    texts: _Texts, starts: Int64[np.ndarray, " places"], marked: Int64[np.ndarray, " places"]
) -> Bool[np.ndarray, " places"]:
    """Whether a word begins at a place of a text, or after one space or line's end there."""
    has_word = ~_may_be_space_at(texts, starts, marked)
    gaps = np.flatnonzero(~has_word & (starts < texts.ends[marked]))
    codes = texts.bytes[starts[gaps]]
    gaps = gaps[(codes == _SPACE) | (codes == _NEWLINE)]
    has_word[gaps] = ~_may_be_space_at(texts, starts[gaps] + 1, marked[gaps])
    return has_word


def _may_be_space_at(
    texts: _Texts, starts: Int64[np.ndarray, " places"], numbers: Int64[np.ndarray, " places"] | None = None
) -> Bool[np.ndarray, " places"]:
    """Whether there may be white space at a place of a text, or the text ends there."""
    ends = texts.ends if numbers is None else texts.ends[numbers]
    may_be = np.ones(len(starts), bool)
    is_within = starts < ends
    may_be[is_within] = _MAY_BE_SPACE[texts.bytes[starts[is_within]]]
    return may_be


def _begin_with_a_letter(ids: pa.StringArray) -> Bool[np.ndarray, " lines"]:
    """Which ids are there and begin with what is not white space."""
    import pyarrow as pa
    import pyarrow.compute as pc

    first = pc.binary_slice(ids.cast(pa.binary()), 0, 1)
    spaces = pa.array([b"", *(bytes([code]) for code in np.flatnonzero(_MAY_BE_SPACE).tolist())], pa.binary())
    is_letter = pc.and_(ids.is_valid(), pc.invert(pc.is_in(first, spaces)))
    return is_letter.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _are_safe(images: pa.StringArray) -> Bool[np.ndarray, " lines"]:
    import pyarrow as pa
    import pyarrow.compute as pc

    names = pc.unique(images.drop_null()).to_pylist()
    joined = "/".join(["", *names, ""])
    if joined.isascii() and joined.isprintable() and not any(sign in joined for sign in ("//", "/ ", "..", "\\")):
        return np.ones(len(images), bool)
    unsafe = [name for name in names if not is_safe_name(name)]
    return ~pc.is_in(images, pa.array(unsafe, pa.string())).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _key_words(texts: _Texts) -> UInt64[np.ndarray, " lines"]:
    """One number of all words of a line, whatever their case, without white space."""
    words = texts.bytes.tobytes()
    squeezed = words.translate(_SMALL_LETTERS, _UP_TO_SPACE)
    ends = texts.line_ends - _count_before(texts.bytes <= _SPACE, texts.line_ends)
    digest = xxhash.xxh3_64_intdigest
    pieces = [digest(squeezed[start:end]) for start, end in pairwise([0, *ends.tolist()])]
    for line in _find_foreign(texts, words):
        first, last = np.searchsorted(texts.lines, [line, line + 1]).tolist()
        whole = words[texts.starts[first] : texts.ends[last - 1]].decode()
        # The one letter whose small form depends on what follows, which must not be the next turn.
        spoken = [texts.read(number) for number in range(first, last)] if "\u03a3" in whole else [whole]
        pieces[line] = digest(b"".join(map(squeeze_text, spoken)).translate(None, _UP_TO_SPACE))
    return np.array(pieces, np.uint64)


def _find_foreign(texts: _Texts, words: bytes) -> list[int]:
    """Lines that ASCII's rules for white space and letters' case do not squeeze as Python does.

    Most letters beside ASCII are small or have no case, and stay as they are.
    """
    marks = np.flatnonzero(texts.bytes >= _FIRST_FOREIGN)
    lines = np.searchsorted(texts.line_ends, marks, "right")
    begins = (np.diff(marks, prepend=-2) > 1) | (np.diff(lines, prepend=-1) > 0)
    ends = marks[np.append(begins[1:], True)[: len(marks)]] + 1
    runs = [words[start:end].decode() for start, end in zip(marks[begins].tolist(), ends.tolist(), strict=True)]
    changed = {letter for letter in set("".join(runs)) if squeeze_text(letter) != letter.encode()}
    if not changed:
        return []
    return sorted({line for line, run in zip(lines[begins].tolist(), runs, strict=True) if not changed.isdisjoint(run)})


def _count_before(
    marks: Bool[np.ndarray, " bytes"], places: Int64[np.ndarray, " places"]
) -> Int64[np.ndarray, " places"]:
    """How many marks there are before each place."""
    packed = np.packbits(marks, bitorder="little")
    padded = np.zeros((len(packed) // 8 + 1) * 8, np.uint8)
    padded[: len(packed)] = packed
    groups = padded.view("<u8")
    before = np.concatenate([[0], np.cumsum(np.bitwise_count(groups), dtype=np.int64)])
    group, rest = places // _WORD_BITS, (places % _WORD_BITS).astype(np.uint64)
    within = groups[group] & ((np.uint64(1) << rest) - np.uint64(1))
    counts: Int64[np.ndarray, " places"] = before[group] + np.bitwise_count(within)
    return counts
