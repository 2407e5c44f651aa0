"""Scores of runs: reading, and the paper's means over them with their standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json
from cambrian.interfaces import ArtifactError
from cambrian.report.published import AVERAGE, KNOWLEDGE, MME, MME_DIVISOR, SEEING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cambrian.report.published import Published

SCORES_NAME = "scores.json"


@dataclass(frozen=True, slots=True)
class RunScores:
    """One run's numbers by measure: a score (MME-P 0 to 2000, else 0 to 100), a category, `Average` or `Seeing`."""

    run: str
    with_image: Mapping[str, float]
    """Empty for a run that was trained without images and asked without them."""
    without_image: Mapping[str, float]
    standard_error: Mapping[str, float]
    """Over items; of the number with the image where there is one."""
    chance: Mapping[str, float]
    num_seeds: int = 1
    """Runs of which these numbers are the mean."""

    @property
    def headline(self) -> Mapping[str, float]:
        """The numbers that stand in tables: with the image, or without for a run that uses none."""
        return self.with_image or self.without_image


def read_scores(results: Path, runs: Iterable[str], published: Published, *, scale: str) -> dict[str, RunScores]:
    """Read the scores of every run that has some; a run without is missing, and nothing stands in for it.

    Raises:
        ArtifactError: a file is broken, lacks a score, or is of another run or scale.
    """
    scores = {}
    for run in runs:
        path = results / run / SCORES_NAME
        if path.is_file():
            scores[run] = _parse_scores(read_json(path), path, run, scale, published)
    return scores


def mean_of_scores(scores: Mapping[str, float], members: Sequence[str]) -> float:
    """The mean of these scores; MME-P enters divided by 20.

    Source: paper, benchmark section; every published average fits within 0.02.
    """
    return math.fsum(out_of_100(name, scores[name]) for name in members) / len(members)


def means_of_scores(scores: Mapping[str, float], published: Published) -> dict[str, float]:
    """The category means, the average of sixteen and the mean of the categories that need the image.

    A mean of which a score is missing is left out.
    """
    groups = {**published.categories, AVERAGE: tuple(published.scores), SEEING: seeing_scores(published)}
    return {
        name: mean_of_scores(scores, members)
        for name, members in groups.items()
        if all(member in scores for member in members)
    }


def errors_of_means(errors: Mapping[str, float], published: Published) -> dict[str, float]:
    """The standard errors of the same means, the scores' items being different ones."""
    groups = {**published.categories, AVERAGE: tuple(published.scores), SEEING: seeing_scores(published)}
    return {
        name: math.sqrt(math.fsum(out_of_100(member, errors[member]) ** 2 for member in members)) / len(members)
        for name, members in groups.items()
        if all(member in errors for member in members)
    }


def seeing_scores(published: Published) -> tuple[str, ...]:
    """The scores of every category but Knowledge."""
    return tuple(score for group, members in published.categories.items() if group != KNOWLEDGE for score in members)


def out_of_100(name: str, value: float) -> float:
    """A score on the scale on which scores are averaged and compared."""
    return value / MME_DIVISOR if name == MME else value


def _parse_scores(value: Any, path: Path, run: str, scale: str, published: Published) -> RunScores:
    if (value["run"], value["scale"]) != (run, scale):
        raise ArtifactError(
            f"{path} is of run {value['run']!r} at scale {value['scale']!r}, expected {run!r} at {scale!r}: delete it "
            "and run `dvc repro`"
        )
    entries = value["scores"]
    missing = [name for name in published.scores if name not in entries]
    if missing:
        raise ArtifactError(f"{path} lacks {', '.join(missing)}: delete it and run `dvc repro`")
    readings = {
        field: {name: entries[name][field] for name in published.scores if entries[name][field] is not None}
        for field in ("with_image", "without_image", "standard_error", "chance")
    }
    errors = readings["standard_error"]
    return RunScores(
        run=run,
        with_image={**readings["with_image"], **means_of_scores(readings["with_image"], published)},
        without_image={**readings["without_image"], **means_of_scores(readings["without_image"], published)},
        standard_error={**errors, **errors_of_means(errors, published)},
        chance={**readings["chance"], **means_of_scores(readings["chance"], published)},
    )
