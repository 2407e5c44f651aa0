"""Tables of analyses beside the scores: linear probes, shares of attention, grading, and the clean part."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json
from cambrian.interfaces import ArtifactError
from cambrian.report.counts import backbone_facts
from cambrian.report.published import AVERAGE, look_up_table
from cambrian.report.scores import out_of_100
from cambrian.report.tables import Row, Table, cell_differences, printed_place, round_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.report.config import AttentionTable, BackboneMeaning, GradingTable, ProbeRow, ProbeTable
    from cambrian.report.published import Cell, Published
    from cambrian.report.scores import RunScores

PROBES, ATTENTION, READINGS, DIALOGUES = "probes", "attention", "readings", "dialogues"

_FUZZY, _GRADER, _DELTA = "fuzzy", "GPT-3.5", "delta"
_FIELDS = {
    _FUZZY: ("rules", "rules_error"),
    _GRADER: ("grader", "grader_error"),
    _DELTA: ("difference", "difference_error"),
}


def read_analysis(analyses: Path, kind: str, name: str, *, scale: str) -> dict[str, Any] | None:
    """What a stage found out about an encoder or a run; None where it has not been looked into.

    Raises:
        ArtifactError: the file is broken, or of another name or scale.
    """
    path = analyses / kind / f"{name}.json"
    if not path.is_file():
        return None
    value: dict[str, Any] = read_json(path)
    found = (value.get("encoder", value.get("run")), value.get("scale"))
    if found != (name, scale):
        raise ArtifactError(
            f"{path} is of {found[0]!r} at scale {found[1]!r}, expected {name!r} at {scale!r}: delete it and run "
            "`dvc repro`"
        )
    return value


def make_probe_table(
    config: ProbeTable,
    meanings: Mapping[str, BackboneMeaning],
    scores: Mapping[str, RunScores],
    analyses: Path,
    published: Published,
    *,
    scale: str,
) -> Table:
    """Table 7: linear probing, beside the average that the encoder's run has in table 11."""
    printed = look_up_table(published, "linear_probe")
    keys, columns = ["method", "architecture"], list(printed.columns[2:])
    probe_of_row = {printed_place(printed, keys, row.row): row for row in config.rows}
    lines: list[tuple[list[Cell], ProbeRow | None, Sequence[Cell] | None]] = [
        ([printed.cell(values, key) for key in keys], probe_of_row.get(place), values)
        for place, values in enumerate(printed.rows)
    ]
    lines += [(list(row.row), row, None) for row in config.added]
    rows = []
    classes: set[int] = set()
    for names, probe, values in lines:
        found = read_analysis(analyses, PROBES, probe.encoder, scale=scale) if probe is not None else None
        ours: dict[str, Cell] = {}
        if probe is not None and found is not None:
            facts = backbone_facts(meanings[probe.encoder]) if probe.encoder in meanings else {}
            ours = {column: facts[column] for column in columns if facts.get(column) is not None}
            ours["top1"] = round_cell(found["top1"])
            classes.add(found["classes"])
            if probe.run in scores:
                ours[AVERAGE] = round_cell(scores[probe.run].headline[AVERAGE])
        theirs = {} if values is None else {column: printed.cell(values, column) for column in columns}
        rows.append(
            Row(
                keys=names,
                run=None,
                status=_status(ours, theirs),
                published=theirs,
                reproduced=ours,
                standard_error=round_errors({"top1": found["standard_error"] if found else None}),
                difference=cell_differences(theirs, ours),
            )
        )
    note = "Ours is the mean feature under least squares with a ridge; the paper prints no recipe."
    task = f"{', '.join(map(str, sorted(classes)))} classes at this scale." if classes else "No encoder is probed yet."
    return Table.of(printed, scale=scale, keys=keys, columns=[*columns, AVERAGE], rows=rows, own_notes=[
        note, task, f"{AVERAGE} is that of the encoder's run in table 11, which no printed column of table 7 has.",
    ])  # fmt: skip


def make_attention_table(config: AttentionTable, analyses: Path, published: Published, *, scale: str) -> Table:
    """Table 22: the share of attention that each encoder gets in the final model, by benchmark."""
    printed = look_up_table(published, "attention_share")
    columns = list(printed.columns[1:])
    found = read_analysis(analyses, ATTENTION, config.run, scale=scale)
    measured = found["benchmarks"] if found is not None else {}
    rows = []
    for values in printed.rows:
        name = str(printed.cell(values, "encoder"))
        encoder = config.encoders[name]
        theirs = {column: printed.cell(values, column) for column in columns}
        ours: dict[str, Cell] = {}
        errors: dict[str, float | None] = {}
        for column in columns:
            entry = measured.get(config.benchmarks[column])
            if entry is not None and encoder in entry["shares"]:
                ours[column] = round_cell(entry["shares"][encoder])
                errors[column] = entry["standard_error"][encoder]
        rows.append(
            Row(
                keys=[name],
                run=config.run,
                status=_status(ours, theirs),
                published=theirs,
                reproduced=ours,
                standard_error=round_errors(errors),
                difference=cell_differences(theirs, ours),
            )
        )
    return Table.of(
        printed, scale=scale, keys=["encoder"], columns=columns, rows=rows, own_notes=
        ["Percent, over all heads, queries that see picture, and aggregator layers, those in the LLM included; the "
         "error is over questions."],
    )  # fmt: skip


def make_grading_table(config: GradingTable, analyses: Path, published: Published, *, scale: str) -> Table:
    """Table 24: the paper's rules against a grader, on the same replies."""
    printed = look_up_table(published, "fuzzy_matching")
    keys, columns = ["model", "grading"], list(printed.columns[2:])
    graders: set[str] = set()
    rows = []
    for values in printed.rows:
        model, grading = str(printed.cell(values, "model")), str(printed.cell(values, "grading"))
        run = config.runs[model]
        found = read_analysis(analyses, READINGS, run, scale=scale)
        value, error = _FIELDS[grading]
        theirs = {column: printed.cell(values, column) for column in columns}
        ours: dict[str, Cell] = {}
        errors: dict[str, float | None] = {}
        if found is not None:
            graders.add(found["grader"])
            for column in columns:
                entry = found["scores"][config.scores.get(column, column)]
                ours[column] = round_cell(entry[value])
                errors[column] = entry[error]
        rows.append(
            Row(
                keys=[model, grading],
                run=run,
                status=_status(ours, theirs),
                published=theirs,
                reproduced=ours,
                standard_error=round_errors(errors),
                difference=cell_differences(theirs, ours),
            )
        )
    who = f"In the place of GPT-3.5 stands: {', '.join(sorted(graders))}." if graders else "No replies are graded yet."
    return Table.of(
        printed,
        scale=scale,
        keys=keys,
        columns=columns,
        rows=rows,
        own_notes=[who, "The error of a delta is over paired questions."],
    )


def make_clean_table(runs: Sequence[str], analyses: Path, published: Published, *, scale: str) -> Table:
    """Ours, beside table 19: the scores on all questions and on those whose picture no training image shows."""
    rows = []
    for run in runs:
        found = read_analysis(analyses, READINGS, run, scale=scale)
        if found is None:
            continue
        entries = {name: found["scores"][name] for name in published.scores if name in found["scores"]}
        faces = {
            "all questions": {name: (entry["rules"], entry["rules_error"]) for name, entry in entries.items()},
            "clean part": {name: (entry["clean"], entry["clean_error"]) for name, entry in entries.items()},
            "leaked questions": {name: (entry["leaked_items"], None) for name, entry in entries.items()},
        }
        for what, cells in faces.items():
            present = {name: pair for name, pair in cells.items() if pair[0] is not None}
            ours: dict[str, Cell] = {
                name: value if isinstance(value, int) else round_cell(value) for name, (value, _) in present.items()
            }
            if what != "leaked questions" and len(present) == len(published.scores):
                ours[AVERAGE] = round_cell(
                    math.fsum(out_of_100(name, float(value)) for name, (value, _) in present.items()) / len(present)
                )
            rows.append(
                Row(
                    keys=[run, what],
                    run=run,
                    status="added",
                    published={},
                    reproduced=ours,
                    standard_error=round_errors({name: error for name, (_, error) in present.items()}),
                )
            )
    return Table(
        id="clean_scores",
        number=None,
        title="Scores on all questions and on those whose picture is not among the training images",
        scale=scale,
        keys=["run", "questions"],
        columns=[AVERAGE, *published.scores],
        rows=rows,
        notes=[],
        own_notes=[
            "Ours: the paper counts such pictures (table 19) and does not score without them. A picture leaks where "
            "the gate finds a training image of the run's instruction data that looks like it."
        ],
    )


def _status(ours: Mapping[str, Cell], theirs: Mapping[str, Cell]) -> Any:
    if not ours:
        return "not attempted"
    return "reproduced" if theirs else "added"


def round_errors(errors: Mapping[str, float | None]) -> dict[str, float]:
    """Standard errors as files hold them; what has none is left out."""
    return {name: round(error, 4) for name, error in errors.items() if error is not None}
