from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cambrian.data.duplicates import HashIndex, content_key, difference_hash, hash_distance, text_key
from cambrian.interfaces import Turn


def turns(*texts: str) -> tuple[Turn, ...]:
    return tuple(Turn(("human", "gpt")[number % 2], text) for number, text in enumerate(texts))


def ramp(*, rising: bool) -> Image.Image:
    row = np.arange(32, dtype=np.uint8) * 7
    return Image.fromarray(np.tile(row if rising else row[::-1], (32, 1)))


def test_a_falling_ramp_sets_every_bit_and_a_rising_one_none() -> None:
    assert difference_hash(ramp(rising=False), 8) == b"\xff" * 8
    assert difference_hash(ramp(rising=True), 8) == b"\x00" * 8


def test_brightness_and_size_do_not_change_the_hash() -> None:
    image = ramp(rising=False)
    brighter = image.point(lambda value: value // 2 + 60)
    assert difference_hash(brighter, 8) == difference_hash(image.resize((96, 96)), 8) == difference_hash(image, 8)


def test_colour_images_and_palettes_are_hashed_by_their_grey() -> None:
    image = ramp(rising=False)
    assert difference_hash(image.convert("RGB"), 8) == difference_hash(image.convert("P"), 8)


def test_a_side_that_fills_no_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="hash side is 6: expected a multiple of 4"):
        difference_hash(ramp(rising=True), 6)


def test_the_distance_is_the_number_of_different_bits() -> None:
    assert hash_distance(b"\xf0\x00", b"\x0f\x01") == 9


@pytest.mark.parametrize("max_distance", [0, 1, 2, 5, 7, 8, 20])
def test_the_index_finds_what_comparing_all_pairs_finds(max_distance: int) -> None:
    base = np.random.default_rng(0).integers(0, 256, (30, 8), dtype=np.uint8)
    flips = np.packbits(np.random.default_rng(1).random((300, 64)) < 0.06, axis=1)
    values = [bytes(row) for row in base[np.arange(300) % 30] ^ flips]
    index = HashIndex(max_distance)
    for value in values:
        index.add(value)
    num_found = 0
    for value in values:
        expected = [n for n, other in enumerate(values) if hash_distance(value, other) <= max_distance]
        assert index.find(value) == expected
        num_found += len(expected)
    assert num_found >= 300


def test_the_text_key_ignores_case_and_space_only() -> None:
    assert text_key(turns("What  is\nit ?", "A cube")) == text_key(turns("what is it ?", "a cube"))
    assert text_key(turns("what is it ?", "a cube")) != text_key(turns("what is it", "a cube"))


def test_where_a_turn_ends_is_part_of_the_keys() -> None:
    assert text_key(turns("a b", "c")) != text_key(turns("a", "b c"))
    assert content_key(turns("ab", "c"), None) != content_key(turns("a", "bc"), None)


def test_the_content_key_tells_images_apart() -> None:
    words = turns("what ?", "a cube")
    assert len({content_key(words, None), content_key(words, "1"), content_key(words, "2")}) == 3
