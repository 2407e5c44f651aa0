from __future__ import annotations

import pytest

from cambrian.data.line_checks import DecodedLine, DecodedTurn, check_lines


def decoded(question: str, answer: str = "a cube", *, image: str | None = None) -> DecodedLine:
    return DecodedLine("1", "S", [DecodedTurn("human", question), DecodedTurn("gpt", answer)], image)


@pytest.mark.parametrize(
    ("one", "other", "are_equal"),
    [
        (decoded("What  is\nit ?"), decoded("what is it ?", "A CUBE"), True),
        (decoded("GRÖSSE\u00a0?"), decoded("grösse ?"), True),
        (decoded("25 \u212a"), decoded("25 k"), True),  # the kelvin sign's small letter is a common k
        (decoded("a \0 b"), decoded("A\0B"), True),
        (decoded("a", "b"), decoded("b", "a"), False),
        (decoded("what is it ?"), decoded("what is it"), False),
    ],
)
def test_the_key_of_words_ignores_case_and_space_only(one: DecodedLine, other: DecodedLine, are_equal: bool) -> None:
    _, (first, *_, second) = check_lines([one, decoded("größe"), other], {"S"})
    assert bool(first == second) is are_equal


def test_a_doubtful_line_does_not_touch_the_lines_beside_it() -> None:
    lines = [
        decoded("<image>\nWhat ?", image="a/1.png"),
        decoded("<image>", image="2.png"),
        decoded("größe <image> ?", image="3.png"),
        decoded("what <image> ?"),
        decoded(" \u3000"),
        decoded("東京 ?", "\0 b"),
        decoded("What ?", "<image>", image="../6.png"),
        DecodedLine("7", "S", [], None),
        decoded(""),
        decoded("and then ?", "<image>", image="9.png"),
    ]
    is_plain, _ = check_lines(lines, {"S"})
    assert is_plain.tolist() == [True, False, True, False, False, True, False, False, False, True]
