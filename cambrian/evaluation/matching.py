"""Whether a reply answers an item: the paper's rules, as functions of the reply and the item.

Every matcher gives a credit from 0 to 1. Replies are free text of a language model, so each matcher first cuts the
answer out of the reply, the way the benchmark's scorer does.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.interfaces import Item

NUMBER_TOLERANCE = 0.05
"""Relative (paper, comparison of fuzzy matching with a judge; release, ChartQA, MMMU and MathVista scorers)."""
TRANSCRIPT_LIMITS = (0, 5, 10, 25, 50)
"""Edits up to which the release counts a transcript as right, each in a share of its own (SynthDoG)."""
ANLS_THRESHOLD = 0.5
"""DocVQA's official score gives nothing to an answer that is further off than this."""

_ANNOUNCEMENTS = ("answer is:", "answer is", "answer:")
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_ARTICLES = ("a", "an", "the")
_PUNCTUATION = str.maketrans("", "", string.punctuation.replace("'", ""))
_VQA_MARKS = ';/[]"{}()=+\\_->@<`!'
"""Which VQA takes for blanks; it keeps $, %, & and :, and commas and question marks are gone before."""
_VQA_FULL_STOP = re.compile(r"\.(?!\d)")
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't shan't she'd've should've shouldn't shouldn't've somebody'd somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word
    for word in _CONTRACTED.split()
    for at, character in enumerate(word)
    if character == "'"
}
"""VQA's contractions, by what they are without one of their apostrophes."""
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?")
_LETTER = re.compile(r"\(?\s*([a-z])\s*(?:[).:,]|$)")


def cut_announcement(reply: str) -> str:
    """What follows the last "answer is" or "answer:", or the whole reply; lower case, stripped, no final full stop.

    Source: the release's rule for one-phrase answers.
    """
    text = reply.lower().strip()
    ends = [text.rfind(phrase) + len(phrase) for phrase in _ANNOUNCEMENTS if phrase in text]
    return text[max(ends, default=0) :].strip().removesuffix(".").strip()


def first_word(reply: str) -> str:
    """The first word, lower case, without a final mark (the release's rule for yes or no)."""
    words = reply.lower().split()
    return words[0].strip(".:,;!()\"'") if words else ""


def chosen_option(reply: str, choices: Sequence[str]) -> int | None:
    """Which option a reply names, by its text or by its letter; None where it names none.

    The option's text comes first, so that an option that is itself a letter is not mistaken: the very text before one
    that differs in marks and articles, so that "15" is not 1.5 where 15 is an option too. A letter counts when it
    stands alone or a mark follows it ("B", "(b)", "B. red"). The release cuts every longer reply to its first
    character, which makes "blue" the letter B; that is not followed.

    Source: the release's scorers for ScienceQA and MMVP (letter or text; ScienceQA's without any mark, by which "15"
    does say 1.5 where no option is 15) and its rule for multiple choice.
    """
    text = cut_announcement(reply)
    same = [choice.lower().strip() for choice in choices]
    if text in same:
        return same.index(text)
    texts = [normalise(choice) for choice in choices]
    if normalise(text) and normalise(text) in texts:
        return texts.index(normalise(text))
    letter = _LETTER.match(text)
    if letter is None:
        return None
    index = string.ascii_lowercase.index(letter[1])
    return index if index < len(choices) else None


def parse_number(text: str) -> float | None:
    """The number that a text is, in digits (with a sign, commas or a per cent sign) or as a word up to ten."""
    bare = text.strip().strip("$%€£ ").rstrip(".")
    if bare in _NUMBER_WORDS:
        return float(_NUMBER_WORDS.index(bare))
    return float(bare.replace(",", "")) if bare and _NUMBER.fullmatch(bare) and bare[-1].isdigit() else None


def normalise(text: str) -> str:
    """Lower case without any punctuation, articles and doubled blanks; number words as digits.

    Source: release, ScienceQA's scorer, which drops all marks, decimal points too; articles and number words as VQA.
    """
    words = text.lower().replace(",", "").translate(_PUNCTUATION).split()
    words = ["0" if word == "none" else word for word in words]
    digits = [str(_NUMBER_WORDS.index(word)) if word in _NUMBER_WORDS else word for word in words]
    kept = [word for word in digits if word not in _ARTICLES]
    return " ".join(kept or digits)  # an answer that is only "a" stays


def normalise_for_votes(text: str) -> str:
    """VQA's normalisation: lower case, number words as digits, no articles, most marks removed or made blanks.

    A point before a digit stays ("1.5" is not "15"), and so do $, %, & and :. An answer of which nothing is left
    stays as it is.

    Source: the release's TextVQA evaluator, which is that of VQA's challenge.
    """
    plain = " ".join(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").split())
    bare = plain
    for mark in _VQA_MARKS:
        # Beside a blank anywhere in the text it goes, else it parts two words.
        bare = bare.replace(mark, "" if f"{mark} " in plain or f" {mark}" in plain else " ")
    found = ["0" if word == "none" else word for word in _VQA_FULL_STOP.sub("", bare).split()]
    digits = [str(_NUMBER_WORDS.index(word)) if word in _NUMBER_WORDS else word for word in found]
    kept = [_CONTRACTIONS.get(word, word) for word in digits if word not in _ARTICLES]
    return " ".join(kept) or " ".join(text.lower().split())


def match_choice(reply: str, item: Item) -> float:
    """Multiple choice: the right option's letter or text."""
    chosen = chosen_option(reply, item.choices)
    return float(chosen is not None and item.choices[chosen] in item.answers)


def match_choice_or_number(reply: str, item: Item) -> float:
    """Multiple choice where there are options, otherwise the exact answer or a number within 5%."""
    return match_choice(reply, item) if item.choices else match_number(reply, item)


def match_first_word(reply: str, item: Item) -> float:
    """Yes or no: the first word."""
    return float(any(first_word(reply) == answer.lower() for answer in item.answers))


def match_phrase(reply: str, item: Item) -> float:
    """The exact phrase, the reply's first word, or the letter that the question asked for."""
    text = cut_announcement(reply)
    accepted = [answer.lower().strip().removesuffix(".") for answer in item.answers]
    return float(text in accepted or first_word(text) in accepted)


def match_same_word(reply: str, item: Item) -> float:
    """The exact phrase, singular or plural (paper: exact word, or same stem or lemma)."""
    text = cut_announcement(reply)
    return float(any(_singular(text) == _singular(answer.lower().strip()) for answer in item.answers))


def match_number(reply: str, item: Item) -> float:
    """A number within 5% of the true one; an answer that is no number must be equal."""
    text = cut_announcement(reply)
    return float(any(_is_near(text, answer.lower().strip()) for answer in item.answers))


def match_contained(reply: str, item: Item) -> float:
    """One of the accepted answers stands in the reply (OCRBench); an answer of one character stands as a word.

    The release takes any place within the reply, by which "two" would read the letter o.
    """
    text = " ".join(reply.lower().split())
    return float(any(_stands_in(" ".join(answer.lower().split()), text) for answer in item.answers))


def match_vote(reply: str, item: Item) -> float:
    """VQA soft accuracy: the mean over annotators of min(1, agreement with the others / 3).

    With ten annotators, a reply that k of them gave gets the mean over all of min(1, others that agree / 3): 0.3 for
    one, 0.6 for two, 0.9 for three, 1 from four on.

    Source: the release's TextVQA evaluator.
    """
    text = normalise_for_votes(cut_announcement(reply))
    votes = [normalise_for_votes(answer) for answer in item.answers]
    agreeing = votes.count(text)
    credit = agreeing * min(1.0, (agreeing - 1) / 3) + (len(votes) - agreeing) * min(1.0, agreeing / 3)
    return credit / len(votes)


def match_edits(reply: str, item: Item) -> float:
    """DocVQA's ANLS: 1 minus the normalised edit distance to the nearest answer, 0 from half of it on."""
    text = " ".join(cut_announcement(reply).split())
    return max(_similarity(text, " ".join(answer.lower().split())) for answer in item.answers)


def match_transcript(reply: str, item: Item) -> float:
    """The share of TRANSCRIPT_LIMITS within which the whole text was read; a mean of it is the mean of the five shares.

    Source: the release's SynthDoG scorer.
    """
    text, truth = (part.lower().strip() for part in (reply, item.answers[0]))
    distance = (
        _edit_distance(text, truth) if abs(len(text) - len(truth)) <= TRANSCRIPT_LIMITS[-1] else len(text + truth)
    )
    return sum(distance <= limit for limit in TRANSCRIPT_LIMITS) / len(TRANSCRIPT_LIMITS)


def match_keywords(reply: str, item: Item) -> float:
    """The largest share of an alternative's key phrases that stand in the reply (MM-Vet).

    MM-Vet writes what an answer must hold as `one <AND> another <OR> something else`. Its score proper is a judge's
    (`cambrian judge`), which also accepts other words for the same; this one is a lower bound that needs none.
    """
    text = " ".join(reply.lower().split())
    alternatives = [alternative.split("<AND>") for answer in item.answers for alternative in answer.split("<OR>")]
    return max(
        sum(_stands_in(" ".join(phrase.lower().split()), text) for phrase in phrases) / len(phrases)
        for phrases in alternatives
    )


def _stands_in(answer: str, text: str) -> bool:
    return answer in text if len(answer) > 1 else answer in re.findall(r"\w+|\S", text)


def _is_near(text: str, answer: str) -> bool:
    truth, number = parse_number(answer), parse_number(text)
    if truth is None or number is None:
        return text == answer
    return abs(number - truth) <= NUMBER_TOLERANCE * abs(truth)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _similarity(left: str, right: str) -> float:
    longest = max(len(left), len(right))
    if abs(len(left) - len(right)) >= ANLS_THRESHOLD * longest:
        return float(left == right)
    distance = _edit_distance(left, right) / longest
    return 1 - distance if distance < ANLS_THRESHOLD else 0.0


def _edit_distance(left: str, right: str) -> int:
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        previous, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (a != b))
    return row[-1]
