"""How sure a score is, and whether two runs differ: exact where groups are right or wrong, by resampling elsewhere.

What is drawn at random is a group (MME's images, MMVP's pairs, MMBench's rotations, single items), within its category
where the metric averages over categories: the items of a group stand or fall together. Groups are sorted before they
are resampled, so the order of items changes no digit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from cambrian.evaluation.metrics import group_values, mean_of_strata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float64

    from cambrian.evaluation.benchmarks.benchmark import Metric
    from cambrian.interfaces import Item

    Strata = Sequence[Sequence[float]]
    """The values of each category's groups."""

_MAX_DRAWN = 2_000_000
"""Groups that are drawn at a time, which bounds memory (16 MB of indices); the draws are the same for any bound."""
_NUM_HALVINGS = 50
"""Of the interval in which a share is sought: to 1e-15."""
_ROUNDING = 1e-9
"""Two means of the same values differ by rounding; resampled means as far from 0 as the found one count as such."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its uncertainty over groups of items, all in the score's own unit."""

    score: float
    standard_error: float
    low: float
    """Lower end of the confidence interval."""
    high: float
    groups: int
    method: Literal["clopper-pearson", "bootstrap"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A second run's score minus a first run's, on the same items."""

    first: float
    second: float
    standard_error: float
    """Of `second - first`, from the differences of paired groups; smaller than that of two unrelated runs."""
    p_value: float
    """How often runs that are equally good would differ by as much (two-sided)."""
    better: int
    """Groups whose value the second run raises."""
    worse: int
    groups: int
    method: Literal["mcnemar", "bootstrap"]

    @property
    def change(self) -> float:
        """The second score minus the first."""
        return self.second - self.first


def estimate_score(
    metric: Metric,
    items: Sequence[Item],
    credits_: Sequence[float],
    *,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Estimate:
    """The score, its standard error and its confidence interval.

    The interval is Clopper and Pearson's where every group is right or wrong and the score is their plain mean, so it
    has a width at 0 and 100 too, where the standard error has none; elsewhere the bootstrap's percentiles.

    Raises:
        ValueError: there is no item, or an id stands twice.
    """
    _check_ids(items)
    strata = _strata_of(group_values(metric, items, credits_))
    score, error = mean_of_strata(strata)
    if _is_binary(strata):
        low, high = binomial_interval(sum(value == 1 for value in strata[0]), len(strata[0]), confidence=confidence)
    else:
        draws = resample_means(strata, num_resamples=num_resamples, seed=seed)
        low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    marks = metric.full_marks
    return Estimate(
        score=marks * score,
        standard_error=marks * error,
        low=marks * low,
        high=marks * high,
        groups=sum(map(len, strata)),
        method="clopper-pearson" if _is_binary(strata) else "bootstrap",
    )


def compare_credits(
    metric: Metric,
    items: Sequence[Item],
    first: Sequence[float],
    second: Sequence[float],
    *,
    num_resamples: int,
    seed: int,
) -> Difference:
    """What a second run's credits change against a first run's on the same items, and whether chance would.

    The p-value is McNemar's exact one where every group is right or wrong and the score is their plain mean; elsewhere
    that of the paired bootstrap, centred on no difference.

    Raises:
        ValueError: there is no item, or an id stands twice.
    """
    _check_ids(items)
    values = [group_values(metric, items, credits_) for credits_ in (first, second)]
    strata = [_strata_of(value) for value in values]
    changes = paired_changes(values[0], values[1])
    flat = [change for stratum in changes for change in stratum]
    better, worse = sum(change > 0 for change in flat), sum(change < 0 for change in flat)
    is_binary = all(map(_is_binary, strata))
    if is_binary:
        p_value = mcnemar_p_value(better, worse)
    else:
        p_value = p_value_of_draws(
            mean_of_strata(changes)[0], resample_means(changes, num_resamples=num_resamples, seed=seed)
        )
    return Difference(
        first=metric.full_marks * mean_of_strata(strata[0])[0],
        second=metric.full_marks * mean_of_strata(strata[1])[0],
        standard_error=metric.full_marks * mean_of_strata(changes)[1],
        p_value=p_value,
        better=better,
        worse=worse,
        groups=len(flat),
        method="mcnemar" if is_binary else "bootstrap",
    )


def paired_changes(
    first: Mapping[str, Mapping[str, float]], second: Mapping[str, Mapping[str, float]]
) -> list[list[float]]:
    """Every group's second value minus its first, by category, in the order of `group_values`."""
    return [[second[category][group] - value for group, value in groups.items()] for category, groups in first.items()]


def resample_means(strata: Strata, *, num_resamples: int, seed: int) -> Float64[np.ndarray, " resamples"]:
    """The mean of the strata's means for as many groups as there are, drawn with replacement within each stratum."""
    generator = np.random.default_rng(seed)
    total = np.zeros(num_resamples)
    for stratum in strata:
        values = np.asarray(stratum, np.float64)
        rows = max(1, _MAX_DRAWN // len(values))
        for start in range(0, num_resamples, rows):
            part = total[start : start + rows]
            part += values[generator.integers(len(values), size=(len(part), len(values)))].mean(axis=1)
    return total / len(strata)


def p_value_of_draws(found: float, draws: Float64[np.ndarray, " resamples"]) -> float:
    """How often a resampled mean lies as far from the found one as the found one lies from 0 (two-sided).

    The found mean counts as one of the draws, so the value is never 0.
    """
    as_far = np.abs(draws - found) >= abs(found) - _ROUNDING
    return (1 + int(as_far.sum())) / (1 + len(draws))


def mcnemar_p_value(better: int, worse: int) -> float:
    """The exact two-sided p-value of so many changes for the better and for the worse, each as likely as the other.

    Source: McNemar's test in its exact form, the binomial test of the discordant pairs.
    """
    changed = better + worse
    tail = sum(math.comb(changed, count) for count in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / (1 << changed))


def normal_p_value(change: float, standard_error: float) -> float:
    """How often a normal variable of this standard error lies as far from 0 (two-sided); 1 where neither moves."""
    if standard_error == 0:
        return 1.0 if change == 0 else 0.0
    return math.erfc(abs(change) / standard_error / math.sqrt(2))


def binomial_interval(successes: int, trials: int, *, confidence: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share: the shares that the count does not reject, one half on each side.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials: expected 0 to {trials} of at least one")
    half = (1 - confidence) / 2
    low = 0.0 if successes == 0 else _find_share(successes, trials, half)
    high = 1.0 if successes == trials else _find_share(successes + 1, trials, 1 - half)
    return low, high


def adjust_p_values(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjustment: what is at most L holds together with every other such finding but for a chance of L."""
    adjusted: dict[str, float] = {}
    highest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: (p_values[name], name))):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def _strata_of(values: Mapping[str, Mapping[str, float]]) -> list[list[float]]:
    return [list(groups.values()) for groups in values.values()]


def _is_binary(strata: Strata) -> bool:
    """Whether a score is the plain mean of rights and wrongs."""
    return len(strata) == 1 and all(value in (0, 1) for value in strata[0])


def _check_ids(items: Sequence[Item]) -> None:
    counts: dict[str, int] = {}
    for item in items:
        counts[item.id] = counts.get(item.id, 0) + 1
    if twice := sorted(item_id for item_id, count in counts.items() if count > 1):
        raise ValueError(f"{len(twice)} item ids stand more than once: {', '.join(twice[:5])}; ids must differ")


def _find_share(least: int, trials: int, chance: float) -> float:
    """The share at which at least `least` successes have this chance, by bisection: the chance grows with the share."""
    counts = np.arange(least, trials + 1)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, trials + 1)))])
    log_binomials = log_factorials[trials] - log_factorials[counts] - log_factorials[trials - counts]
    low, high = 0.0, 1.0
    for _ in range(_NUM_HALVINGS):
        share = (low + high) / 2
        found = np.exp(log_binomials + counts * math.log(share) + (trials - counts) * math.log1p(-share)).sum()
        low, high = (share, high) if found < chance else (low, share)
    return (low + high) / 2
