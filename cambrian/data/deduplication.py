"""Which records of a scanned pool are there twice, without comparing all of them and without holding them in memory."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cambrian.data.duplicates import HashIndex, spoken_keys
from cambrian.data.ledger import Dropped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa
    from jaxtyping import Bool, UInt64

    from cambrian.data.ledger import Step
    from cambrian.data.partitions import SortedRuns

_ROWS_AT_ONCE = 10_000


class _Candidate(NamedTuple):
    """A record that may be a duplicate; candidates sort by id, then by what else tells them apart."""

    id: str
    source: str
    text_key: str
    image: str
    content_key: str
    hash: bytes
    row: int


def find_repeated(keys: UInt64[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    """Which keys are there more than once."""
    order = np.argsort(keys)
    same = np.diff(keys[order]) == 0
    repeated = np.zeros(len(keys), bool)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return repeated


def find_candidates(
    runs: SortedRuns, num_rows: Sequence[int], may_be_repeated: Bool[np.ndarray, " rows"]
) -> list[_Candidate]:
    """Read the records that share a key with another one, in the order in which they are judged."""
    candidates: list[_Candidate] = []
    first = 0
    for number, count in enumerate(num_rows):
        rows = np.flatnonzero(may_be_repeated[first : first + count])
        if len(rows):
            run = runs.read(number)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                piece = rows[start : start + _ROWS_AT_ONCE]
                candidates += _read_candidates(run.take(piece), piece + first)
        first += count
    return sorted(candidates)


def drop_duplicates(
    candidates: Iterable[_Candidate], max_distance: int, exact: Step, near: Step
) -> tuple[list[int], list[Dropped]]:
    """Judge the candidates one after the other: of records that are alike the first stays.

    Counts the dropped in the steps; returns their rows and what is written of them.
    """
    rows: list[int] = []
    dropped: list[Dropped] = []
    kept = []
    ids: set[str] = set()
    first_with: dict[str, str] = {}
    for candidate in candidates:
        if candidate.id in ids:
            fault = Dropped(candidate.id, candidate.source, "duplicate-id", "another record of this pool has this id")
        elif candidate.content_key in first_with:
            detail = f"same words and image as {first_with[candidate.content_key]}"
            fault = Dropped(candidate.id, candidate.source, "exact-duplicate", detail)
        else:
            ids.add(candidate.id)
            first_with[candidate.content_key] = candidate.id
            kept.append(candidate)
            continue
        exact.drop(candidate.source, fault.reason)
        dropped.append(fault)
        rows.append(candidate.row)
    counts = Counter((candidate.text_key, bool(candidate.hash)) for candidate in kept)
    groups: dict[tuple[str, bool], tuple[HashIndex, list[str]]] = {}
    for candidate in kept:
        group = candidate.text_key, bool(candidate.hash)
        if counts[group] == 1:
            continue
        index, names = groups.setdefault(group, (HashIndex(max_distance), []))
        if alike := index.find(candidate.hash):
            detail = f"same words as {names[alike[0]]} and an image within {max_distance} bits of its image"
            dropped.append(Dropped(candidate.id, candidate.source, "near-duplicate", detail))
            near.drop(candidate.source, "near-duplicate")
            rows.append(candidate.row)
        else:
            index.add(candidate.hash)
            names.append(candidate.id)
    return rows, dropped


def _read_candidates(table: pa.Table, rows: Iterable[int]) -> list[_Candidate]:
    names = ("id", "source", "image", "digest", "hash")
    columns = [table.column(name).to_pylist() for name in names]
    digests = columns[3]
    keys = map(spoken_keys, table.column("texts").to_pylist(), digests)
    return [
        _Candidate(
            id=name,
            source=source,
            text_key=words,
            image=image or "",
            content_key=content,
            hash=image_hash,
            row=int(row),
        )
        for name, source, image, _, image_hash, (words, content), row in zip(*columns, keys, rows, strict=True)
    ]
