from __future__ import annotations

import pytest

from cambrian.evaluation.matching import (
    chosen_option,
    cut_announcement,
    first_word,
    match_choice,
    match_choice_or_number,
    match_contained,
    match_edits,
    match_first_word,
    match_number,
    match_phrase,
    match_same_word,
    match_vote,
    normalise,
    normalise_for_votes,
    parse_number,
)
from cambrian.interfaces import Item


def item(*answers: str, choices: tuple[str, ...] = ()) -> Item:
    return Item(
        id="X/0", benchmark="X", question="?", choices=choices, answers=answers, category="", group="0", image=None
    )


COLOURS = ("red", "blue", "green", "dark blue")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("B", 1),
        ("b.", 1),
        ("(B)", 1),
        ("( b )", 1),
        ("B. blue", 1),
        ("b) red", 1),  # the letter goes before the text that follows it
        ("blue", 1),
        ("Blue.", 1),
        ("the blue", 1),
        ("The answer is B.", 1),
        ("I first thought A. The answer is: (d)", 3),
        ("Answer: dark blue", 3),
        ("", None),
        ("   ", None),
        ("E", None),
        ("black", None),  # the release's rule makes this the letter b
        ("bird", None),
        ("a cat is red", None),
        ("ответ Б", None),
        ("...", None),
        ("blue or red", None),
    ],
)
def test_an_option_is_named_by_its_letter_or_its_text(reply: str, expected: int | None) -> None:
    assert chosen_option(reply, COLOURS) == expected


def test_an_option_that_is_a_letter_is_chosen_by_its_text() -> None:
    assert chosen_option("a", ("c", "b", "a")) == 2
    assert chosen_option("(c)", ("c", "b", "a")) == 0


def test_an_option_that_is_a_number_is_chosen_as_digits_or_word() -> None:
    assert chosen_option("three", ("2", "3")) == 1
    assert chosen_option("3", ("two", "three")) == 1


def test_an_option_that_contains_another_is_not_taken_for_it() -> None:
    assert chosen_option("blue", ("dark blue", "blue")) == 1
    assert chosen_option("dark blue", ("blue", "dark blue")) == 1


def test_a_choice_is_right_by_letter_or_text_only() -> None:
    question = item("blue", choices=COLOURS)
    assert [match_choice(reply, question) for reply in ("B", "blue", "A", "red", "", "dark blue")] == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("Yes.", "yes"),
        ("The answer is no.", "no"),
        ("answer: it is. Answer: Red ", "red"),
        ("", ""),
        ("My answer is: 4.5.", "4.5"),
    ],
)
def test_what_follows_the_last_announcement_is_the_answer(reply: str, expected: str) -> None:
    assert cut_announcement(reply) == expected


def test_yes_and_no_are_read_from_the_first_word() -> None:
    yes = item("Yes")
    replies = ("yes", "Yes, it is.", "YES.", "no", "", "yesterday", "I say yes", "да", "yes/no")
    assert [match_first_word(reply, yes) for reply in replies] == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert first_word("  No!  never") == "no"


def test_a_phrase_counts_whole_or_by_its_first_word() -> None:
    two = item("2")
    replies = ("2", "2.", "2 cars", "The answer is 2", "12", "")
    assert [match_phrase(reply, two) for reply in replies] == [1, 1, 1, 1, 0, 0]
    assert match_phrase("traffic light", item("Traffic light")) == 1
    assert match_phrase("B. a house", item("B")) == 1


def test_singular_and_plural_are_the_same_word() -> None:
    assert match_same_word("Dogs", item("dog")) == 1
    assert match_same_word("benches.", item("bench")) == 1
    assert match_same_word("grass", item("gras")) == 0
    assert match_same_word("hotdog", item("dog")) == 0
    assert match_same_word("", item("dog")) == 0
    assert match_same_word("bus", item("bu")) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", 12.0),
        ("-3.5", -3.5),
        ("1,234", 1234.0),
        ("50%", 50.0),
        ("$ 7", 7.0),
        ("seven", 7.0),
        (".5", 0.5),
        ("3.", 3.0),
        ("12 dogs", None),
        ("", None),
        ("-", None),
        ("1,23", None),
        ("nan", None),
        ("1e5", None),
        ("inf", None),
    ],
)
def test_numbers_are_read_strictly(text: str, expected: float | None) -> None:
    assert parse_number(text) == expected


@pytest.mark.parametrize(
    ("reply", "truth", "credit"),
    [
        ("105", "100", 1),
        ("95", "100", 1),
        ("105.1", "100", 0),
        ("94.9%", "100", 0),
        ("0", "0", 1),
        ("0.01", "0", 0),
        ("-100", "100", 0),
        ("red", "Red", 1),
        ("Reddish", "red", 0),
        ("", "3", 0),
        ("four", "4", 1),
        ("The answer is 4.", "4", 1),
        ("4 apples", "4", 0),
    ],
)
def test_a_number_may_be_five_percent_off(reply: str, truth: str, credit: float) -> None:
    assert match_number(reply, item(truth)) == credit


def test_open_questions_of_a_multiple_choice_set_are_matched_as_numbers() -> None:
    assert match_choice_or_number("B", item("4", choices=("3", "4"))) == 1
    assert match_choice_or_number("3.9", item("4")) == 1
    assert match_choice_or_number("3.9", item("4", choices=("3", "4"))) == 0


def test_ocr_answers_may_stand_anywhere_in_the_reply() -> None:
    sign = item("STOP", "stop sign")
    replies = ("It says Stop!", "stop", "STOP\nsign", "st op", "", "top")
    assert [match_contained(reply, sign) for reply in replies] == [1, 1, 1, 0, 0, 0]


def test_an_ocr_answer_of_one_character_stands_as_a_word() -> None:
    letter = item("O")
    assert [match_contained(reply, letter) for reply in ("o", "The letter O.", "two", "", "0")] == [1, 1, 0, 0, 0]
    assert match_contained("15", item("5")) == 0
    assert match_contained("5%", item("5")) == 1


def test_ten_annotators_vote_by_threes() -> None:
    votes = item(*["red"] * 2 + ["blue"] * 4 + ["dark red"] * 3 + ["two"])
    assert match_vote("Red.", votes) == pytest.approx((2 * (1 / 3) + 8 * (2 / 3)) / 10)
    assert match_vote("blue", votes) == 1
    assert match_vote("dark red", votes) == pytest.approx((3 * (2 / 3) + 7) / 10)
    assert match_vote("2", votes) == pytest.approx(0.3)
    assert match_vote("green", votes) == 0
    assert match_vote("", votes) == 0


def test_options_are_compared_without_marks_articles_and_number_words() -> None:
    assert normalise("The  Two dogs, and a cat!") == "2 dogs and cat"
    assert normalise("none") == "0"
    assert normalise("a") == "a"


def test_an_option_that_is_the_very_reply_goes_before_one_that_differs_in_its_marks() -> None:
    assert [chosen_option(reply, ("1.5", "15", "-15", "two", "2")) for reply in ("15", "1.5", "-15", "2")] == [
        1,
        0,
        2,
        4,
    ]
    assert chosen_option("15", ("1.5", "2.5")) == 0  # the release's ScienceQA drops the point; the strict rules do not


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Two dogs, and a cat!", "2 dogs and cat"),
        ("None", "0"),
        ("$1.50", "$1.50"),
        ("1,500", "1500"),
        ("50%", "50%"),
        ("12:30 p.m.", "12:30 pm"),
        (".5", ".5"),
        ("e.g.", "eg"),
        ("x-ray", "x ray"),
        ("- x-ray", "xray"),  # beside a blank somewhere, it goes everywhere
        ("and/or (both)", "and or both"),
        ("x/-y", "x y"),
        ("dont stop", "don't stop"),
        ("thats", "that's"),
        ("Tom's", "tom 's"),
        ("couldntve", "couldntve"),  # both apostrophes are missing
        ("couldnt've", "couldn't've"),
        ("a", "a"),
        ("?", "?"),
        ("", ""),
    ],
)
def test_votes_are_normalised_as_vqa_does(text: str, expected: str) -> None:
    assert normalise_for_votes(text) == expected


def test_a_vote_for_a_price_is_none_for_the_same_digits() -> None:
    votes = item(*["1.50"] * 6, *["150"] * 4)
    assert match_vote("1.50", votes) == match_vote("150.", votes) == 1
    assert match_vote("15", votes) == match_vote("1.50%", votes) == match_vote("", item(*["?"] * 10)) == 0


def test_document_answers_lose_credit_by_edits() -> None:
    name = item("John Smith")
    assert match_edits("john smith", name) == 1
    assert match_edits("jon smith", name) == pytest.approx(0.9)
    assert match_edits("smith", name) == 0  # half of it is missing
    assert match_edits("", name) == 0
    assert match_edits("The answer is John Smith.", name) == 1
    assert match_edits("x", item("abc", "x")) == 1
    assert match_edits("z" * 5000, name) == 0
