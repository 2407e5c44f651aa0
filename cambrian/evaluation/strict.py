"""A strict, corrected reading of replies beside the paper's rules, from the same raw replies.

The paper's rules (`cambrian.evaluation.matching`) are what its tables rest on and what the pipeline scores by. They
count some replies as right that answer something else, and some as wrong that are right. For each rule this module has
one that accepts a reply only where it says one thing and that thing is the answer:

| rule | what is corrected |
| --- | --- |
| choice | "B. red" where B is blue, "A: or B", "15" where 1.5 is an option: not right; options of equal text: neither |
| yes or no | "yes and no": not right; "The answer is yes": right |
| phrase | "2 or 3" for 2: not right; "two" for 2: right |
| same word | "buses" for bus, "news" for new: not right; "a dog" for dog: right |
| number (charts) | 2019 for the year 2010, which is within 5%: not right |
| number (knowledge) | 104 for 100, which is within 5%: not right |
| contained | "112" or "1.12" for 12, "scar" for car: not right |

The official scorers of TextVQA (votes), DocVQA (edit distance) and SynthDoG (edits) have no such faults and stay as
they are, as does the lower bound for MM-Vet.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.evaluation.benchmarks.registry import find_benchmark
from cambrian.evaluation.matching import (
    cut_announcement,
    first_word,
    match_choice,
    match_choice_or_number,
    match_contained,
    match_edits,
    match_first_word,
    match_keywords,
    match_number,
    match_phrase,
    match_same_word,
    match_transcript,
    match_vote,
    normalise,
    parse_number,
)
from cambrian.evaluation.metrics import score_credits
from cambrian.evaluation.scoring import find_texts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cambrian.interfaces import Item, Reply

    Matcher = Callable[[str, Item], float]

NUMBER_DIGITS = 2
"""Decimals to which a number must be right (MMMU's and MathVista's own scorers round to two)."""

_LETTER = re.compile(r"\(?\s*([a-z])\s*(?:[).:,]+(.*))?", re.DOTALL)
_YEAR = re.compile(r"(?:1\d|20)\d\d")
_OPPOSITES = {"yes": "no", "no": "yes"}


@dataclass(frozen=True, slots=True)
class TwoReadings:
    """One benchmark's score by the paper's rule and by the strict one."""

    published: float
    strict: float
    disputed: tuple[str, ...]
    """Ids of the items whose replies the two rules do not credit alike."""

    @property
    def difference(self) -> float:
        """What the strict reading takes away or adds, in the score's unit."""
        return self.strict - self.published


def score_twice(name: str, items: Sequence[Item], replies: Sequence[Reply], *, with_image: bool) -> TwoReadings:
    """One benchmark's score by both readings of the same replies.

    Raises:
        ArtifactError: an item has no reply or two, or a reply has no item.
        ParamsError: there is no such benchmark.
    """
    benchmark = find_benchmark(name)
    texts = find_texts(items, replies, with_image=with_image)
    published, strict = (
        [match(text, item) for text, item in zip(texts, items, strict=True)]
        for match in (benchmark.match, strict_rule(benchmark.match))
    )
    return TwoReadings(
        published=score_credits(benchmark.metric, items, published)[0],
        strict=score_credits(benchmark.metric, items, strict)[0],
        disputed=tuple(item.id for item, one, two in zip(items, published, strict, strict=True) if one != two),
    )


def strict_rule(rule: Matcher) -> Matcher:
    """The strict rule that stands beside one of the paper's."""
    return _STRICT_RULES[rule]


def read_option(reply: str, choices: Sequence[str]) -> int | None:
    """The one option that a reply names, by its letter, its text, or both in agreement; None for none or several."""
    text = cut_announcement(reply)
    named = [index for index, choice in enumerate(choices) if _says(text, choice)]
    if named:
        return named[0] if len(named) == 1 else None
    letter = _LETTER.fullmatch(text)
    if letter is None:
        return None
    index, rest = string.ascii_lowercase.index(letter[1]), (letter[2] or "").strip()
    if index >= len(choices) or (rest and not _says(rest, choices[index])):
        return None
    return index


def match_choice_strictly(reply: str, item: Item) -> float:
    """The right option and no other, by letter, text or both."""
    chosen = read_option(reply, item.choices)
    return float(chosen is not None and item.choices[chosen] in item.answers)


def match_choice_or_number_strictly(reply: str, item: Item) -> float:
    """Multiple choice where there are options, otherwise the answer itself, numbers to two decimals."""
    if item.choices:
        return match_choice_strictly(reply, item)
    text = cut_announcement(reply)
    return float(any(_is_same_number(text, answer) or _says(text, answer) for answer in item.answers))


def match_yes_or_no_strictly(reply: str, item: Item) -> float:
    """The right one of yes and no as the first word, and the other nowhere."""
    text = cut_announcement(reply)
    said = first_word(text)
    words = {word.strip(string.punctuation) for word in text.replace("/", " ").split()}
    return float(_OPPOSITES.get(said) not in words and any(said == answer.lower() for answer in item.answers))


def match_phrase_strictly(reply: str, item: Item) -> float:
    """The whole answer, number words as digits; for an answer that is a letter, that letter with or without a text."""
    text = cut_announcement(reply)
    letter = _LETTER.fullmatch(text)
    return float(
        any(
            _says(text, answer) or (letter is not None and letter[1] == answer.lower().strip(" ()."))
            for answer in item.answers
        )
    )


def match_word_strictly(reply: str, item: Item) -> float:
    """The whole answer but for articles and punctuation, in the same number."""
    text = cut_announcement(reply)
    return float(any(_says(text, answer) for answer in item.answers))


def match_number_strictly(reply: str, item: Item) -> float:
    """A number within 5% of the true one, but a year exactly; an answer that is no number must be equal."""
    years = [answer for answer in item.answers if _YEAR.fullmatch(answer.strip())]
    text = cut_announcement(reply)
    if years:
        return float(any(_is_same_number(text, answer) for answer in years))
    return float(match_number(reply, item) or any(_says(text, answer) for answer in item.answers))


def match_contained_strictly(reply: str, item: Item) -> float:
    """One of the accepted answers stands in the reply as whole words."""
    text = " ".join(reply.lower().split())
    return float(any(_stands_as_words(" ".join(answer.lower().split()), text) for answer in item.answers))


_STRICT_RULES: dict[Matcher, Matcher] = {
    match_choice: match_choice_strictly,
    match_choice_or_number: match_choice_or_number_strictly,
    match_first_word: match_yes_or_no_strictly,
    match_phrase: match_phrase_strictly,
    match_same_word: match_word_strictly,
    match_number: match_number_strictly,
    match_contained: match_contained_strictly,
    match_vote: match_vote,
    match_edits: match_edits,
    match_transcript: match_transcript,
    match_keywords: match_keywords,
}


def _says(text: str, answer: str) -> bool:
    """Whether both are one number, or, where one of them is none, the same text but for marks and articles."""
    number, truth = parse_number(text), parse_number(answer.lower())
    return number == truth if number is not None and truth is not None else _bare(text) == _bare(answer)


def _bare(text: str) -> str:
    """The text without marks and articles, or as it is where that leaves nothing (an option that is a mark)."""
    return normalise(text) or " ".join(text.lower().split())


def _is_same_number(text: str, answer: str) -> bool:
    number, truth = parse_number(text), parse_number(answer.lower())
    return number is not None and truth is not None and round(number, NUMBER_DIGITS) == round(truth, NUMBER_DIGITS)


def _stands_as_words(answer: str, text: str) -> bool:
    starts = [found.start() for found in re.finditer(f"(?={re.escape(answer)})", text)]
    return any(not _is_inside_word(text, start) and not _is_inside_word(text, start + len(answer)) for start in starts)


def _is_inside_word(text: str, border: int) -> bool:
    """Whether the characters on both sides of a border belong to one word or one number.

    Only letters that have a case make words here: scripts without it are often written without blanks.
    """
    if not 0 < border < len(text):
        return False
    left, right = text[border - 1], text[border]
    if left in ".,":
        return right.isdecimal() and text[: border - 1][-1:].isdecimal()
    if right in ".,":
        return left.isdecimal() and text[border + 1 :][:1].isdecimal()
    return _is_of_word(left) and _is_of_word(right)


def _is_of_word(character: str) -> bool:
    return character.isdecimal() or character.lower() != character.upper()
