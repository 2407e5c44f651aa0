"""What the records of a mix are to one another: copies and contradictions, from a few numbers of each record.

Equal 64-bit hashes only say which records to look at again, but for questions and answers, where they decide: of ten
million questions two share one by chance in one mix of four hundred thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cambrian.data.duplicates import HashIndex, content_key, find_repeated, hash_all, text_key
from cambrian.data.image_facts import ImageFacts
from cambrian.interfaces import IMAGE_PLACEHOLDER, RecordError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Bool, UInt64

    from cambrian.interfaces import Record


class Comparison:
    """Compares the records of a mix, which come shard by shard, twice."""

    def __init__(self, max_distance: int) -> None:
        self._max_distance = max_distance
        self._ids: list[UInt64[np.ndarray, " rows"]] = []
        self._contents: list[UInt64[np.ndarray, " rows"]] = []
        self._likenesses: list[UInt64[np.ndarray, " rows"]] = []
        self._pairs: list[tuple[UInt64[np.ndarray, " pairs"], ...]] = []

    def add(self, records: Sequence[Record], images: Mapping[str, ImageFacts | RecordError]) -> None:
        """Remember a shard's records, some sixty bytes of each; `images` describes their images."""
        ids = hash_all(record.id.encode() for record in records)
        self._ids.append(ids)
        self._contents.append(hash_all(_content(record, images).encode() for record in records))
        self._likenesses.append(hash_all(_likeness(record, images).encode() for record in records))
        self._pairs.append(_hash_pairs(records, images, ids))

    def finish(self) -> Compared:
        """Find what is there more than once."""
        ids = _join(self._ids)
        contradicted = _find_contradicted(*(_join(column) for column in zip(*self._pairs, strict=True)))
        return Compared(
            same_id=find_repeated(ids),
            same_content=find_repeated(_join(self._contents)),
            alike=find_repeated(_join(self._likenesses)),
            is_contradicted=np.isin(ids, contradicted),
            max_distance=self._max_distance,
        )


class Compared:
    """Which records share something with others."""

    def __init__(
        self,
        *,
        same_id: Bool[np.ndarray, " rows"],
        same_content: Bool[np.ndarray, " rows"],
        alike: Bool[np.ndarray, " rows"],
        is_contradicted: Bool[np.ndarray, " rows"],
        max_distance: int,
    ) -> None:
        self.is_contradicted = is_contradicted
        self.is_near_duplicate = np.zeros(len(alike), bool)
        """With the words and the looks of an earlier one; complete when all rows of `rows` were looked at."""
        self.ids: list[str] = []
        """Of the records that may have another's id, as `contents`."""
        self.contents: list[str] = []
        self._same_id, self._same_content, self._alike = same_id, same_content, alike
        self._max_distance = max_distance
        self._seen: dict[str, HashIndex] = {}

    def rows(self, start: int, end: int) -> list[int]:
        """The rows from `start` to `end` that must be looked at again, counted from `start`."""
        shared = self._same_id | self._same_content | self._alike
        return [int(row) for row in np.flatnonzero(shared[start:end])]

    def look(self, row: int, record: Record, images: Mapping[str, ImageFacts | RecordError]) -> None:
        """Look at a record again; rows come in their order."""
        if self._same_id[row]:
            self.ids.append(record.id)
        if self._same_content[row]:
            self.contents.append(_content(record, images))
        if self._alike[row]:
            index = self._seen.setdefault(_likeness(record, images), HashIndex(self._max_distance))
            image_hash = _hash(record, images)
            self.is_near_duplicate[row] = bool(index.find(image_hash))
            index.add(image_hash)


def _join(columns: Sequence[UInt64[np.ndarray, " rows"]]) -> UInt64[np.ndarray, " all"]:
    return np.concatenate([np.zeros(0, np.uint64), *columns])


def _content(record: Record, images: Mapping[str, ImageFacts | RecordError]) -> str:
    facts = images[record.image] if record.image is not None else None
    return content_key(record.turns, facts.digest if isinstance(facts, ImageFacts) else record.image)


def _likeness(record: Record, images: Mapping[str, ImageFacts | RecordError]) -> str:
    return f"{len(_hash(record, images))}/{text_key(record.turns)}"


def _hash(record: Record, images: Mapping[str, ImageFacts | RecordError]) -> bytes:
    facts = images[record.image] if record.image is not None else None
    return facts.hash if isinstance(facts, ImageFacts) else b""


def _hash_pairs(
    records: Sequence[Record],
    images: Mapping[str, ImageFacts | RecordError],
    ids: UInt64[np.ndarray, " rows"],
) -> tuple[UInt64[np.ndarray, " pairs"], ...]:
    """Hash of question and picture, of answer, and of id, and whether there is a picture, of each question."""
    questions, answers, rows, pictured = [], [], [], []
    for row, record in enumerate(records):
        facts = images[record.image] if record.image is not None else None
        if isinstance(facts, RecordError):
            continue
        picture = facts.digest if facts is not None else ""
        for question, answer in zip(record.turns[::2], record.turns[1::2], strict=False):
            asked = " ".join(question.text.replace(IMAGE_PLACEHOLDER, " ").lower().split())
            questions.append(f"{picture}\0{asked}".encode())
            answers.append(" ".join(answer.text.lower().split()).encode())
            rows.append(row)
            pictured.append(facts is not None)
    return hash_all(questions), hash_all(answers), ids[np.array(rows, np.int64)], np.array(pictured, np.uint64)


def _find_contradicted(
    questions: UInt64[np.ndarray, " pairs"],
    answers: UInt64[np.ndarray, " pairs"],
    ids: UInt64[np.ndarray, " pairs"],
    pictured: UInt64[np.ndarray, " pairs"],
) -> UInt64[np.ndarray, " found"]:
    """Ids of records with an answer that other records of the mix speak against.

    Where more than half of the records agree on the answer to a question (about one picture, or about none), those
    that answer otherwise are spoken against. Without such a majority, all are where the question is about one picture,
    which has one truth, and none where it is about none, as many texts have several good answers.
    """
    is_asked_again = find_repeated(questions)
    columns = np.stack([column[is_asked_again] for column in (questions, answers, ids, pictured)])
    given = np.unique(columns, axis=1)  # who answers what to which question
    if not given.shape[1]:
        return np.zeros(0, np.uint64)
    asked, question = np.unique(given[0], return_inverse=True)
    answered, answer = np.unique(given[:2], axis=1, return_inverse=True)
    said, saying = np.unique(given[[0, 2]], axis=1, return_inverse=True)
    num_answers = np.bincount(np.searchsorted(asked, answered[0]), minlength=len(asked))
    num_records = np.bincount(np.searchsorted(asked, said[0]), minlength=len(asked))
    agrees = 2 * np.bincount(answer, minlength=answered.shape[1])[answer] > num_records[question]
    has_majority = np.zeros(len(asked), bool)
    has_majority[question[agrees]] = True
    is_spared = np.zeros(said.shape[1], bool)
    is_spared[saying[agrees]] = True
    is_pictured = np.zeros(len(asked), bool)
    is_pictured[question[given[3] > 0]] = True
    is_disputed = (num_answers > 1) & (has_majority | is_pictured)
    found: UInt64[np.ndarray, " found"] = said[1][is_disputed[np.searchsorted(asked, said[0])] & ~is_spared]
    return np.unique(found)
