"""Curate a mix: which records of a clean pool a training phase sees, and in which order."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

import xxhash
from pydantic import Field, NonNegativeFloat, NonNegativeInt

from cambrian.artifacts import read_json, read_manifest, write_folder, write_json
from cambrian.data.format_prompts import add_format_prompt, read_format_prompt_table
from cambrian.data.ledger import Dropped, Ledger, write_dropped
from cambrian.data.records import read_records, write_records
from cambrian.interfaces import CATEGORIES, ParamsError
from cambrian.params import Params, look_up

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.data.format_prompts import FormatPromptsConfig
    from cambrian.interfaces import Record

_PERCENT_TOLERANCE = 1.0
"""The paper's own ratios sum to between 100 and 100.4."""
_log = logging.getLogger("cambrian")


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


class MixRow(Params):
    """One row of `mixes`; sizes are in the paper's samples."""

    pool: str
    select: Annotated[
        SelectNothing | SelectEverything | SelectKept | SelectSources | SelectCap | SelectRatio,
        Field(discriminator="kind"),
    ]
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


def curate_mix(
    row: MixRow,
    *,
    name: str,
    samples_per_record: int,
    seed: int,
    format_prompts: FormatPromptsConfig,
    pool: Path,
    output: Path,
) -> None:
    """Write the records that a row of `mixes` selects from a clean pool, what it left out, and the ledger.

    Whether a record is taken, and its place, follow from its id, the seed and how many of its part are wanted: records
    with the lowest hash are taken, so a smaller mix lies within a larger one and the pool's order does not matter.
    Where a part has fewer records than wanted, all are taken, the shortfall stands in the ledger, and no other part
    fills it.

    Raises:
        ArtifactError: the pool is incomplete.
        ParamsError: the row names a source or category that the pool does not have, or percents that are no whole.
    """
    read_manifest(pool)
    sources: dict[str, Any] = read_json(pool / "sources.json")
    records = read_records(pool / "records.parquet")
    quotas = plan_quotas(row.select, sources, samples_per_record=samples_per_record, where=f"mixes.{name}.select")
    categories = {source: facts["category"] for source, facts in sources.items()}
    part_of = categories if isinstance(row.select, SelectRatio) else {source: source for source in sources}
    taken_ids = select_ids(quotas, {record.id: part_of[record.source] for record in records}, seed=seed)

    ledger = Ledger()
    step = ledger.start("select")
    taken = []
    limits = {quota.part: quota.limit for quota in quotas}
    for record in records:
        if record.id in taken_ids:
            step.keep(record.source)
            taken.append(record)
        elif part_of[record.source] in limits:
            detail = f"the mix takes {limits[part_of[record.source]]} of {part_of[record.source]}"
            ledger.drop(Dropped(record.id, record.source, "over-limit", detail))
        else:
            ledger.drop(Dropped(record.id, record.source, "not-in-mix", ""))
    taken.sort(key=lambda record: _rank(record.id, seed, "order"))
    if row.format_prompts:
        table = read_format_prompt_table()
        taken = [add_format_prompt(record, table, format_prompts) for record in taken]

    with write_folder(output, mix=name, num_records=len(taken)) as folder:
        write_records(folder / "records.parquet", taken, categories)
        write_dropped(folder / "dropped.parquet", sorted(ledger.dropped, key=lambda dropped: dropped.id))
        parts = _describe_parts(quotas, records, taken, part_of)
        write_json(folder / "ledger.json", {"mix": name, "steps": ledger.to_json(), "parts": parts})
    for part, facts in parts.items():
        if facts["shortfall"]:
            _log.warning("mix %s: %s has %d of %d records", name, part, facts["taken"], facts["limit"])
    _log.info("mix %s: %d of %d records", name, len(taken), len(records))


def num_records(samples: int, samples_per_record: int) -> int:
    """How many records stand for so many of the paper's samples: rounded half up, at least 1 where there were any."""
    rounded = int((Decimal(samples) / samples_per_record).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    return max(rounded, 1) if samples > 0 else 0


def plan_quotas(
    select: SelectNothing | SelectEverything | SelectKept | SelectSources | SelectCap | SelectRatio,
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
        ranked = sorted(members[quota.part], key=lambda record_id: _rank(record_id, seed, "select"))
        taken.update(ranked[: quota.limit])
    return taken


def _rank(record_id: str, seed: int, purpose: str) -> tuple[int, str]:
    """A record's place, from nothing but its id and the seed; the order must not follow the selection's hash.

    (A capped source keeps its low hashes and a small one all of its own: by one hash the former would come first.)
    """
    return xxhash.xxh3_64_intdigest(f"{seed}/{purpose}/{record_id}".encode()), record_id


def _describe_parts(
    quotas: Sequence[Quota], records: Sequence[Record], taken: Sequence[Record], part_of: Mapping[str, str]
) -> dict[str, dict[str, int | None]]:
    available = _count_parts(records, part_of)
    num_taken = _count_parts(taken, part_of)
    return {
        quota.part: {
            "available": available[quota.part],
            "limit": quota.limit,
            "taken": num_taken[quota.part],
            "shortfall": (quota.limit or 0) - num_taken[quota.part] if quota.is_target else 0,
        }
        for quota in quotas
    }


def _count_parts(records: Sequence[Record], part_of: Mapping[str, str]) -> defaultdict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for record in records:
        counts[part_of[record.source]] += 1
    return counts
