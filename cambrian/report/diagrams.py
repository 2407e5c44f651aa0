"""The paper's diagrams, drawn anew from the configuration that really runs: rows, connectors, benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from cambrian.report.sketch import Sketch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cambrian.report.config import BackboneMeaning
    from cambrian.report.published import Published

EMPTY_SLOT = "none"
CVBENCH_TASKS = ("Relation", "Count", "Depth", "Distance")
NUM_LISTED = 9
"""Names in one box; what is left is counted."""


class InsideFacts(BaseModel):
    """Where aggregators stand inside the LLM."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    start: int
    stride: int
    count: int


class ConnectorFacts(BaseModel):
    """What a connector of the scale says that the diagram of the aggregator shows."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    kind: str
    side: int | None = None
    depth: int | None = None
    group_sides: list[int] = []
    max_window_side: int | None = None
    in_llm: InsideFacts | None = None


@dataclass(frozen=True, slots=True)
class DiagramFacts:
    """What diagrams are drawn from."""

    runs: Mapping[str, Mapping[str, Any]]
    adapters: Mapping[str, Mapping[str, Any]]
    connectors: Mapping[str, ConnectorFacts]
    backbones: Mapping[str, BackboneMeaning]
    final_run: str
    task_counts: Mapping[str, int]
    """Questions of CV-Bench by task, where they are made."""
    task_sources: Mapping[str, list[str]]
    published: Published
    scale: str


def sketch_protocol(facts: DiagramFacts) -> str:
    """Figure 1: from data through two phases to four groups of benchmarks, each question asked twice."""
    adapter_mixes = _names({row["mix"] for row in facts.adapters.values()} - {EMPTY_SLOT})
    mixes = _names({row["mix"] for row in facts.runs.values()})
    num_llms = len({row["llm"] for row in facts.runs.values()})
    trained = sum(bool(row["train_encoders"]) for row in facts.runs.values())
    parts_lines = ["Pretrained parts", f"{len(_encoders(facts))} vision encoders", f"{num_llms} language models"]
    align_lines = ["Phase 1: align", "only the connector trains", f"{len(facts.adapters)} rows"]
    tune_lines = ["Phase 2: finetune", "connector and LLM train", f"{len(facts.runs)} rows, {trained} with encoders"]
    sketch = Sketch(1000, 300, "From data through two training phases to sixteen scores")
    first_data = sketch.box(10, 20, 190, ["Adapter data", *adapter_mixes], kind="data")
    second_data = sketch.box(10, 110, 190, ["Instruction data", *_shorten(mixes)], kind="data")
    parts = sketch.box(240, 15, 200, parts_lines, kind="frozen")
    align = sketch.box(240, 115, 200, align_lines, kind="trained")
    finetune = sketch.box(240, 215, 200, tune_lines, kind="trained")
    ask = sketch.box(490, 215, 190, ["Evaluate", "with the image", "and without it"], kind="judge")
    for place, (group, members) in enumerate(facts.published.categories.items()):
        box = sketch.box(740, 6 + 72 * place, 250, [group, ", ".join(members[:2]), ", ".join(members[2:])])
        sketch.arrow(ask.right, box.left)
    sketch.arrow(parts.bottom, align.top)
    sketch.arrow(first_data.right, align.left)
    sketch.arrow(second_data.right, finetune.left)
    sketch.arrow(align.bottom, finetune.top)
    sketch.arrow(finetune.right, ask.left)
    return sketch.to_svg()


def sketch_models(facts: DiagramFacts) -> str:
    """Figure 2: which encoders, connectors and LLMs the rows combine."""
    encoders = _encoders(facts)
    connectors = _names({row["connector"] for row in facts.adapters.values()})
    llms = _names({row["llm"] for row in facts.runs.values()})
    sketch = Sketch(900, 60 + 16 * (NUM_LISTED + 3), "Vision encoders, connectors and language models of the rows")
    vision = sketch.box(40, 20, 230, ["Vision encoders", *_shorten(encoders)], kind="frozen")
    joined = sketch.box(340, 20, 230, ["Connectors", *_shorten(connectors)], kind="trained")
    language = sketch.box(640, 20, 220, ["Language models", *_shorten(llms)], kind="trained")
    sketch.arrow((vision.x + vision.width, 60), (joined.x, 60))
    sketch.arrow((joined.x + joined.width, 60), (language.x, 60))
    return sketch.to_svg()


def sketch_aggregator(facts: DiagramFacts) -> str:
    """Figure 7: one query per window of every encoder's map, and where aggregators stand in the LLM."""
    name = _find_aggregating_run(facts)
    sketch = Sketch(1000, 330, "The spatial vision aggregator of the final model")
    if name is None:
        sketch.text(10, 30, "No row of this breadth has an aggregator.")
        return sketch.to_svg()
    row = facts.runs[name]
    connector = facts.connectors[facts.adapters[row["adapter"]]["connector"]]
    side = connector.side or 1
    queries = sketch.box(10, 130, 190, [f"{side} x {side} queries", f"{len(connector.group_sides)} group(s)",
                                        f"{connector.depth} layers before the LLM"], kind="trained")  # fmt: skip
    names = [name for name in row["encoders"] if name != EMPTY_SLOT]
    for place, name in enumerate(names):
        x, y = 270, 20 + 76 * place
        grid = facts.backbones[name].grid
        window = min(max((grid or side) // side, 1), connector.max_window_side or 1)
        shown = side * window
        cell = 56 / shown
        for i in range(shown):
            for j in range(shown):
                is_first = i < window and j < window
                sketch.cell(x + cell * j, y + cell * i, cell, fill="#009e7380" if is_first else "none")
        size = f"a map of {grid} x {grid}" if grid else "a map of the published size"
        sketch.text(x + 70, y + 22, name, bold=True)
        sketch.text(x + 70, y + 40, f"{size}; {window} x {window} features a window")
        sketch.arrow((x - 6, y + 28), queries.right)
    sketch.text(
        10, 320, "A query sees, of every encoder, only the window of its own place (filled for the first query)."
    )
    llm = facts.backbones[row["llm"]]
    _draw_llm(sketch, row["llm"], llm.num_layers, connector.in_llm)
    return sketch.to_svg()


def sketch_construction(facts: DiagramFacts) -> str:
    """Figure 12: how CV-Bench's questions come from annotations; the published way judges each by hand."""
    tasks = facts.published.tables["cvbench_tasks"]
    total = sum(int(str(tasks.cell(row, "samples"))) for row in tasks.rows)
    counts = [f"{task}: {facts.task_counts.get(task) or 'not made'}" for task in CVBENCH_TASKS]
    sources = sorted({source for found in facts.task_sources.values() for source in found}) or ["not made yet"]
    doubts = ["Doubt is left out", "two places too near", "two distances too alike"]
    sketch = Sketch(1000, 200, "How the questions of CV-Bench are made")
    truth = sketch.box(10, 50, 200, ["Annotated pictures", *_shorten(sources)], kind="data")
    rules = sketch.box(260, 20, 250, ["Rules write questions", *counts])
    margins = sketch.box(560, 40, 190, doubts, kind="judge")
    bench = sketch.box(800, 48, 190, ["CV-Bench", f"{sum(facts.task_counts.values())} questions"], kind="trained")
    sketch.arrow(truth.right, rules.left)
    sketch.arrow(rules.right, margins.left)
    sketch.arrow(margins.right, bench.left)
    sketch.text(10, 165, f"Published: {total} questions from ADE20K, COCO and Omni3D,")
    sketch.text(10, 183, "each accepted, corrected or rejected by a person.")
    return sketch.to_svg()


def sketch_engine(facts: DiagramFacts) -> str:
    """Figure 15: the data engine as published; its numbers stand in published.yaml."""
    engine = facts.published.engine
    sketch = Sketch(1000, 170, "The data engine: from fields of knowledge to questions with pictures")
    steps = [
        ["Fields", f"{engine['fields']}"],
        ["Topics", f"{engine['topics']}", f"by {engine['topic_llm_paper']}"],
        ["Pages", f"{engine['pages']}", f"{engine['links_per_topic']} links a topic"],
        ["Text and pictures", f"{engine['min_words_of_text']} words or more"],
        ["Questions", f"{engine['samples_in_pool']}", f"by {engine['qa_llm_paper']}"],
    ]
    last = None
    for place, lines in enumerate(steps):
        box = sketch.box(10 + 200 * place, 40, 160, lines, kind="data" if place < 3 else "judge")
        if last is not None:
            sketch.arrow((last.x + last.width, 70), (box.x, 70))
        last = box
    sketch.text(10, 150, "Published numbers; the paper's two counts of samples are among the contradictions.")
    return sketch.to_svg()


DIAGRAMS: dict[str, Callable[[DiagramFacts], str]] = {
    "protocol": sketch_protocol,
    "models": sketch_models,
    "aggregator": sketch_aggregator,
    "construction": sketch_construction,
    "engine": sketch_engine,
}


def _draw_llm(sketch: Sketch, name: str, num_layers: int | None, inside: InsideFacts | None) -> None:
    """The LLM's decoder layers as a column, with an aggregator behind those that have one; at most twelve are drawn."""
    x, count = 700, min(num_layers or 1, 12)
    places = {inside.start + inside.stride * k for k in range(inside.count)} if inside else set()
    sketch.text(x, 18, f"{name}: {num_layers or 'published number of'} decoder layers", bold=True)
    for layer in range(count):
        y = 34 + 24 * layer
        sketch.cell(x, y, 16, fill="#8b949e30")
        sketch.text(x + 26, y + 13, f"layer {layer}" + (", then an aggregator" if layer in places else ""))
    sketch.text(x, 34 + 24 * count + 16, f"{len(places)} aggregators inside" if places else "none inside")


def _find_aggregating_run(facts: DiagramFacts) -> str | None:
    """The final model, or where this breadth lacks it the first run with an aggregator."""
    runs = [facts.final_run, *facts.runs] if facts.final_run in facts.runs else list(facts.runs)
    kinds = {name: facts.connectors[facts.adapters[facts.runs[name]["adapter"]]["connector"]].kind for name in runs}
    return next((name for name in runs if kinds[name] == "sva"), None)


def _encoders(facts: DiagramFacts) -> list[str]:
    used = {name for row in facts.runs.values() for name in row["encoders"]} - {EMPTY_SLOT}
    return [name for name in facts.backbones if name in used]


def _names(names: set[str]) -> list[str]:
    return sorted(names)


def _shorten(names: list[str]) -> list[str]:
    """The first names, and how many more there are."""
    return names if len(names) <= NUM_LISTED else [*names[: NUM_LISTED - 1], f"and {len(names) - NUM_LISTED + 1} more"]
