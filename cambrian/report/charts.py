"""Every figure that is a chart, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian.report.data_charts import draw_cumulative, draw_ratios, draw_sources
from cambrian.report.example_charts import draw_dialogues, draw_engine_example, draw_examples, draw_prompt_examples
from cambrian.report.score_charts import (
    draw_benchmark_map,
    draw_caps,
    draw_correlations,
    draw_encoders,
    draw_final,
    draw_gap,
    draw_image_panel,
    draw_losses,
    draw_recipes,
    draw_unfreezing,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cambrian.report.drawing import Drawing

DRAWINGS: dict[str, Callable[[], Drawing]] = {
    "images": draw_image_panel,
    "benchmark_map": draw_benchmark_map,
    "correlations": draw_correlations,
    "recipes": draw_recipes,
    "encoders": draw_encoders,
    "gap": draw_gap,
    "caps": draw_caps,
    "ratios": draw_ratios,
    "sources": draw_sources,
    "cumulative": draw_cumulative,
    "final": draw_final,
    "examples": draw_examples,
    "unfreezing": draw_unfreezing,
    "prompt_examples": draw_prompt_examples,
    "engine_example": draw_engine_example,
    "dialogues": draw_dialogues,
    "losses": draw_losses,
}
