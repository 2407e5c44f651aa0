"""Every figure: its rows, its drawing with them, its template for `dvc plots`, and its picture."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import write_folder, write_json
from cambrian.params import Params, parse_block, read_yaml
from cambrian.report import data_figures, score_figures, talk
from cambrian.report.charts import DRAWINGS
from cambrian.report.config import read_tables_config
from cambrian.report.counts import count_tasks
from cambrian.report.diagrams import DIAGRAMS, DiagramFacts
from cambrian.report.drawing import VEGALITE_VERSION, render_spec, render_template
from cambrian.report.published import read_published
from cambrian.report.scores import read_scores
from cambrian.report.seeds import average_seeds, group_seeds
from cambrian.runtime import logged_step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.report.config import BackboneMeaning
    from cambrian.report.diagrams import ConnectorFacts

FIGURES_PATH = Path(__file__).with_name("figures.yaml")
SVG_SUFFIX, SPEC_SUFFIX, TEMPLATE_SUFFIX = ".svg", ".vl.json", ".template.json"

_log = logging.getLogger("cambrian")


class FigureConfig(Params):
    """What a figure is called and which fields `dvc plots` takes for its axes."""

    number: int | None
    part: str | None
    published: str | None
    title: str
    x: str | None
    y: str | None
    caption: str


def read_figures_config() -> dict[str, FigureConfig]:
    """Read figures.yaml, in the report's order.

    Raises:
        ParamsError: an unknown or missing field.
    """
    return {
        name: parse_block(FigureConfig, value, where=f"{FIGURES_PATH.name}: {name}")
        for name, value in read_yaml(FIGURES_PATH).items()
    }


def draw(
    *,
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    samples_per_record: int,
    scale: str,
    results: Path,
    analyses: Path,
    data: Path,
    connectors: Mapping[str, ConnectorFacts],
    backbones: Mapping[str, BackboneMeaning],
    output: Path,
) -> None:
    """Write for every figure NAME.json (rows), NAME.template.json, NAME.vl.json (Vega-Lite with rows) and NAME.svg.

    A figure without a single row has only its (empty) rows and its template; a diagram has only its picture. `rows` are
    the tables `runs` and `adapters` of params.yaml.

    Raises:
        ArtifactError: scores or data that are there are broken.
    """
    rows_by_figure = list_rows(
        rows=rows,
        samples_per_record=samples_per_record,
        scale=scale,
        results=results,
        analyses=analyses,
        data=data,
    )
    published = read_published()
    counts, sources = count_tasks(data / "benchmarks")
    diagram_facts = DiagramFacts(
        runs=rows["runs"],
        adapters=rows["adapters"],
        connectors=connectors,
        backbones=backbones,
        final_run=read_tables_config().final_run,
        task_counts=counts,
        task_sources=sources,
        published=published,
        scale=scale,
    )
    with write_folder(output, scale=scale) as folder:
        for name in read_figures_config():
            if name in DIAGRAMS:
                (folder / f"{name}{SVG_SUFFIX}").write_text(DIAGRAMS[name](diagram_facts), encoding="utf-8")
                continue
            with logged_step(f"figure {name}") as facts:
                facts["rows"] = len(rows_by_figure[name])
                write_figure(folder, name, rows_by_figure[name])


def write_figure(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write one figure's files."""
    import vl_convert

    drawing = DRAWINGS[name]()
    write_json(folder / f"{name}.json", rows)
    write_json(folder / f"{name}{TEMPLATE_SUFFIX}", render_template(drawing))
    if rows:
        spec = render_spec(drawing, rows)
        write_json(folder / f"{name}{SPEC_SUFFIX}", spec)
        svg = vl_convert.vegalite_to_svg(json.dumps(spec), vl_version=VEGALITE_VERSION)
        (folder / f"{name}{SVG_SUFFIX}").write_text(svg, encoding="utf-8")


def list_rows(
    *,
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]],
    samples_per_record: int,
    scale: str,
    results: Path,
    analyses: Path,
    data: Path,
) -> dict[str, list[dict[str, Any]]]:
    """The rows of every figure."""
    published, config = read_published(), read_tables_config()
    runs = list(rows["runs"])
    dialogues = data / "analysis_sets" / "dialogues" / "dialogues.parquet"
    scores, _ = average_seeds(read_scores(results, runs, published, scale=scale), group_seeds(rows["runs"]))
    return {
        "images": score_figures.list_image_panel(scores, config, published),
        "benchmark_map": score_figures.list_benchmark_map(scores, config, published),
        "correlations": score_figures.list_correlations(scores, config, published),
        "recipes": score_figures.list_recipes(scores, config, published),
        "encoders": score_figures.list_encoders(scores, config, published),
        "gap": score_figures.list_gap(scores, config, published),
        "unfreezing": score_figures.list_unfreezing(scores, config, published),
        "caps": score_figures.list_caps(scores, config, published),
        "final": score_figures.list_final(scores, config, published),
        "ratios": data_figures.list_ratios(scores, config, published, data),
        "sources": data_figures.list_sources(config, published, data, samples_per_record),
        "cumulative": data_figures.list_cumulative(config, published, data, samples_per_record),
        "examples": data_figures.list_examples(results, data, config),
        "prompt_examples": talk.list_prompt_examples(config.answer_machine, analyses, dialogues, scale=scale),
        "engine_example": data_figures.list_engine_example(data / "engine"),
        "dialogues": talk.list_dialogues(config.answer_machine, analyses, dialogues, scale=scale),
        "losses": data_figures.list_losses(results, runs, config),
    }
