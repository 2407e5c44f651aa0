"""Which records of a scanned pool are there twice, without comparing all of them and without holding them in memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from cambrian.data.duplicates import HashIndex, find_repeated, spoken_keys
from cambrian.data.ledger import Dropped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from jaxtyping import Bool, Int64, UInt64

    from cambrian.data.ledger import Step
    from cambrian.data.partitions import SortedRuns

_COLUMNS = ["id", "source", "image", "digest", "hash", "conversations"]


class _Candidate(NamedTuple):
    """A record that may be a duplicate."""

    id: str
    source: str
    image: str
    content: bytes
    """Equal for the same words and the same image bytes."""
    hash: bytes
    row: int


@dataclass(frozen=True, slots=True)
class Candidates:
    """The records of a pool that share a key with another one, and where their words can be read again."""

    runs: SortedRuns
    num_files: int
    found: list[_Candidate]
    """In the order in which they are judged: by id and source, then by words, image and bytes."""
    likeness_keys: UInt64[np.ndarray, " rows"]
    """Of all rows of the runs."""


def find_candidates(
    runs: SortedRuns,
    num_files: int,
    may_be_repeated: Bool[np.ndarray, " rows"],
    likeness_keys: UInt64[np.ndarray, " rows"],
    sources: Sequence[str],
) -> Candidates:
    """Read the records that share a key with another one.

    `sources` are the names that the runs' numbers of sources stand for.
    """
    found = [
        candidate
        for batch, rows in _iter_chosen(runs, num_files, may_be_repeated, _COLUMNS)
        for candidate in _read_candidates(batch, rows, sources)
    ]
    found.sort(key=itemgetter(0, 1))
    candidates = Candidates(runs, num_files, found, likeness_keys)
    is_same = [False, *(one[:2] == other[:2] for one, other in pairwise(found)), False]
    if tied := [place for place, pair in enumerate(pairwise(is_same)) if any(pair)]:
        _settle(candidates, tied)
    return candidates


def drop_duplicates(
    candidates: Candidates, max_distance: int, exact: Step, near: Step
) -> tuple[list[int], list[Dropped]]:
    """Judge the candidates one after the other: of records that are alike the first stays.

    Counts the dropped in the steps; returns their rows and what is written of them.
    """
    rows: list[int] = []
    dropped: list[Dropped] = []
    kept = []
    ids: set[str] = set()
    first_with: dict[bytes, str] = {}
    for candidate in candidates.found:
        if candidate.id in ids:
            fault = Dropped(candidate.id, candidate.source, "duplicate-id", "another record of this pool has this id")
        elif candidate.content in first_with:
            detail = f"same words and image as {first_with[candidate.content]}"
            fault = Dropped(candidate.id, candidate.source, "exact-duplicate", detail)
        else:
            ids.add(candidate.id)
            first_with[candidate.content] = candidate.id
            kept.append(candidate)
            continue
        exact.drop(candidate.source, fault.reason)
        dropped.append(fault)
        rows.append(candidate.row)
    # Records that look and read alike share this key, so that only the words of those that still do are looked at.
    is_shared = find_repeated(candidates.likeness_keys[[candidate.row for candidate in kept]])
    kept = [candidate for candidate, shared in zip(kept, is_shared.tolist(), strict=True) if shared]
    keys = _read_keys(candidates, [candidate.row for candidate in kept])
    groups: dict[tuple[str, bool], tuple[HashIndex, list[str]]] = {}
    for candidate in kept:
        text_key, _ = keys[candidate.row]
        index, names = groups.setdefault((text_key, bool(candidate.hash)), (HashIndex(max_distance), []))
        if alike := index.find(candidate.hash):
            likeness = f"and an image within {max_distance} bits of its image" if candidate.hash else "without an image"
            detail = f"same words as {names[alike[0]]} {likeness}"
            dropped.append(Dropped(candidate.id, candidate.source, "near-duplicate", detail))
            near.drop(candidate.source, "near-duplicate")
            rows.append(candidate.row)
        else:
            index.add(candidate.hash)
            names.append(candidate.id)
    return rows, dropped


def _settle(candidates: Candidates, tied: Sequence[int]) -> None:
    """Bring candidates of one id and source, at these places, into the order of their words, image and bytes."""
    found = candidates.found
    keys = _read_keys(candidates, [found[place].row for place in tied])

    def order(candidate: _Candidate) -> tuple[Any, ...]:
        text_key, content_key = keys[candidate.row]
        return (
            candidate.id, candidate.source, text_key, candidate.image, content_key, candidate.hash, candidate.row,
        )  # fmt: skip

    for place, candidate in zip(tied, sorted((found[place] for place in tied), key=order), strict=True):
        found[place] = candidate


def _iter_chosen(
    runs: SortedRuns, num_files: int, is_chosen: Bool[np.ndarray, " rows"], columns: list[str]
) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
    """These columns of the chosen rows of the runs, batch by batch, with the rows' numbers."""
    import pyarrow as pa

    first = 0
    for number in range(num_files):
        for batch in runs.iter_batches(number):
            is_here = is_chosen[first : first + batch.num_rows]
            if is_here.any():
                yield batch.select(columns).filter(pa.array(is_here)), (np.flatnonzero(is_here) + first).tolist()
            first += batch.num_rows


def _read_keys(candidates: Candidates, rows: Sequence[int]) -> dict[int, tuple[str, str]]:
    """`text_key` and `content_key` of these rows."""
    is_chosen = np.zeros(len(candidates.likeness_keys), bool)
    is_chosen[list(rows)] = True
    keys: dict[int, tuple[str, str]] = {}
    for batch, numbers in _iter_chosen(candidates.runs, candidates.num_files, is_chosen, ["conversations", "digest"]):
        values, ends = _read_values(batch)
        texts = values.to_pylist()
        spoken = (texts[start:end] for start, end in pairwise([0, *ends.tolist()]))
        keys.update(zip(numbers, map(spoken_keys, spoken, batch.column("digest").to_pylist()), strict=True))
    return keys


def _read_candidates(batch: pa.RecordBatch, rows: Sequence[int], sources: Sequence[str]) -> Iterator[_Candidate]:
    names, codes, images, digests, hashes = (batch.column(name).to_pylist() for name in _COLUMNS[:-1])
    values, ends = _read_values(batch)
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    bounds = offsets[[0, *ends.tolist()]].tolist()
    words, lengths = memoryview(values.buffers()[2] or b""), np.diff(offsets).tobytes()
    of_lengths = [0, *(ends * offsets.itemsize).tolist()]
    columns = (names, codes, images, digests, hashes, rows, pairwise(bounds), pairwise(of_lengths))
    for name, code, image, digest, image_hash, row, (start, end), (first, last) in zip(*columns, strict=True):
        # How many texts there are and how long each is tells where one ends and the next begins.
        parts = ((last - first).to_bytes(8, "little"), lengths[first:last], words[start:end], (digest or "").encode())
        yield _Candidate(name, sources[code], image or "", xxhash.xxh3_128_digest(b"".join(parts)), image_hash, row)


def _read_values(batch: pa.RecordBatch) -> tuple[pa.StringArray, Int64[np.ndarray, " rows"]]:
    """All texts of a batch, and where those of each row end."""
    conversations = batch.column("conversations")
    return conversations.flatten().field("value"), np.cumsum(np.diff(conversations.offsets.to_numpy()))
