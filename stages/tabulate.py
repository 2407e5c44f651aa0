"""Tabulate: every table of the paper with three faces, and a verdict for each of its claims."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.report.config import (
    BackboneMeaning,
    EvaluationFacts,
    Meanings,
    RecipeFacts,
    ReportConfig,
    TemplateFacts,
    read_tables_config,
)
from cambrian.report.tabulate import tabulate
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Tabulate the results of all runs."""
    args = parse_arguments(__doc__, results=Path, analyses=Path, data=Path, catalog=Path, prompts=Path, output=Path)
    files = ParamsFiles()
    rows = {"runs": files.rows("runs"), "adapters": files.rows("adapters")}
    config = read_tables_config()
    recipes = {row["recipe"] for table in rows.values() for row in table.values()}
    meanings = Meanings(
        backbones={row.backbone: files.meaning("backbones", row.backbone, BackboneMeaning) for row in config.backbones},
        recipes={name: files.meaning("recipes", name, RecipeFacts) for name in sorted(recipes)},
        templates={llm: files.meaning("llms", llm, TemplateFacts).template for llm in config.facts.llms.values()},
        prompts={
            name: str(prompt["choice_question"])
            for name, prompt in files.block("evaluation", EvaluationFacts).prompts.items()
        },
    )
    tabulate(
        files.block("report", ReportConfig),
        rows=rows,
        meanings=meanings,
        samples_per_record=files.count("samples_per_record"),
        scale=files.scale,
        results=args.results,
        analyses=args.analyses,
        data=args.data,
        catalog=args.catalog,
        prompts=args.prompts,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
