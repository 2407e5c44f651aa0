"""The paper's claims as contrasts over runs, each with an effect, its error and a verdict."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from cambrian.report.analysis import CVBENCH, contrast_groups, join_cvbench, measure_grouping
from cambrian.report.published import FIGURE_SCORE_NAMES, look_up_table
from cambrian.report.scores import means_of_scores, out_of_100
from cambrian.report.tables import round_cell
from cambrian.report.talk import mean_with_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cambrian.report.config import Contrast, Finding, ReportConfig, TablesConfig
    from cambrian.report.published import Published
    from cambrian.report.scores import RunScores
    from cambrian.report.talk import Talk

OURS = "ours"
"""Source of a finding that the publication does not claim."""

Z_95 = 1.96
"""Standard errors from the middle of a normal distribution's 95% interval to its ends."""

Verdict = Literal["supported", "not supported", "inconclusive", "not attempted"]


@dataclass(frozen=True, slots=True)
class Judged:
    """A finding with what was found."""

    id: str
    claim: str
    source: str
    measure: str
    expect: str
    limit: float
    effect: float | None
    standard_error: float | None
    """Of the effect, over items and seeds."""
    low: float | None
    """End of the 95% interval of the effect."""
    high: float | None
    published_effect: float | None
    """The same contrast over the published numbers, where they exist."""
    verdict: Verdict
    runs: list[str]
    """The runs that were compared."""
    missing: list[str]

    def to_json(self) -> dict[str, Any]:
        """The finding as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Effect:
    value: float
    error: float
    runs: tuple[str, ...]


def judge_findings(
    findings: Sequence[Finding],
    scores: Mapping[str, RunScores],
    config: ReportConfig,
    tables: TablesConfig,
    published: Published,
    *,
    seed_deviations: Mapping[str, float],
    talk: Mapping[str, Talk],
) -> list[Judged]:
    """Judge every finding by the runs that there are.

    `seed_deviations` are measured between seeds, by measure; where there is none, the config's stands for it. `talk` is
    what runs were measured by in conversation.
    """
    printed = _published_scores(tables, published)
    return [
        _judge_talk(finding, talk, config)
        if finding.reading == "talk"
        else _judge(
            finding,
            scores,
            config,
            printed,
            published,
            seed_deviation=lambda measure: seed_deviations.get(measure, config.seed_standard_deviation),
        )
        for finding in findings
    ]


def judge_effect(effect: float, error: float, *, expect: str, limit: float, min_standard_errors: float) -> Verdict:
    """Whether an effect lies on the expected side of its limit, by enough standard errors.

    Not supported means that it lies on the other side by as many; anything between is inconclusive.
    """
    margin = min_standard_errors * error
    distance = {"above": effect - limit, "below": limit - effect, "within": limit - abs(effect)}[expect]
    if distance >= margin:
        return "supported"
    return "not supported" if distance <= -margin else "inconclusive"


def _judge(
    finding: Finding,
    scores: Mapping[str, RunScores],
    config: ReportConfig,
    printed: Mapping[str, Mapping[str, float]],
    published: Published,
    *,
    seed_deviation: Callable[[str], float],
) -> Judged:
    if finding.reading == "clusters":
        return _judge_clusters(finding, scores, config, published)
    sides: list[tuple[int, Contrast]] = [(1, finding)]
    if finding.relative_to is not None:
        sides.append((-1, finding.relative_to))
    named = {run for _, side in sides for run in [*side.plus, *side.minus]}
    effects = [
        (sign, _measure(side, finding.reading, scores, seed_deviation(side.measure), paired=finding.paired))
        for sign, side in sides
    ]
    value = error = None
    runs: list[str] = []
    missing = sorted(named - scores.keys())
    if all(effect is not None for _, effect in effects) and not (finding.needs_all and missing):
        present = [(sign, effect) for sign, effect in effects if effect is not None]
        value = math.fsum(sign * effect.value for sign, effect in present)
        error = math.sqrt(math.fsum(effect.error**2 for _, effect in present))
        runs = sorted({run for _, effect in present for run in effect.runs})
    theirs = [
        (sign, None if finding.source == OURS else _measure_published(side, finding, printed, published))
        for sign, side in sides
    ]
    printed_effect = (
        math.fsum(sign * effect for sign, effect in theirs if effect is not None)
        if all(effect is not None for _, effect in theirs)
        else None
    )
    return _make_judged(
        finding,
        config,
        effect=value,
        error=error,
        printed_effect=printed_effect,
        runs=runs,
        missing=missing,
    )


def _judge_clusters(
    finding: Finding, scores: Mapping[str, RunScores], config: ReportConfig, published: Published
) -> Judged:
    """Whether benchmarks of one category go together: correlations within categories less those between them."""
    data = published.figures["fig_correlation"]["data"]
    names = [FIGURE_SCORE_NAMES.get(label, label) for label in data["labels"]]
    group_of = {name: group for group, members in published.categories.items() for name in members}
    group_of[CVBENCH] = group_of["CV-Bench-2D"]
    groups = [group_of[name] for name in names]
    runs = [run for run in finding.plus if run in scores and scores[run].with_image]
    pool = [join_cvbench({name: scores[run].with_image[name] for name in published.scores}) for run in runs]
    measured = measure_grouping(pool, names, groups)
    value, error = measured if measured is not None else (None, None)
    return _make_judged(
        finding,
        config,
        effect=value,
        error=error,
        printed_effect=contrast_groups(data["matrix"], groups),
        runs=sorted(runs) if measured is not None else [],
        missing=sorted(set(finding.plus) - scores.keys()),
    )


def _judge_talk(finding: Finding, talk: Mapping[str, Talk], config: ReportConfig) -> Judged:
    """What one run says less what the other says to the same open questions; the error is over these pairs."""
    (plus,), (minus,) = finding.plus, finding.minus
    found = [talk[run].values[finding.measure] for run in (plus, minus) if run in talk]
    value = error = None
    if len(found) == len((plus, minus)):
        value, error = mean_with_error([ours - other for ours, other in zip(*found, strict=True)])
    return _make_judged(
        finding,
        config,
        effect=value,
        error=error,
        printed_effect=None,  # the paper shows examples
        runs=sorted((plus, minus)) if value is not None else [],
        missing=sorted({plus, minus} - talk.keys()),
    )


def _make_judged(
    finding: Finding,
    config: ReportConfig,
    *,
    effect: float | None,
    error: float | None,
    printed_effect: float | None,
    runs: list[str],
    missing: list[str],
) -> Judged:
    """The finding with its verdict; what has no effect was not attempted."""
    verdict: Verdict = "not attempted"
    if effect is not None and error is not None:
        verdict = judge_effect(
            effect, error, expect=finding.expect, limit=finding.limit, min_standard_errors=config.min_standard_errors
        )
    reach = None if error is None else Z_95 * error
    return Judged(
        id=finding.id,
        claim=finding.claim,
        source=finding.source,
        measure=finding.measure,
        expect=finding.expect,
        limit=finding.limit,
        effect=round_cell(effect),
        standard_error=round_cell(error),
        low=None if effect is None or reach is None else round_cell(effect - reach),
        high=None if effect is None or reach is None else round_cell(effect + reach),
        published_effect=round_cell(printed_effect),
        verdict=verdict,
        runs=runs,
        missing=missing,
    )


def _measure(
    side: Contrast, reading: str, scores: Mapping[str, RunScores], seed_deviation: float, *, paired: bool
) -> _Effect | None:
    """Mean over `plus` less mean over `minus`.

    Runs of one mean answer the same questions, so their errors over items are averaged, not shrunk; the errors of the
    two means are added as if their questions were different ones, which is cautious. Seeds are independent.
    """
    plus, minus = _present(side, scores, paired=paired)
    if not plus or bool(side.minus) != bool(minus):
        return None
    value = variance = 0.0
    shares: dict[str, float] = {}
    for sign, runs in ((1, plus), (-1, minus)):
        if runs:
            readings = [_read(scores[run], side.measure, reading) for run in runs]
            value += sign * math.fsum(number for number, _ in readings) / len(readings)
            variance += (math.fsum(error for _, error in readings) / len(readings)) ** 2
            for run in runs:
                shares[run] = shares.get(run, 0.0) + sign / len(runs)
    variance += seed_deviation**2 * math.fsum(share**2 / scores[run].num_seeds for run, share in shares.items())
    return _Effect(value, math.sqrt(variance), tuple(shares))


def _present(side: Contrast, scores: Mapping[str, RunScores], *, paired: bool) -> tuple[list[str], list[str]]:
    if paired and side.minus:
        pairs = [pair for pair in zip(side.plus, side.minus, strict=True) if all(run in scores for run in pair)]
        return [first for first, _ in pairs], [second for _, second in pairs]
    return [run for run in side.plus if run in scores], [run for run in side.minus if run in scores]


def _read(run: RunScores, measure: str, reading: str) -> tuple[float, float]:
    """A run's number and its error over items; without the image the error is taken to be the same as with it."""
    error = out_of_100(measure, run.standard_error[measure])
    if reading == "gap":
        number = run.with_image[measure] - run.without_image[measure]
        return out_of_100(measure, number), math.sqrt(2) * error
    if reading == "blind_over_chance":
        return out_of_100(measure, run.without_image[measure] - run.chance[measure]), error
    return out_of_100(measure, run.headline[measure]), error


def _measure_published(
    side: Contrast, finding: Finding, printed: Mapping[str, Mapping[str, float]], published: Published
) -> float | None:
    if finding.reading != "with_image":
        return _published_panel(side.measure, finding.reading, published)
    means = []
    for runs in (side.plus, side.minus):
        values = [printed[run][side.measure] for run in runs if side.measure in printed.get(run, {})]
        if len(values) < len(runs):
            return None
        means.append(math.fsum(values) / len(values) if values else 0.0)
    return means[0] - means[1]


def _published_scores(tables: TablesConfig, published: Published) -> dict[str, dict[str, float]]:
    """Each run's published numbers by measure, from the tables whose rows it fills; the fullest table first."""
    numbers: dict[str, dict[str, float]] = {}
    filled = sorted(tables.scores.items(), key=lambda entry: -len(look_up_table(published, entry[0]).columns))
    for table_id, config in filled:
        printed = look_up_table(published, table_id)
        for row in config.rows:
            (values,) = printed.find_rows(config.keys, row.row)
            cells = {column: printed.cell(values, column) for column in printed.columns if column not in config.keys}
            found = {name: float(cell) for name, cell in cells.items() if isinstance(cell, int | float)}
            means = means_of_scores(found, published)
            if "Average" not in {**found, **means} and all(name in found for name in published.categories):
                means["Average"] = math.fsum(found[name] for name in published.categories) / len(published.categories)
            numbers[row.run] = {**means, **found, **numbers.get(row.run, {})}
    return numbers


def _published_panel(measure: str, reading: str, published: Published) -> float | None:
    """The figure's gap with and without the image, or without the image over chance, of a score or a category."""
    panel = published.figures["fig_benchmarks"]["left"]
    column = {"gap": "enabled minus disabled", "blind_over_chance": "disabled minus random"}[reading]
    place = panel["columns"].index(column)
    numbers = {FIGURE_SCORE_NAMES.get(row[0], row[0]): float(row[place]) for row in panel["rows"]}
    members = published.categories.get(measure, (measure,))
    found = [numbers[member] for member in members if member in numbers]
    return math.fsum(found) / len(found) if len(found) == len(members) else None
