from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cambrian.evaluation import matching, strict
from cambrian.evaluation.benchmarks.registry import BENCHMARKS, PAPER_SCORES
from cambrian.evaluation.strict import read_option, score_twice, strict_rule
from cambrian.interfaces import ArtifactError, Item, Reply
from tests.evaluation import slow_rules

if TYPE_CHECKING:
    from collections.abc import Callable

COLOURS = ("red", "blue", "green", "dark blue")


def item(*answers: str, choices: tuple[str, ...] = (), number: int = 0, benchmark: str = "X") -> Item:
    return Item(
        id=f"{benchmark}/{number}", benchmark=benchmark, question="?", choices=choices, answers=answers, category="",
        group=str(number), image=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("B", 1),
        ("(b)", 1),
        ("( B ).", 1),
        ("B. blue", 1),
        ("(B): the blue", 1),
        ("The answer is B.", 1),
        ("Blue!", 1),
        ("b) red", None),  # letter and text disagree; the paper's rule takes the letter
        ("A: or B", None),
        ("A, B", None),
        ("a cat", None),
        ("black", None),
        ("blue or red", None),
        ("E", None),
        ("", None),
        ("...", None),
        ("ответ Б", None),
        ("dark blue", 3),
    ],
)
def test_an_option_must_be_named_and_no_other(reply: str, expected: int | None) -> None:
    assert read_option(reply, COLOURS) == expected


def test_options_of_equal_text_are_told_apart_by_letter_only() -> None:
    assert read_option("two", ("2", "two", "3")) is None
    assert read_option("B", ("2", "two", "3")) == 1


def test_options_that_differ_in_a_point_are_two() -> None:
    assert [read_option(reply, ("1.5", "15", "-15")) for reply in ("15", "1.5", "C. -15", "b) 1.5")] == [1, 0, 2, None]


def test_options_that_are_only_marks_are_read() -> None:
    assert read_option("-", ("+", "-")) == 1
    assert matching.chosen_option("-", ("+", "-")) == 1
    assert read_option("the -", ("+", "-")) is None


AWKWARD: dict[str, tuple[Item, dict[str, tuple[float, float]]]] = {
    "match_choice": (
        item("blue", choices=COLOURS),
        {"B. red": (1, 0), "b: I think A": (1, 0), "B. blue": (1, 1), "dark blue": (0, 0), "bird": (0, 0), "": (0, 0)},
    ),
    "match_choice_or_number": (
        item("100"),
        {"104": (1, 0), "100.001": (1, 1), "one hundred": (0, 0), "100": (1, 1), "1,00": (0, 1), "": (0, 0)},
    ),
    "match_first_word": (
        item("Yes"),
        {
            "yes and no": (1, 0), "The answer is yes.": (0, 1), "Yes, it is": (1, 1), "yes/no": (0, 0),
            "no": (0, 0), "Yes. No.": (1, 0), "да": (0, 0), "": (0, 0),
        },
    ),
    "match_phrase": (
        item("2"),
        {"2 or 3": (1, 0), "two": (0, 1), "2.": (1, 1), "12": (0, 0), "2 cars": (1, 0), "": (0, 0)},
    ),
    "match_same_word": (
        item("bus"),
        {"buss": (0, 0), "a bus": (0, 1), "Bus.": (1, 1), "the answer is bus": (1, 1), "busses": (0, 0), "": (0, 0)},
    ),
    "match_number": (
        item("2010"),
        {"2019": (1, 0), "2010": (1, 1), "2010.": (1, 1), "1,990": (1, 0), "201": (0, 0), "": (0, 0)},
    ),
    "match_contained": (
        item("12"),
        {"112": (1, 0), "1.12": (1, 0), "it says 12.": (1, 1), "12:30": (1, 1), "1 2": (0, 0), "": (0, 0)},
    ),
    "match_vote": (
        item(*["red"] * 2, *["blue"] * 8),
        {"red": (0.6, 0.6), "a red": (0.6, 0.6), "blue.": (1, 1), "red blue": (0, 0), "": (0, 0)},
    ),
    "match_edits": (
        item("march"),
        {"marsh": (0.8, 0.8), "the answer is march": (1, 1), "m": (0, 0), "MARCH": (1, 1), "": (0, 0)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("rule", AWKWARD)
def test_awkward_replies_by_the_papers_rule_and_by_the_strict_one(rule: str) -> None:
    question, replies = AWKWARD[rule]
    paper = getattr(matching, rule)
    found = {reply: (paper(reply, question), strict_rule(paper)(reply, question)) for reply in replies}
    assert found == {reply: pytest.approx(credits_) for reply, credits_ in replies.items()}


@pytest.mark.parametrize(("reply", "answer"), [("125", "12.5"), ("-5", "5")])
@pytest.mark.parametrize("rule", [strict.match_choice_or_number_strictly, strict.match_number_strictly])
def test_a_number_without_its_point_or_its_sign_is_another_number(
    rule: Callable[[str, Item], float], reply: str, answer: str
) -> None:
    assert rule(reply, item(answer)) == 0


def test_every_benchmark_of_the_paper_has_a_strict_rule_and_both_of_its_rules_have_a_slow_form() -> None:
    checked = {fast for fast, _, _ in RULES}
    assert len(PAPER_SCORES) == 16
    for name in PAPER_SCORES:
        benchmark = BENCHMARKS[name]
        assert {benchmark.match, strict_rule(benchmark.match)} <= checked


def test_a_word_in_a_script_without_blanks_is_found() -> None:
    assert strict.match_contained_strictly("答案是赤", item("赤")) == 1
    assert strict.match_contained_strictly("scar", item("car")) == 0
    assert strict.match_contained_strictly("a scar, a car", item("car")) == 1


def test_both_scores_and_the_disputed_items_come_from_the_same_replies() -> None:
    questions = [item("blue", choices=COLOURS, number=number, benchmark="SEED-I") for number in range(4)]
    texts = ["B", "B. red", "red", "b: green"]
    replies = [Reply(one.id, text, with_image=True) for one, text in zip(questions, texts, strict=True)]
    found = score_twice("SEED-I", questions, replies, with_image=True)
    assert (found.published, found.strict, found.difference) == (75, 25, -50)
    assert found.disputed == ("SEED-I/1", "SEED-I/3")
    with pytest.raises(ArtifactError, match="no reply to SEED-I/0"):
        score_twice("SEED-I", questions, replies[1:], with_image=True)


QUESTIONS = {
    "choice": [
        item("blue", choices=COLOURS),
        item("-", choices=("+", "-")),
        item("2", choices=("2", "two", "3")),
        item("15", choices=("1.5", "15")),
    ],
    "number": [item("12"), item("12.6"), item("2010"), item("1999"), item("-1.5", "three"), item("1,200%")],
    "text": [item("Blue"), item("B"), item("none"), item("o", "dark blue"), item("glasses"), item("box"), item("-")],
    "yes": [item("Yes"), item("no")],
    "votes": [
        item(*["red"] * 3, *["dark blue"] * 2, *["2", "two"], *["none"] * 3),
        item(*["1.5"] * 3, *["15"] * 2, *["12.6%"], *["dark-blue"] * 2, *["don't", "+"]),
    ],
}
RULES: list[tuple[Callable[[str, Item], float], Callable[[str, Item], float], tuple[str, ...]]] = [
    (matching.match_choice, slow_rules.paper_choice, ("choice",)),
    (matching.match_choice_or_number, slow_rules.paper_choice_or_number, ("choice", "number")),
    (matching.match_first_word, slow_rules.paper_first_word, ("yes",)),
    (matching.match_phrase, slow_rules.paper_phrase, ("text", "number", "yes")),
    (matching.match_same_word, slow_rules.paper_same_word, ("text",)),
    (matching.match_number, slow_rules.paper_number, ("number", "text")),
    (matching.match_contained, slow_rules.paper_contained, ("text", "number")),
    (matching.match_vote, slow_rules.paper_vote, ("votes",)),
    (matching.match_edits, slow_rules.paper_edits, ("text",)),
    (strict.match_choice_strictly, slow_rules.strict_choice, ("choice",)),
    (strict.match_choice_or_number_strictly, slow_rules.strict_choice_or_number, ("choice", "number")),
    (strict.match_yes_or_no_strictly, slow_rules.strict_yes_or_no, ("yes",)),
    (strict.match_phrase_strictly, slow_rules.strict_phrase, ("text", "number", "yes")),
    (strict.match_word_strictly, slow_rules.strict_word, ("text",)),
    (strict.match_number_strictly, slow_rules.strict_number, ("number", "text")),
    (strict.match_contained_strictly, slow_rules.strict_contained, ("text", "number")),
]
ANNOUNCEMENTS = ("", "", "", "answer is", "The answer is:", "Red. Answer: ")
OPENINGS = ("", "", "", "(", "$", "-", "a ", "1.", "s", " ")
ANSWERS = (
    "A", "b", "B", "C", "e", "o", "yes", "No", "red", "blue", "dark blue", "Green", "glass", "glasses", "boxes", "none",
    "two", "three", "2", "3", "12", "112", "12.6", "126", "12.004", "2010", "2019", "1999", "1990", "-1.5", "1.5", "15",
    "1,200", "1260",
    "dont", "12.6%", "dark-blue", "+", "-", "_", "", "²", "٣", "ß", "Б", "赤", "İ",
)  # fmt: skip
MARKS = ("", "", "", ".", ")", ":", ", ", "/", " ", "'", "%", "\n", ").", "_", " or ", ". ", "\u00a0")
REPLY = st.tuples(
    st.sampled_from(ANNOUNCEMENTS), st.sampled_from(OPENINGS), st.sampled_from(ANSWERS), st.sampled_from(MARKS),
    st.sampled_from(("", *ANSWERS)), st.sampled_from(MARKS),
).map("".join)  # fmt: skip
NUM_REPLIES = 40
"""In one example: hypothesis makes 250 examples, so that each rule reads 10,000 replies."""
REPLIES = st.lists(REPLY, min_size=NUM_REPLIES, max_size=NUM_REPLIES)


@settings(
    max_examples=10_000 // NUM_REPLIES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
@given(replies=REPLIES)
def test_every_rule_agrees_with_its_slow_form_on_ten_thousand_replies(replies: list[str]) -> None:
    for fast, slow, kinds in RULES:
        for question in (question for kind in kinds for question in QUESTIONS[kind]):
            for reply in replies:
                # sums of a few fractions, in another order
                assert abs(fast(reply, question) - slow(reply, question)) < 1e-12, (fast, reply, question)
