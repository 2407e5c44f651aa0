"""All tables, the findings and the numbers that `dvc metrics` compares, from the results of every run."""

from __future__ import annotations

import csv
import io
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import write_folder, write_json
from cambrian.report.analyses import (
    make_attention_table,
    make_clean_table,
    make_grading_table,
    make_probe_table,
)
from cambrian.report.config import read_findings_config, read_tables_config
from cambrian.report.contradictions import list_contradictions
from cambrian.report.counts import (
    make_backbone_table,
    make_composition_table,
    make_leakage_table,
    make_task_table,
)
from cambrian.report.facts import make_fact_tables
from cambrian.report.figure_verdicts import FigureJudge
from cambrian.report.findings import judge_findings
from cambrian.report.history import find_origins
from cambrian.report.published import AVERAGE, KNOWLEDGE, SEEING, read_published
from cambrian.report.scores import read_scores
from cambrian.report.seeds import average_seeds, group_seeds
from cambrian.report.tables import make_ranking_table, make_score_table, round_cell
from cambrian.report.talk import make_answer_machine_table, read_talk
from cambrian.report.verdicts import count_verdicts, judge_cells, write_verdicts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.report.config import Meanings, ReportConfig, TablesConfig
    from cambrian.report.findings import Judged
    from cambrian.report.published import Published
    from cambrian.report.scores import RunScores
    from cambrian.report.tables import Table

INDEX_NAME = "index.json"
FINDINGS_NAME = "findings.json"
SUMMARY_NAME = "summary.json"
RUNS_NAME = "runs.csv"
VERDICTS_NAME = "verdicts.csv"
CONTRADICTIONS_NAME = "contradictions.json"

_log = logging.getLogger("cambrian")


def tabulate(
    config: ReportConfig,
    *,
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    meanings: Meanings,
    samples_per_record: int,
    scale: str,
    results: Path,
    analyses: Path,
    data: Path,
    catalog: Path,
    prompts: Path,
    output: Path,
) -> None:
    """Write a CSV and a JSON per table, `runs.csv`, `verdicts.csv`, and findings, contradictions, summary and index.

    Runs without scores are shown as not attempted. `rows` are the tables `runs` and `adapters` of params.yaml.

    Raises:
        ArtifactError: scores or data that are there are broken.
        ParamsError: tables.yaml, findings.yaml or contradictions.yaml do not fit the published tables.
    """
    published = read_published()
    tables_config = read_tables_config()
    runs = list(rows["runs"])
    single = read_scores(results, runs, published, scale=scale)
    scores, seed_deviations = average_seeds(single, group_seeds(rows["runs"]))
    tables = make_tables(
        tables_config,
        scores,
        published,
        meanings=meanings,
        data=data,
        samples_per_record=samples_per_record,
        scale=scale,
    )
    tables += make_fact_tables(
        tables_config.facts, meanings, published, rows=rows, catalog=catalog, prompts=prompts, scale=scale
    )
    tables += make_analysis_tables(
        tables_config, scores, published, runs=runs, meanings=meanings, analyses=analyses, scale=scale
    )
    tables.sort(key=lambda table: (table.number is None, table.number or 0, table.id))
    findings = judge_findings(
        read_findings_config().findings,
        scores,
        config,
        tables_config,
        published,
        seed_deviations=seed_deviations,
        talk=read_talk(analyses, runs, scale=scale),
    )
    origins = find_origins(results, runs)
    verdicts = judge_cells(
        tables,
        tables_config,
        config,
        published,
        seed_deviations=seed_deviations,
        origins=origins,
        samples_per_record=samples_per_record,
        scale=scale,
    )
    verdicts += FigureJudge(
        scores, tables_config, config, published, seed_deviations=seed_deviations, origins=origins, scale=scale
    ).judge()
    with write_folder(output, scale=scale, num_runs=len(single)) as folder:
        for table in tables:
            write_json(folder / f"{table.id}.json", table.to_json())
            (folder / f"{table.id}.csv").write_text(table.to_csv(), encoding="utf-8")
        (folder / RUNS_NAME).write_text(list_runs(runs, single, published), encoding="utf-8")
        (folder / VERDICTS_NAME).write_text(write_verdicts(verdicts), encoding="utf-8")
        write_json(
            folder / FINDINGS_NAME,
            {
                "scale": scale,
                **config.model_dump(),
                "measured_seed_deviations": {name: round_cell(value) for name, value in seed_deviations.items()},
                "findings": [finding.to_json() for finding in findings],
            },
        )
        write_json(folder / CONTRADICTIONS_NAME, [place.to_json() for place in list_contradictions(published)])
        cells = count_verdicts(verdicts)
        write_json(folder / SUMMARY_NAME, summarise(runs, single, findings, tables_config, published, cells=cells))
        write_json(
            folder / INDEX_NAME,
            {
                "scale": scale,
                "tables": [table.id for table in tables],
                "runs": {run: run in single for run in runs},
                "origins": {run: asdict(origin) for run, origin in origins.items()},
                "tables_by_run": _tables_by_run(tables),
                "cells_by_table": cells,
            },
        )
    _log.info(
        "%d tables, %d cells, %d findings from %d of %d runs",
        len(tables), len(verdicts), len(findings), len(single), len(runs),
    )  # fmt: skip


def make_tables(
    config: TablesConfig,
    scores: Mapping[str, RunScores],
    published: Published,
    *,
    meanings: Meanings,
    data: Path,
    samples_per_record: int,
    scale: str,
) -> list[Table]:
    """Every table of scores and counts that the project reproduces."""
    tables = [
        make_score_table(table_id, table, scores, published, scale=scale) for table_id, table in config.scores.items()
    ]
    tables += [
        make_ranking_table(config.rankings, scores, published, scale=scale),
        make_task_table(config.cvbench_tasks, data / "benchmarks", published, scale=scale),
        make_backbone_table(config.backbones, meanings.backbones, published, scale=scale),
        make_leakage_table(config.leakage, data / "validated", published, scale=scale),
        make_composition_table(
            config.mixes.collections, data, published, samples_per_record=samples_per_record, scale=scale
        ),
    ]
    return tables


def make_analysis_tables(
    config: TablesConfig,
    scores: Mapping[str, RunScores],
    published: Published,
    *,
    runs: Sequence[str],
    meanings: Meanings,
    analyses: Path,
    scale: str,
) -> list[Table]:
    """Tables 7, 22 and 24 and two of ours, from what was found out beside the scores.

    Raises:
        ArtifactError: a file of an analysis is broken, or of another name or scale.
    """
    return [
        make_probe_table(config.probes, meanings.backbones, scores, analyses, published, scale=scale),
        make_attention_table(config.attention, analyses, published, scale=scale),
        make_grading_table(config.grading, analyses, published, scale=scale),
        make_clean_table(runs, analyses, published, scale=scale),
        make_answer_machine_table(config.answer_machine, scores, analyses, scale=scale),
    ]


def list_runs(runs: Sequence[str], scores: Mapping[str, RunScores], published: Published) -> str:
    """Every run's sixteen scores and means as CSV: with and without the image, standard error, chance."""
    measures = [AVERAGE, *published.categories, *published.scores]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "reading", *measures])
    for run in runs:
        if run not in scores:
            writer.writerow([run, "not attempted", *[""] * len(measures)])
            continue
        for reading in ("with_image", "without_image", "standard_error", "chance"):
            numbers: Mapping[str, float] = getattr(scores[run], reading)
            if numbers:
                writer.writerow([run, reading, *(round_cell(numbers.get(measure)) for measure in measures)])
    return text.getvalue()


def summarise(
    runs: Sequence[str],
    scores: Mapping[str, RunScores],
    findings: Sequence[Judged],
    config: TablesConfig,
    published: Published,
    *,
    cells: Mapping[str, Mapping[str, int]],
) -> dict[str, Any]:
    """The few numbers that two commits are compared by."""
    final, blind, floor = (scores.get(run) for run in (config.final_run, config.blind_run, config.floor_run))
    summary: dict[str, Any] = {
        "runs": {"evaluated": len(scores), "listed": len(runs)},
        "findings": {
            verdict.replace(" ", "_"): sum(finding.verdict == verdict for finding in findings)
            for verdict in ("supported", "not supported", "inconclusive", "not attempted")
        },
        "cells": {word.replace(" ", "_"): count for word, count in cells["all"].items()},
    }
    if final is not None:
        summary["final"] = {
            name: {
                "with_image": round_cell(final.with_image.get(name)),
                "without_image": round_cell(final.without_image.get(name)),
            }
            for name in [AVERAGE, *published.categories]
        }
        summary["gap_without_image"] = _gap(final.with_image, final.without_image)
        if blind is not None:
            summary["gap_blind_run"] = _gap(final.with_image, blind.headline)
        if floor is not None:
            summary["gap_random_weights"] = _gap(final.with_image, floor.headline)
    return summary


def _gap(higher: Mapping[str, float], lower: Mapping[str, float]) -> dict[str, float | None]:
    return {
        name.lower(): round_cell(higher[name] - lower[name]) if name in higher and name in lower else None
        for name in (SEEING, KNOWLEDGE)
    }


def _tables_by_run(tables: Sequence[Table]) -> dict[str, list[str]]:
    by_run: dict[str, list[str]] = {}
    for table in tables:
        for row in table.rows:
            if row.run is not None and table.id not in by_run.setdefault(row.run, []):
                by_run[row.run].append(table.id)
    return by_run
