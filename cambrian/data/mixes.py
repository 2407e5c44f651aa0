"""Mixes as rows of params, and what they take of a pool: a pure function of row, sources, record ids and seed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import xxhash
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from cambrian.data.filters import Filter
from cambrian.interfaces import CATEGORIES, ParamsError
from cambrian.params import Params, look_up

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa
    from jaxtyping import Bool, Int16, Int64, UInt64

_PERCENT_TOLERANCE = 1.0
"""The paper's own ratios sum to between 100 and 100.4."""


class SelectNothing(Params):
    """No records: a run without this phase."""

    kind: Literal["nothing"]


class SelectEverything(Params):
    """The whole pool."""

    kind: Literal["everything"]


class SelectKept(Params):
    """The sources that the paper kept for Cambrian-7M."""

    kind: Literal["kept"]


class SelectSources(Params):
    """So many samples of each named source, nothing of the others."""

    kind: Literal["sources"]
    sources: dict[str, NonNegativeInt]


class SelectCap(Params):
    """At most so many samples of each source (the paper's threshold t)."""

    kind: Literal["cap"]
    max_per_source: NonNegativeInt
    uncapped_categories: list[str]


class SelectRatio(Params):
    """A total, divided over the categories."""

    kind: Literal["ratio"]
    total: NonNegativeInt
    percent: dict[str, NonNegativeFloat]
    max_per_source: NonNegativeInt | None = None
    """At most so many samples of each source take part; a row without it has no such rule."""


Select = SelectNothing | SelectEverything | SelectKept | SelectSources | SelectCap | SelectRatio
"""What a mix takes of its pool."""


class MixRow(Params):
    """One row of `mixes`; sizes are in the paper's samples."""

    pool: str
    select: Annotated[Select, Field(discriminator="kind")]
    format_prompts: bool
    filters: tuple[Filter, ...] = Field(default=(), strict=False)
    """What a record must pass before it can be selected; a row without filters has no rule, not a hidden one."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How many records of one part of the pool a mix takes."""

    part: str
    """A source or a category."""
    limit: int | None
    """None takes all."""
    is_target: bool
    """Whether fewer than the limit is a shortfall; a cap has none."""


def num_records(samples: int, samples_per_record: int) -> int:
    """How many records stand for so many of the paper's samples: rounded half up, at least 1 where there were any."""
    rounded = int((Decimal(samples) / samples_per_record).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    return max(rounded, 1) if samples > 0 else 0


def plan_quotas(
    select: Select,
    sources: Mapping[str, Mapping[str, Any]],
    *,
    samples_per_record: int,
    where: str,
) -> list[Quota]:
    """What a selection takes of each part of a pool, in the order of the parts' names; parts not named are not taken.

    Raises:
        ParamsError: an unknown source or category, or percents that do not sum to about 100.
    """
    match select:
        case SelectNothing():
            return []
        case SelectEverything():
            return [Quota(source, None, False) for source in sorted(sources)]
        case SelectKept():
            return [Quota(source, None, False) for source in sorted(sources) if sources[source]["in_7m"]]
        case SelectSources():
            for source in select.sources:
                look_up(sources, source, where=f"{where}.sources")
            return [
                Quota(source, num_records(samples, samples_per_record), True)
                for source, samples in sorted(select.sources.items())
            ]
        case SelectCap():
            for category in select.uncapped_categories:
                look_up(dict.fromkeys(CATEGORIES), category, where=f"{where}.uncapped_categories")
            cap = num_records(select.max_per_source, samples_per_record)
            return [
                Quota(source, None if sources[source]["category"] in select.uncapped_categories else cap, False)
                for source in sorted(sources)
            ]
        case SelectRatio():
            for category in select.percent:
                look_up(dict.fromkeys(CATEGORIES), category, where=f"{where}.percent")
            found = sum(select.percent.values())
            if abs(found - 100) > _PERCENT_TOLERANCE:
                raise ParamsError(f"{where}.percent: sums to {found:g}, expected 100 (within {_PERCENT_TOLERANCE:g})")
            amounts = divide_total(num_records(select.total, samples_per_record), select.percent)
            return [Quota(category, amount, True) for category, amount in sorted(amounts.items())]


def plan_caps(select: Select, sources: Iterable[str], *, samples_per_record: int) -> list[Quota]:
    """The caps per source that hold before a selection by ratio; none where it has no cap."""
    if not isinstance(select, SelectRatio) or select.max_per_source is None:
        return []
    cap = num_records(select.max_per_source, samples_per_record)
    return [Quota(source, cap, False) for source in sorted(sources)]


def parts_of_sources(select: Select, sources: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The part that each source belongs to: its category for a ratio, else itself."""
    by_category = isinstance(select, SelectRatio)
    return {source: facts["category"] if by_category else source for source, facts in sources.items()}


def divide_total(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """Divide a whole number in proportion to the weights by the largest remainder; the parts sum to it exactly.

    Equal remainders go to the name that sorts first.
    """
    exact = {name: Decimal(str(weight)) for name, weight in weights.items()}
    whole = sum(exact.values())
    shares = {name: total * weight / whole for name, weight in exact.items()}
    amounts = {name: int(share) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: (amounts[name] - shares[name], name))
    for name in by_remainder[: total - sum(amounts.values())]:
        amounts[name] += 1
    return amounts


def choose_rows(
    quotas: Sequence[Quota],
    parts: Sequence[str],
    source_codes: Int16[np.ndarray, " rows"],
    keys: UInt64[np.ndarray, " rows"],
    ids: pa.ChunkedArray,
    may_be_taken: Bool[np.ndarray, " rows"],
) -> Bool[np.ndarray, " rows"]:
    """Which rows the quotas take: of each part those with the lowest keys, equal keys by id.

    `parts` has the part of each source, `source_codes` the source of each row; a row's `keys` come from `rank_keys`.
    """
    is_taken = np.zeros(len(keys), bool)
    for quota in quotas:
        members = np.array([part == quota.part for part in parts], bool)[source_codes] & may_be_taken
        rows = np.flatnonzero(members)
        if quota.limit is not None and quota.limit < len(rows):
            rows = _lowest(rows, quota.limit, keys, ids)
        is_taken[rows] = True
    return is_taken


def rank_keys(ids: Sequence[str], seed: int, purpose: str) -> UInt64[np.ndarray, " rows"]:
    """Each record's place among others, from nothing but its id, the seed and what the place is for."""
    digest = xxhash.xxh3_64_intdigest
    prefix = f"{seed}/{purpose}/".encode()
    return np.fromiter((digest(prefix + name.encode()) for name in ids), np.uint64, len(ids))


def _lowest(
    rows: Int64[np.ndarray, " rows"], count: int, keys: UInt64[np.ndarray, " all"], ids: pa.ChunkedArray
) -> Int64[np.ndarray, " count"]:
    if count == 0:
        return rows[:0]
    found = keys[rows]
    last = np.partition(found, count - 1)[count - 1]
    below, tied = rows[found < last], rows[found == last]
    by_id = sorted(tied.tolist(), key=lambda row: str(ids[row].as_py()))
    return np.concatenate([below, np.array(by_id[: count - len(below)], np.int64)])
