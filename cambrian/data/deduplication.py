"""Which records of a scanned pool are there twice, without comparing all of them and without holding them in memory."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cambrian.data.duplicates import HashIndex, spoken_keys
from cambrian.data.ledger import Dropped

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa
    from jaxtyping import Bool

    from cambrian.data.ledger import Step
    from cambrian.data.partitions import SortedRuns


class _Candidate(NamedTuple):
    """A record that may be a duplicate; candidates sort by id, then by what else tells them apart."""

    id: str
    source: str
    text_key: str
    image: str
    content_key: str
    hash: bytes
    row: int


def find_candidates(
    runs: SortedRuns, num_files: int, may_be_repeated: Bool[np.ndarray, " rows"], sources: Sequence[str]
) -> list[_Candidate]:
    """Read the records that share a key with another one, in the order in which they are judged.

    `sources` are the names that the runs' numbers of sources stand for.
    """
    import pyarrow as pa

    candidates: list[_Candidate] = []
    first = 0
    for number in range(num_files):
        for batch in runs.iter_batches(number):
            is_candidate = may_be_repeated[first : first + batch.num_rows]
            if is_candidate.any():
                rows = np.flatnonzero(is_candidate) + first
                candidates += _read_candidates(batch.filter(pa.array(is_candidate)), rows.tolist(), sources)
            first += batch.num_rows
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
            likeness = f"and an image within {max_distance} bits of its image" if candidate.hash else "without an image"
            detail = f"same words as {names[alike[0]]} {likeness}"
            dropped.append(Dropped(candidate.id, candidate.source, "near-duplicate", detail))
            near.drop(candidate.source, "near-duplicate")
            rows.append(candidate.row)
        else:
            index.add(candidate.hash)
            names.append(candidate.id)
    return rows, dropped


def _read_candidates(batch: pa.RecordBatch, rows: Sequence[int], sources: Sequence[str]) -> list[_Candidate]:
    names = ("id", "source", "image", "digest", "hash")
    columns = [batch.column(name).to_pylist() for name in names]
    conversations = batch.column("conversations")
    values = conversations.flatten().field("value").to_pylist()
    ends = np.cumsum(np.diff(conversations.offsets.to_numpy())).tolist()
    texts = (values[start:end] for start, end in pairwise([0, *ends]))
    return [
        _Candidate(name, sources[source], words, image or "", content, image_hash, row)
        for name, source, image, (words, content), image_hash, row in zip(
            *columns[:3], map(spoken_keys, texts, columns[3]), columns[4], rows, strict=True
        )
    ]
