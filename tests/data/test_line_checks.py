from __future__ import annotations

from itertools import combinations
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cambrian.data.duplicates import text_key
from cambrian.data.line_checks import check_lines, number_sources
from cambrian.data.lines import lines_schema
from cambrian.interfaces import Turn

HUMAN = [{"from": "human", "value": "a"}]


def decoded(question: str, *answers: str, image: str | None = None, **changes: Any) -> dict[str, Any]:
    texts = (question, *(answers or ["a cube"]))
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    return {"id": "1", "source": "S", "image": image, "conversations": turns} | changes


def check(lines: list[dict[str, Any]]) -> tuple[list[bool], list[int]]:
    lines_read = number_sources(pa.Table.from_pylist(lines, lines_schema()), pa.array(["R", "S"]))
    is_plain, keys = check_lines(lines_read)
    return is_plain.tolist(), keys.tolist()


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        (decoded("What  is\nit ?"), decoded("what is it ?", "A CUBE"), True),
        (decoded("GRÖSSE\u00a0?"), decoded("grösse ?"), True),
        (decoded("25 \u212a"), decoded("25 k"), True),  # the kelvin sign's small letter is a common k
        (decoded("\u0391\u03a3", "\u03b1"), decoded("\u03b1\u03c2", "\u03b1"), True),  # a sigma at a turn's end
        (decoded("a \0 b"), decoded("A\0B"), True),
        (decoded("a\u00e9"), decoded("a\u00c9"), True),
        (decoded("\u6771", "\u00e9"), decoded("\u6771", "\u00c9"), True),  # the next line begins with another letter
        (decoded("a", "b"), decoded("b", "a"), False),
        (decoded("what is it ?"), decoded("what is it"), False),
        (decoded("größe ?"), decoded("grosse ?"), False),
    ],
)
def test_the_key_of_words_ignores_case_and_space_only(
    one: dict[str, Any], other: dict[str, Any], are_equal: bool
) -> None:
    _, (first, *_, second) = check([one, decoded("größe"), other])
    assert (first == second) is are_equal


LETTERS = st.text("aA \n\0\u00a0éÉßẞ東İ\u0307\u212akΣσςЖж\u2028", max_size=6)


@given(st.lists(st.lists(LETTERS, min_size=2, max_size=2), min_size=2, max_size=6))
@settings(max_examples=50, deadline=None)
def test_conversations_of_the_same_words_have_the_same_key_whatever_stands_beside_them(texts: list[list[str]]) -> None:
    _, keys = check([decoded(*pair) for pair in texts])
    for pair, key in zip(texts, keys, strict=True):
        assert check([decoded(*pair)])[1] == [key]
    words = [text_key([Turn("human", one), Turn("gpt", other)]) for one, other in texts]
    for first, second in combinations(range(len(texts)), 2):
        if words[first] == words[second]:
            assert keys[first] == keys[second]


def test_a_doubtful_line_does_not_touch_the_lines_beside_it() -> None:
    lines = {
        "marker and a line": (decoded("<image>\nWhat ?", image="a/1.png"), True),
        "marker alone": (decoded("<image>", image="2.png"), False),
        "marker and blanks": (decoded("<image> \t ", image="2.png"), False),
        "marker, blanks and a word": (decoded("<image> \t x", image="2.png"), True),
        "marker between words": (decoded("größe <image> ?", image="3.png"), True),
        "marker without an image": (decoded("what <image> ?"), False),
        "marker in two turns' halves": (decoded("what <ima", "ge> ?", image="3.png"), False),
        "two markers": (decoded("<image><image> what ?", image="3.png"), False),
        "unusual space": (decoded(" \u3000"), False),
        "unusual space and a word": (decoded("\u3000東"), True),
        "other letters": (decoded("東京 ?", "\0 b"), True),
        "image outside": (decoded("What ?", "<image>", image="../6.png"), False),
        "no turns": (decoded("", conversations=[]), False),
        "no conversation": (decoded("", conversations=None), False),
        "no text": (decoded(""), False),
        "empty answer": (decoded("what ?", ""), False),
        "three turns": (decoded("what ?", "a cube", "and then ?"), False),
        "four turns": (decoded("what ?", "a cube", "and then ?", "b"), True),
        "null turn": (decoded("what ?", conversations=[None, {"from": "gpt", "value": "b"}]), False),
        "null text": (decoded("", conversations=[{"from": "human"}, {"from": "gpt", "value": "b"}]), False),
        "null speaker": (decoded("", conversations=[{"value": "a"}, {"from": "gpt", "value": "b"}]), False),
        "other speaker": (decoded("", conversations=[{"from": "user", "value": "a"}] * 2), False),
        "one speaker twice": (decoded("", conversations=HUMAN * 2), False),
        "answer first": (decoded("", conversations=[{"from": "gpt", "value": "a"}, *HUMAN]), False),
        "no id": (decoded("what ?", id=None), False),
        "blank id": (decoded("what ?", id=" "), False),
        "other source": (decoded("what ?", source="T"), False),
        "no source": (decoded("what ?", source=None), False),
        "marker in the answer": (decoded("and then ?", "<image>", image="9.png"), True),
    }  # fmt: skip
    is_plain, _ = check([line for line, _ in lines.values()])
    assert dict(zip(lines, is_plain, strict=True)) == {name: expected for name, (_, expected) in lines.items()}
