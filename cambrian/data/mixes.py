"""Mixes as rows of params, and what they take of a pool: a pure function of row, sources, record ids and seed."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import xxhash
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from cambrian.interfaces import CATEGORIES, ParamsError
from cambrian.params import Params, look_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


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


Select = SelectNothing | SelectEverything | SelectKept | SelectSources | SelectCap | SelectRatio
"""What a mix takes of its pool."""


class MixRow(Params):
    """One row of `mixes`; sizes are in the paper's samples."""

    pool: str
    select: Annotated[Select, Field(discriminator="kind")]
    format_prompts: bool


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


def select_ids(quotas: Sequence[Quota], part_by_id: Mapping[str, str], *, seed: int) -> set[str]:
    """The ids that the quotas take: of each part the lowest by a hash of seed and id."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    for record_id, part in part_by_id.items():
        members[part].append(record_id)
    taken: set[str] = set()
    for quota in quotas:
        ranked = sorted(members[quota.part], key=lambda record_id: rank(record_id, seed, "select"))
        taken.update(ranked[: quota.limit])
    return taken


def rank(record_id: str, seed: int, purpose: str) -> tuple[int, str]:
    """A record's place among others, from nothing but its id, the seed and what the place is for."""
    return xxhash.xxh3_64_intdigest(f"{seed}/{purpose}/{record_id}".encode()), record_id
