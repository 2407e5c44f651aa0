"""Verdicts for what figures print or plot as numbers and no table has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cambrian.report import score_figures
from cambrian.report.analysis import MIN_RUNS
from cambrian.report.published import FIGURE_SCORE_NAMES
from cambrian.report.tables import round_cell
from cambrian.report.unfreezing import V_STAR, list_changes
from cambrian.report.verdicts import Verdict, explain_missing_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.report.config import ReportConfig, TablesConfig
    from cambrian.report.history import Origin
    from cambrian.report.published import Published
    from cambrian.report.score_figures import Rows
    from cambrian.report.scores import RunScores
    from cambrian.report.verdicts import Word


class FigureJudge:
    """Compares the plotted values of figures with ours, each with its own error."""

    def __init__(
        self,
        scores: Mapping[str, RunScores],
        config: TablesConfig,
        report: ReportConfig,
        published: Published,
        *,
        seed_deviations: Mapping[str, float],
        origins: Mapping[str, Origin],
        scale: str,
    ) -> None:
        self.scores = scores
        self.config = config
        self.report = report
        self.published = published
        self.seed_deviations = seed_deviations
        self.origins = origins
        self.scale = scale
        self.pool = sum(run in scores for run in config.backbone_runs)

    def judge(self) -> list[Verdict]:
        """The verdicts of figures 3, 5, 10 and 13."""
        return [*self._judge_panel(), *self._judge_map(), *self._judge_encoders(), *self._judge_correlations(),
                *self._judge_changes()]  # fmt: skip

    def _judge_panel(self) -> list[Verdict]:
        """Figure 3, left: means over the backbones, whose error is that of a mean over models."""
        rows = score_figures.list_image_panel(self.scores, self.config, self.published)
        ours = _by(rows, ("benchmark", "condition"), face=score_figures.REPRODUCED)
        verdicts = []
        for row in rows:
            if row["face"] == score_figures.PUBLISHED:
                found = ours.get((row["benchmark"], row["condition"]))
                error = (found["high"] - found["score"]) / math.sqrt(self.pool) if found else None
                verdicts.append(
                    self._compare("fig_benchmarks", row["benchmark"], row["condition"], row["score"],
                                  found["score"] if found else None, error, run="", seeds=0.0)
                )  # fmt: skip
        return verdicts

    def _judge_map(self) -> list[Verdict]:
        panel = self.published.figures["fig_benchmarks"]["right"]
        why = "components of a pool of models that is not stated, turned and scaled arbitrarily; the map is drawn"
        return [
            self._make(
                "fig_benchmarks", str(row[0]), axis, float(row[place]), None, None, None, "", "not possible", why
            )
            for row in panel["rows"]
            for axis, place in (("first component", 2), ("second component", 3))
        ]

    def _judge_encoders(self) -> list[Verdict]:
        """Figure 5: category means; those of the encoders of table 11 follow from it, DINOv2@518 stands only here."""
        data = self.published.figures["fig_interface"]["data"]
        assumed = self.report.seed_standard_deviation
        verdicts = []
        for row in data["rows"]:
            run = self.config.plotted_runs[str(row[1])]
            found = self.scores.get(run)
            for category, printed in zip(data["columns"][2:], row[2:], strict=True):
                value, error = (found.headline[category], found.standard_error[category]) if found else (None, None)
                verdicts.append(
                    self._compare("fig_interface", str(row[1]), category, round(float(printed), 4), value, error,
                                  run=run, seeds=self.seed_deviations.get(category, assumed))
                )  # fmt: skip
        return verdicts

    def _judge_correlations(self) -> list[Verdict]:
        """Figure 10: every two benchmarks once; the error is a correlation's over so many models."""
        rows = score_figures.list_correlations(self.scores, self.config, self.published)
        ours = _by(rows, ("benchmark", "other"), face=score_figures.REPRODUCED)
        verdicts = []
        for row in rows:
            if row["face"] == score_figures.PUBLISHED and row["place"] < row["other_place"]:
                found = ours.get((row["benchmark"], row["other"]))
                value = found["correlation"] if found else None
                error = (
                    (1 - value**2) / math.sqrt(self.pool - 1) if value is not None and self.pool > MIN_RUNS else None
                )
                verdicts.append(
                    self._compare("fig_correlation", row["benchmark"], row["other"], row["correlation"],
                                  value if error is not None else None, error, run="", seeds=0.0)
                )  # fmt: skip
        return verdicts

    def _judge_changes(self) -> list[Verdict]:
        verdicts = []
        for change in list_changes(self.scores, self.config, self.published):
            key = ("fig_unfreeze_change", change.model, FIGURE_SCORE_NAMES.get(change.measure, change.measure))
            if change.measure == V_STAR:
                why = "the benchmark stands in this figure alone, and its scores are published nowhere"
                verdicts.append(self._make(*key, change.published, None, None, None, change.run, "not possible", why))
            else:
                verdicts.append(
                    self._compare(*key, change.published, change.reproduced, change.standard_error, run=change.run,
                                  seeds=2 * self.report.seed_standard_deviation)
                )  # fmt: skip
        return verdicts

    def _compare(
        self,
        figure: str,
        row: str,
        column: str,
        published: float,
        ours: float | None,
        error: float | None,
        *,
        run: str,
        seeds: float,
    ) -> Verdict:
        if ours is None or error is None:
            why = explain_missing_run(run) if run else "too few of its runs have scores in this breadth"
            return self._make(figure, row, column, published, None, None, None, run, "not attempted", why)
        tolerance = self.report.min_standard_errors * math.hypot(error, seeds)
        apart = abs(ours - published)
        word: Word = "agrees" if apart <= tolerance else "differs"
        return self._make(figure, row, column, published, ours, error, tolerance, run, word, f"apart by {apart:.4g}")

    def _make(
        self,
        figure: str,
        row: str,
        column: str,
        published: float,
        ours: float | None,
        error: float | None,
        tolerance: float | None,
        run: str,
        word: Word,
        why: str,
    ) -> Verdict:
        origin = self.origins.get(run)
        return Verdict(
            table=figure,
            number=int(self.published.figures[figure]["neurips_number"]),
            row=row,
            column=column,
            published=published,
            reproduced=round_cell(ours),
            standard_error=round_cell(error),
            tolerance=round_cell(tolerance),
            scale=self.scale,
            run=run,
            commit=origin.commit if origin else "",
            artefact=origin.artefact if origin else "",
            verdict=word,
            why=why,
        )


def _by(rows: Rows, fields: Sequence[str], *, face: str) -> dict[tuple[str, ...], dict[str, float]]:
    return {tuple(row[field] for field in fields): row for row in rows if row["face"] == face}
