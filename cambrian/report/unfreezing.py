"""Figure 13: by how many percent a trained encoder changes each score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cambrian.report.analysis import CVBENCH
from cambrian.report.published import AVERAGE, FIGURE_SCORE_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cambrian.report.config import TablesConfig
    from cambrian.report.published import Published
    from cambrian.report.scores import RunScores

CVBENCH_PARTS = ("CV-Bench-2D", "CV-Bench-3D")
V_STAR = "V*Star"
"""A benchmark that stands in this figure alone; its scores are published nowhere."""

ALL_MODELS = "All Model Average"
UNFREEZING_TABLES = ("recipe_1.2M", "recipe_1.2M_unfrozen")


@dataclass(frozen=True, slots=True)
class Change:
    """One cell of the figure."""

    model: str
    measure: str
    """As the figure prints it."""
    published: float
    run: str
    """The run with the trained encoder; empty in rows of averages."""
    reproduced: float | None
    standard_error: float | None
    """Over items of both runs, to first order."""


def list_changes(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> list[Change]:
    """The figure's cells with ours beside them; a row of averages needs all of its models."""
    data = published.figures["fig_unfreeze_change"]["data"]
    pairs = _pair_runs(config)
    groups = _group_models(published)
    changes = []
    for name, *values in data["rows"]:
        for measure, printed in zip(data["columns"][1:], values, strict=True):
            if printed is None:
                continue
            members = groups.get(name, [name])
            found = [_measure_change(pairs.get(member), measure, scores) for member in members]
            known = [change for change in found if change is not None]
            whole = bool(known) and len(known) == len(members)
            changes.append(
                Change(
                    model=name,
                    measure=measure,
                    published=float(printed),
                    run=pairs.get(name, ("", ""))[1],
                    reproduced=math.fsum(value for value, _ in known) / len(known) if whole else None,
                    standard_error=math.fsum(error for _, error in known) / len(known) if whole else None,
                )
            )
    return changes


def _pair_runs(config: TablesConfig) -> dict[str, tuple[str, str]]:
    """The frozen and the trained run of every model of the figure, by its printed name."""
    frozen, trained = (config.scores[table] for table in UNFREEZING_TABLES)
    keys_of = {row.run: tuple(row.row) for row in frozen.rows}
    trained_of = {tuple(row.row): row.run for row in trained.rows}
    return {
        name: (run, trained_of[keys_of[run]])
        for name, run in config.plotted_runs.items()
        if run in keys_of and keys_of[run] in trained_of
    }


def _group_models(published: Published) -> dict[str, list[str]]:
    """The models behind each row of averages: those that follow it, and all for the first."""
    groups: dict[str, list[str]] = {}
    models = []
    last = ""
    for name, *_ in published.figures["fig_unfreeze_change"]["data"]["rows"]:
        if name.endswith(AVERAGE):
            last = name
            groups[name] = []
        else:
            groups[last].append(name)
            models.append(name)
    return {ALL_MODELS: models, **{name: members for name, members in groups.items() if members}}


def _measure_change(
    runs: tuple[str, str] | None, measure: str, scores: Mapping[str, RunScores]
) -> tuple[float, float] | None:
    if runs is None or any(run not in scores for run in runs) or measure == V_STAR:
        return None
    (before, before_error), (after, after_error) = (_read(scores[run], measure) for run in runs)
    if before == 0:
        return None
    error = 100 * math.hypot(after_error / before, after * before_error / before**2)
    return 100 * (after / before - 1), error


def _read(run: RunScores, measure: str) -> tuple[float, float]:
    name = FIGURE_SCORE_NAMES.get(measure, measure)
    if name == CVBENCH:
        values = [run.headline[part] for part in CVBENCH_PARTS]
        return math.fsum(values) / 2, math.hypot(*(run.standard_error[part] for part in CVBENCH_PARTS)) / 2
    return run.headline[name], run.standard_error[name]
