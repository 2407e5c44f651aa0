"""What the paper's caps and ratios take of a pool of the published sizes, against the totals that the paper gives.

Nothing is read but the catalogue: whether the rules give the paper's numbers depends on no scale.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.data.mixes import SelectCap, SelectRatio, parts_of_sources, plan_quotas
from cambrian.data.sources import read_catalog
from cambrian.params import Params, parse_block, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cambrian.data.mixes import Select
    from cambrian.data.sources import Source

TOTALS_PATH = Path(__file__).with_suffix(".yaml")

HALF_A_THOUSAND = 500
"""Samples by which a published size may differ from the true one, which is printed in thousands."""


class PoolOfTheStudy(Params):
    """How the pool differed from the published one when the caps were studied."""

    merged: dict[str, str]
    """Sources that were part of another one."""
    thousands: dict[str, float]
    """Sources of another size."""


class PublishedTotals(Params):
    """All of totals.yaml."""

    caps: dict[int, int]
    kept: float
    categories_of_kept: dict[str, float]
    ratio_total: int
    ratios: dict[int, dict[str, float]]
    when_caps_were_studied: PoolOfTheStudy


@dataclass(frozen=True, slots=True)
class Total:
    """One published total and what our rules give."""

    what: str
    published: int
    """Samples."""
    ours: int
    """Of the pool as published."""
    parts: dict[str, int] = field(default_factory=dict)
    """For a cap: by which source the pool of the study gives how many samples less or more."""
    rounding: int = HALF_A_THOUSAND
    """Samples by which the two may differ because published sizes are rounded."""

    @property
    def explained(self) -> int:
        """Ours, in the pool of the study."""
        return self.ours + sum(self.parts.values())

    @property
    def agrees(self) -> bool:
        """Whether the published total comes out to within rounding."""
        return abs(self.explained - self.published) <= self.rounding


def read_published_totals() -> PublishedTotals:
    """Read totals.yaml."""
    return parse_block(PublishedTotals, read_yaml(TOTALS_PATH), where=TOTALS_PATH.name)


def count_taken(select: Select, sizes: Mapping[str, int], categories: Mapping[str, str]) -> dict[str, int]:
    """How many samples a selection takes of each part of a pool of these sizes."""
    facts = {name: {"category": categories[name]} for name in sizes}
    available: Counter[str] = Counter()
    for name, part in parts_of_sources(select, facts).items():
        available[part] += sizes[name]
    return {
        quota.part: available[quota.part] if quota.limit is None else min(available[quota.part], quota.limit)
        for quota in plan_quotas(select, facts, samples_per_record=1, where="totals")
    }


def compare_totals(sources: Mapping[str, Source], published: PublishedTotals) -> list[Total]:
    """Every published total: caps, ratios, and what was kept."""
    return [
        *(_compare_cap(cap * 1000, total * 1000, sources, published) for cap, total in published.caps.items()),
        *_compare_ratios(sources, published),
        *_compare_kept(sources, published),
    ]


def _compare_cap(cap: int, total: int, sources: Mapping[str, Source], published: PublishedTotals) -> Total:
    select = SelectCap(kind="cap", max_per_source=cap, uncapped_categories=[])
    sizes = _sizes(sources)
    categories = {name: source.category for name, source in sources.items()}
    taken = count_taken(select, sizes, categories)
    study = published.when_caps_were_studied
    sizes_then = sizes | {name: round(thousands * 1000) for name, thousands in study.thousands.items()}
    for part, whole in study.merged.items():
        sizes_then[whole] += sizes_then.pop(part)
    taken_then = count_taken(select, sizes_then, categories)
    parts = {name: taken_then.get(name, 0) - taken[name] for name in taken if taken_then.get(name, 0) != taken[name]}
    num_rounded = sum(size < cap for size in sizes_then.values())
    # Errors of many rounded sizes add up like their variances; three standard deviations of uniform ones.
    rounding = round(3 * HALF_A_THOUSAND * (num_rounded / 3) ** 0.5) + HALF_A_THOUSAND
    return Total(f"cap of {cap // 1000}k", total, sum(taken.values()), parts, rounding)


def _compare_ratios(sources: Mapping[str, Source], published: PublishedTotals) -> list[Total]:
    total = published.ratio_total * 1000
    categories = {name: source.category for name, source in sources.items()}
    return [
        Total(
            f"ratios of experiment {number}",
            total,
            sum(
                count_taken(
                    SelectRatio(kind="ratio", total=total, percent=percent), _sizes(sources), categories
                ).values()
            ),
        )
        for number, percent in published.ratios.items()
    ]


def _compare_kept(sources: Mapping[str, Source], published: PublishedTotals) -> list[Total]:
    found: Counter[str] = Counter()
    for name, size in _sizes(sources).items():
        if sources[name].in_7m:
            found["everything"] += size
            found[sources[name].category] += size
    expected = {"everything": published.kept, **published.categories_of_kept}
    return [Total(f"kept: {name}", round(thousands * 1000), found[name]) for name, thousands in expected.items()]


def _sizes(sources: Mapping[str, Source]) -> dict[str, int]:
    return {name: round(source.thousands * 1000) for name, source in sources.items()}


def describe_totals(totals: list[Total]) -> str:
    """The comparison as text, a line per total."""
    lines = [f"{'':<24} {'published':>10} {'by our rules':>13} {'difference':>11}"]
    for total in totals:
        difference = total.ours - total.published
        lines.append(f"{total.what:<24} {total.published:>10,} {total.ours:>13,} {difference:>+11,}")
        if total.parts:
            reasons = ", ".join(f"{name} {change:+,}" for name, change in total.parts.items())
            verdict = "within" if total.agrees else "BEYOND"
            lines.append(
                f"    with the sizes of the study ({reasons}): {total.explained:,}, "
                f"{total.explained - total.published:+,}, {verdict} rounding ({total.rounding:,})"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the comparison; exit with 1 where a total differs by more than rounding."""
    argparse.ArgumentParser(description=__doc__, allow_abbrev=False).parse_args()
    totals = compare_totals(read_catalog().instruction, read_published_totals())
    sys.stdout.write(describe_totals(totals))
    if not all(total.agrees for total in totals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
