"""How many records a mix has, from its row and the catalogue's published sizes, before any of it was collected."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cambrian.data.mixes import parts_of_sources, plan_quotas
from cambrian.data.sources import Catalog, count_records, describe_sources

if TYPE_CHECKING:
    from cambrian.data.mixes import MixRow


def count_mix(row: MixRow, catalog: Catalog, *, samples_per_record: int, where: str) -> int:
    """Return the records of a mix, as if cleaning dropped nothing (curation counts what is really there).

    Raises:
        ParamsError: the row names a pool, a source or a category that the catalogue does not have.
    """
    sources = catalog.sources(row.pool)
    facts = describe_sources(sources)
    part_of = parts_of_sources(row.select, facts)
    available: Counter[str] = Counter()
    for name, source in sources.items():
        available[part_of[name]] += count_records(source, samples_per_record)
    quotas = plan_quotas(row.select, facts, samples_per_record=samples_per_record, where=where)
    return sum(
        available[quota.part] if quota.limit is None else min(quota.limit, available[quota.part]) for quota in quotas
    )
