"""Tables of facts: names and prompts of the sources, recipes, templates, prompts of the benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian.params import read_yaml
from cambrian.report.published import look_up_table
from cambrian.report.tables import Row, Table, cell_differences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.report.config import FactTables, Meanings
    from cambrian.report.published import Cell, Published, PublishedTable

    Line = tuple[Cell, dict[str, Cell], dict[str, Cell]]
    """A row's key, its published cells and ours."""

NO_DATA = "none"
"""The mix of a phase that trains nothing."""


def make_fact_tables(
    config: FactTables,
    meanings: Meanings,
    published: Published,
    *,
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    catalog: Path,
    prompts: Path,
    scale: str,
) -> list[Table]:
    """Tables 15, 16, 23, 25 and 26, from the catalogue, the sources' prompts, params.yaml and the scale's file."""
    return [
        _make_catalog_table(config, published, read_yaml(catalog)["instruction"], scale=scale),
        _make_source_prompt_table(published, read_yaml(prompts)["sources"], scale=scale),
        _make_recipe_table(config, meanings, published, rows=rows, scale=scale),
        _make_template_table(config, meanings, published, scale=scale),
        _make_benchmark_prompt_table(config, meanings, published, scale=scale),
    ]


def _make_catalog_table(config: FactTables, published: Published, sources: Mapping[str, Any], *, scale: str) -> Table:
    """Which of the listed datasets the catalogue has; it names some of them otherwise."""
    printed = look_up_table(published, "data_catalog")
    lines: list[Line] = []
    for values in printed.rows:
        listed = _names(printed.cell(values, "datasets"))
        found = [name for name in listed if config.catalog_names.get(name, name) in sources]
        lines.append((printed.cell(values, "category"), {"datasets": listed}, {"datasets": found}))
    return _make_table(printed, ["category"], ["datasets"], lines, scale, "Ours: those that the catalogue has.")


def _make_source_prompt_table(published: Published, sources: Mapping[str, Any], *, scale: str) -> Table:
    printed = look_up_table(published, "format_prompts")
    column = "prompt kinds"
    lines: list[Line] = []
    for values in printed.rows:
        dataset = str(printed.cell(values, "dataset"))
        ours: dict[str, Cell] = {column: list(sources[dataset])} if dataset in sources else {}
        lines.append((dataset, {column: printed.cell(values, column)}, ours))
    return _make_table(printed, ["dataset"], [column], lines, scale, "Kinds, not words: the words are the scale's.")


def _make_recipe_table(
    config: FactTables,
    meanings: Meanings,
    published: Published,
    *,
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    scale: str,
) -> Table:
    printed = look_up_table(published, "hyperparameters")
    columns = [column for column in printed.columns if column != "experiment"]
    lines: list[Line] = []
    for values in printed.rows:
        experiment = str(printed.cell(values, "experiment"))
        run = config.hyperparameters.get(experiment)
        ours: dict[str, Cell] = _recipe_facts(rows, run, meanings) if run in rows["runs"] else {}
        lines.append((experiment, {column: printed.cell(values, column) for column in columns}, ours))
    return _make_table(printed, ["experiment"], columns, lines, scale, "Ours: what the run's row and the scale say.")


def _recipe_facts(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], run: str | None, meanings: Meanings
) -> dict[str, Cell]:
    row = rows["runs"][str(run)]
    adapter = rows["adapters"][row["adapter"]]
    second = meanings.recipes[row["recipe"]]
    facts: dict[str, Cell] = {
        "llm": row["llm"],
        "vision": ", ".join(name for name in row["encoders"] if name != "none"),
        "adapter data": adapter["mix"],
        "instruction data": row["mix"],
        "it lr": second.learning_rates["llm"],
        "it wd": second.weight_decay,
        "it bs": second.global_batch_size,
        "vision lr": second.learning_rates["encoders"] if row["train_encoders"] else None,
    }
    if adapter["mix"] != NO_DATA:
        first = meanings.recipes[adapter["recipe"]]
        facts |= {
            "adapter lr": first.learning_rates["connector"],
            "adapter wd": first.weight_decay,
            "adapter bs": first.global_batch_size,
        }
    return facts


def _make_template_table(config: FactTables, meanings: Meanings, published: Published, *, scale: str) -> Table:
    printed = look_up_table(published, "llm_system_prompts")
    column = "prompt kind"
    lines: list[Line] = []
    for values in printed.rows:
        llm = str(printed.cell(values, "llm"))
        ours: dict[str, Cell] = {column: f"template {meanings.templates[config.llms[llm]]}"}
        lines.append((llm, {column: printed.cell(values, column)}, ours))
    return _make_table(printed, ["llm"], [column], lines, scale, "Ours: the conversation template of the LLM.")


def _make_benchmark_prompt_table(config: FactTables, meanings: Meanings, published: Published, *, scale: str) -> Table:
    printed = look_up_table(published, "eval_prompts")
    column = printed.columns[1]
    lines: list[Line] = []
    for values in printed.rows:
        name = str(printed.cell(values, "benchmark"))
        ours: dict[str, Cell] = {column: meanings.prompts[config.benchmarks.get(name, name)]}
        lines.append((name, {column: printed.cell(values, column)}, ours))
    return _make_table(printed, ["benchmark"], [column], lines, scale, "Ours: how a question with choices is asked.")


def _make_table(
    printed: PublishedTable,
    keys: list[str],
    columns: list[str],
    lines: Sequence[Line],
    scale: str,
    note: str,
) -> Table:
    return Table.of(
        printed,
        scale=scale,
        keys=keys,
        columns=columns,
        rows=[
            Row(
                keys=[key],
                run=None,
                status="reproduced" if ours else "not attempted",
                published=theirs,
                reproduced=ours,
                difference=cell_differences(theirs, ours),
            )
            for key, theirs, ours in lines
        ],
        own_notes=[note],
    )


def _names(cell: Cell) -> list[Any]:
    if not isinstance(cell, list):
        raise ValueError(f"published.yaml: data_catalog: found {cell!r}, expected a list of names")
    return cell
