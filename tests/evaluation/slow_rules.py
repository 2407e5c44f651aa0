"""The rules for replies a second time, slow and plain: by characters and by definition, without regular expressions.

Written from the rules' descriptions, for tests only; nothing here calls the code that it checks.
"""

from __future__ import annotations

import functools
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.interfaces import Item

NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def answer_part(reply: str) -> str:
    text = reply.lower().strip()
    end = 0
    for start in range(len(text)):
        for phrase in ("answer is:", "answer is", "answer:"):
            if text[start : start + len(phrase)] == phrase:
                end = max(end, start + len(phrase))
    text = text[end:].strip()
    if text[-1:] == ".":
        text = text[:-1]
    return text.strip()


CONTRACTED = {"dont": "don't", "thats": "that's", "oclock": "o'clock", "couldntve": "couldntve", "hell": "hell"}
"""Those of which the tests make use; the rest of the table is checked by itself."""


@functools.cache
def votes_text(text: str) -> str:
    text = " ".join(text.lower().split())
    plain = ""
    for place, character in enumerate(text):
        if text[place : place + 2] == "'s":
            plain += " '"
        elif character not in ",?":
            plain += character
    plain = " ".join(plain.split())
    bare = ""
    for character in plain:
        if character in ';/[]"{}()=+\\_->@<`!':
            touches = any(plain[at : at + 2] in (f"{character} ", f" {character}") for at in range(len(plain)))
            bare += "" if touches else " "
        else:
            bare += character
    kept = "".join(
        character
        for place, character in enumerate(bare)
        if character != "." or (place + 1 < len(bare) and bare[place + 1].isdecimal())
    )
    words = []
    for word in kept.split():
        word = str(NUMBERS.index(word)) if word in NUMBERS else "0" if word == "none" else word
        if word not in ("a", "an", "the"):
            words.append(CONTRACTED.get(word, word))
    return " ".join(words) or text


def without_marks(text: str) -> str:
    kept = "".join(character for character in text.lower() if character == "'" or character not in string.punctuation)
    words = []
    for word in kept.split():
        if word == "none":
            words.append("0")
        elif word in NUMBERS:
            words.append(str(NUMBERS.index(word)))
        else:
            words.append(word)
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def number(text: str) -> float | None:
    text = text.strip()
    while text and text[0] in "$%€£ ":
        text = text[1:]
    while text and text[-1] in "$%€£ ":
        text = text[:-1]
    while text and text[-1] == ".":
        text = text[:-1]
    if text in NUMBERS:
        return float(NUMBERS.index(text))
    body = text[1:] if text[:1] in ("+", "-") else text
    whole, point, decimals = body.partition(".")
    if point and not is_digits(decimals):
        return None
    if not whole and not point:
        return None
    groups = whole.split(",")
    if len(groups) > 1:
        if not (1 <= len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])):
            return None
        if not all(map(is_digits, groups)):
            return None
    elif whole and not is_digits(whole):
        return None
    return float(text.replace(",", ""))


def is_digits(text: str) -> bool:
    return bool(text) and all(character.isdecimal() for character in text)


def letter_and_rest(text: str) -> tuple[str, str, str] | None:
    """A leading letter, perhaps in brackets; the mark behind it; what follows."""
    if text[:1] == "(":
        text = text[1:]
    text = text.lstrip()
    if not text or text[0] not in string.ascii_lowercase:
        return None
    rest = text[1:].lstrip()
    if rest and rest[0] not in ").:,":
        return None
    return text[0], rest[:1], rest[1:]


def paper_option(reply: str, choices: Sequence[str]) -> int | None:
    text = answer_part(reply)
    for index, choice in enumerate(choices):
        if choice.lower().strip() == text:
            return index
    if without_marks(text):
        for index, choice in enumerate(choices):
            if without_marks(choice) == without_marks(text):
                return index
    found = letter_and_rest(text)
    if found is None:
        return None
    index = string.ascii_lowercase.index(found[0])
    return index if index < len(choices) else None


def leading_word(text: str) -> str:
    for word in text.lower().split():
        return word.strip(".:,;!()\"'")
    return ""


def paper_choice(reply: str, item: Item) -> float:
    index = paper_option(reply, item.choices)
    return 1.0 if index is not None and item.choices[index] in item.answers else 0.0


def paper_first_word(reply: str, item: Item) -> float:
    return 1.0 if leading_word(reply) in [answer.lower() for answer in item.answers] else 0.0


def paper_phrase(reply: str, item: Item) -> float:
    text = answer_part(reply)
    for answer in item.answers:
        accepted = answer.lower().strip()
        if accepted.endswith("."):
            accepted = accepted[:-1]
        if accepted in (text, leading_word(text)):
            return 1.0
    return 0.0


def paper_same_word(reply: str, item: Item) -> float:
    text = answer_part(reply)
    return 1.0 if any(one_of(text) == one_of(answer.lower().strip()) for answer in item.answers) else 0.0


def one_of(word: str) -> str:
    """The singular, by its ending alone."""
    if len(word) > 4:
        for ending in ("ches", "shes", "xes", "sses"):
            if word.endswith(ending):
                return word[:-2]
    if len(word) > 3 and word[-1] == "s" and word[-2] != "s":
        return word[:-1]
    return word


def paper_number(reply: str, item: Item) -> float:
    text = answer_part(reply)
    for answer in item.answers:
        truth, said = number(answer.lower().strip()), number(text)
        if truth is None or said is None:
            if text == answer.lower().strip():
                return 1.0
        elif abs(said - truth) <= 0.05 * abs(truth):
            return 1.0
    return 0.0


def paper_choice_or_number(reply: str, item: Item) -> float:
    return paper_choice(reply, item) if item.choices else paper_number(reply, item)


def paper_contained(reply: str, item: Item) -> float:
    text = " ".join(reply.lower().split())
    for answer in item.answers:
        sought = " ".join(answer.lower().split())
        if len(sought) == 1:
            for place, character in enumerate(text):
                beside = text[place - 1 : place] + text[place + 1 : place + 2] if place else text[1:2]
                is_alone = not any(other.isalnum() or other == "_" for other in beside)
                if character == sought and (is_alone or not (sought.isalnum() or sought == "_")):
                    return 1.0
        elif any(text[place : place + len(sought)] == sought for place in range(len(text) + 1)):
            return 1.0
    return 0.0


def paper_vote(reply: str, item: Item) -> float:
    text = votes_text(answer_part(reply))
    total = 0.0
    for left_out in range(len(item.answers)):
        others = [answer for place, answer in enumerate(item.answers) if place != left_out]
        total += min(1.0, sum(votes_text(other) == text for other in others) / 3)
    return total / len(item.answers)


def paper_edits(reply: str, item: Item) -> float:
    text = " ".join(answer_part(reply).split())
    best = 0.0
    for answer in item.answers:
        truth = " ".join(answer.lower().split())
        longest = max(len(text), len(truth))
        distance = edits(text, truth) / longest if longest else 0.0
        if distance < 0.5:
            best = max(best, 1 - distance)
    return best


@functools.cache
def edits(left: str, right: str) -> int:
    if not left or not right:
        return len(left) + len(right)
    if left[0] == right[0]:
        return edits(left[1:], right[1:])
    return 1 + min(edits(left[1:], right), edits(left, right[1:]), edits(left[1:], right[1:]))


def bare(text: str) -> str:
    return without_marks(text) or " ".join(text.lower().split())


def says(text: str, answer: str) -> bool:
    if number(text) is None or number(answer.lower()) is None:
        return bare(text) == bare(answer)
    return number(text) == number(answer.lower())


def strict_choice(reply: str, item: Item) -> float:
    text = answer_part(reply)
    named = [choice for choice in item.choices if says(text, choice)]
    if named:
        return 1.0 if len(named) == 1 and named[0] in item.answers else 0.0
    return 1.0 if any(choice in item.answers for choice in lettered(text, item.choices)) else 0.0


def lettered(text: str, choices: Sequence[str]) -> list[str]:
    """The option whose letter a text gives, alone or with its own text behind it."""
    found = letter_and_rest(text)
    if found is None:
        return []
    letter, mark, rest = found
    index = string.ascii_lowercase.index(letter)
    while mark and rest and rest[0] in ").:,":
        rest = rest[1:]
    if index >= len(choices) or (rest.strip() and not says(rest.strip(), choices[index])):
        return []
    return [choices[index]]


def strict_choice_or_number(reply: str, item: Item) -> float:
    if item.choices:
        return strict_choice(reply, item)
    text = answer_part(reply)
    return 1.0 if any(same_number(text, answer) or says(text, answer) for answer in item.answers) else 0.0


def same_number(text: str, answer: str) -> bool:
    said, truth = number(text), number(answer.lower())
    return said is not None and truth is not None and round(said, 2) == round(truth, 2)


def strict_yes_or_no(reply: str, item: Item) -> float:
    text = answer_part(reply)
    words = [word.strip(string.punctuation) for part in text.split("/") for word in part.split()]
    for answer in item.answers:
        other = {"yes": "no", "no": "yes"}[answer.lower()]
        if leading_word(text) == answer.lower() and other not in words:
            return 1.0
    return 0.0


def strict_phrase(reply: str, item: Item) -> float:
    text = answer_part(reply)
    for answer in item.answers:
        if says(text, answer):
            return 1.0
        found = letter_and_rest(text)
        if found is not None and found[0] == answer.lower().strip(" ()."):
            return 1.0
    return 0.0


def strict_word(reply: str, item: Item) -> float:
    return 1.0 if any(says(answer_part(reply), answer) for answer in item.answers) else 0.0


def strict_number(reply: str, item: Item) -> float:
    text = answer_part(reply)
    years = [answer for answer in item.answers if is_year(answer.strip())]
    if years:
        return 1.0 if any(same_number(text, year) for year in years) else 0.0
    return max(paper_number(reply, item), strict_word(reply, item))


def is_year(text: str) -> bool:
    return len(text) == 4 and is_digits(text) and (text[0] == "1" or text[:2] == "20")


def strict_contained(reply: str, item: Item) -> float:
    text = " ".join(reply.lower().split())
    for answer in item.answers:
        sought = " ".join(answer.lower().split())
        for start in range(len(text) - len(sought) + 1):
            end = start + len(sought)
            if text[start:end] == sought and not joined(text, start) and not joined(text, end):
                return 1.0
    return 0.0


def joined(text: str, place: int) -> bool:
    """Whether what stands before and behind a place is one word or one number."""
    if place in (0, len(text)):
        return False
    padded = f"  {text}  "
    before_last, last, following, behind = list(padded[place : place + 4])
    if last in ".,":
        return before_last.isdecimal() and following.isdecimal()
    if following in ".,":
        return last.isdecimal() and behind.isdecimal()
    return all(one.isdecimal() or one.lower() != one.upper() for one in (last, following))
