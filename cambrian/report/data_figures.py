"""The rows behind the figures of data, examples and losses; every row of a figure has the same fields."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING, Any

from cambrian.data.shards import ImageStore
from cambrian.interfaces import CATEGORIES, IMAGE_PLACEHOLDER
from cambrian.report.counts import CVBENCH_SCORES, read_records_by_source
from cambrian.report.published import AVERAGE, look_up_table
from cambrian.report.score_figures import PUBLISHED, REPRODUCED, mean_of, read_number
from cambrian.report.tables import round_cell
from cambrian.report.talk import image_address, place_example, wrap_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.report.config import TablesConfig
    from cambrian.report.published import Published
    from cambrian.report.score_figures import Rows
    from cambrian.report.scores import RunScores

NUM_CURVE_POINTS = 60


def list_ratios(scores: Mapping[str, RunScores], config: TablesConfig, published: Published, data: Path) -> Rows:
    """Figure 9: the shares of categories in each mixture, with its average."""
    printed, full = look_up_table(published, "ratio_mixtures"), look_up_table(published, "ratio_full")
    run_of_row = {row.row[0]: row.run for row in config.scores["ratio_full"].rows}
    category_of = _category_of_sources(published)
    rows: Rows = []
    for values in printed.rows:
        name = str(printed.cell(values, "experiment"))
        (printed_row,) = full.find_rows(["experiment"], [name])
        percents = {category: read_number(printed.cell(values, category)) for category in CATEGORIES}
        rows += _ratio_rows(PUBLISHED, name, percents, read_number(full.cell(printed_row, AVERAGE)))
        counts = read_records_by_source(data, config.mixes.ratios[name]) if name in config.mixes.ratios else None
        run = run_of_row.get(name)
        if counts and run is not None and run in scores:
            total = sum(counts.values())
            taken = dict.fromkeys(CATEGORIES, 0)
            for source, count in counts.items():
                taken[category_of[source]] += count
            shares = {category: 100 * count / total for category, count in taken.items()}
            rows += _ratio_rows(REPRODUCED, name, shares, scores[run].headline[AVERAGE])
    return rows


def list_sources(config: TablesConfig, published: Published, data: Path, samples_per_record: int) -> Rows:
    """Figure 8: categories of the two collections, in thousands of samples."""
    printed = look_up_table(published, "data_composition")
    category_of = _category_of_sources(published)
    rows: Rows = []
    for place, (collection, mix) in enumerate(config.mixes.collections.items()):
        counts = read_records_by_source(data, mix)
        theirs = {
            str(printed.cell(row, "dataset")): read_number(printed.cell(row, "k_samples"))
            for row in printed.rows
            if place == 0 or printed.cell(row, "in_7M")
        }
        ours = {source: count * samples_per_record / 1000 for source, count in (counts or {}).items()}
        for face, thousands in ((PUBLISHED, theirs), (REPRODUCED, ours)):
            total = math.fsum(thousands.values())
            for order, category in enumerate(CATEGORIES):
                own = math.fsum(value for source, value in thousands.items() if category_of[source] == category)
                if total:
                    rows.append(
                        {
                            "face": face,
                            "collection": collection,
                            "ring": place,
                            "category": category,
                            "order": order,
                            "thousands": round_cell(own),
                            "percent": round_cell(100 * own / total),
                        }
                    )
    return rows


def list_cumulative(config: TablesConfig, published: Published, data: Path, samples_per_record: int) -> Rows:
    """Figure 17: cumulative samples over sources sorted by size, unfiltered and for each cap."""
    printed = look_up_table(published, "data_composition")
    theirs = [read_number(printed.cell(row, "k_samples")) for row in printed.rows]
    caps = [str(row[0]) for row in look_up_table(published, "threshold").rows]
    whole = next(iter(config.mixes.collections.values()))
    rows: Rows = []
    for place, series in enumerate(["no cap", *caps]):
        cap = math.inf if series == "no cap" else float(series.removesuffix("k"))
        mix = whole if series == "no cap" else config.mixes.caps.get(series)
        counts = read_records_by_source(data, mix) if mix else None
        ours = [count * samples_per_record / 1000 for count in (counts or {}).values()]
        for face, sizes in ((PUBLISHED, [min(size, cap) for size in theirs]), (REPRODUCED, ours)):
            total = 0.0
            for source, size in enumerate(sorted(sizes, reverse=True), start=1):
                total += size
                rows.append(
                    {
                        "face": face,
                        "cap": series,
                        "place": place,
                        "source": source,
                        "millions": round_cell(total / 1000),
                    }
                )
    return rows


def list_examples(results: Path, data: Path, config: TablesConfig) -> Rows:
    """Figure 11: for each task of CV-Bench a question that the final model gets right and one that it gets wrong."""
    import pyarrow.parquet

    replies_path = results / config.final_run / "replies.parquet"
    if not replies_path.is_file():
        return []
    columns = ["item_id", "with_image", "reply", "correct"]
    table = pyarrow.parquet.ParquetFile(replies_path).read(columns=columns).to_pylist()
    replies = {(row["item_id"], row["with_image"]): row for row in table}
    rows: Rows = []
    for score in CVBENCH_SCORES:
        path = data / "benchmarks" / score / "test.parquet"
        for task, items in _items_by_task(path).items():
            for right in (True, False):
                found = [
                    item
                    for item in items
                    if (replies.get((f"{score}/{item['idx']}", True)) or {}).get("correct") == right
                ]
                if found:
                    rows.append(_example_row(found[0], score, task, right, replies, len(rows)))
    return rows


def list_engine_example(engine: Path) -> Rows:
    """Figure 16: the first sample with a picture that the data engine made, with the page that it is from."""
    records_path = engine / "records.jsonl"
    if not records_path.is_file():
        return []
    origins = {row["id"]: row for row in _read_lines(engine / "provenance.jsonl")}
    for record in _read_lines(records_path):
        if record.get("image"):
            origin = origins[record["id"]]
            with ImageStore(engine) as images:
                picture = images.read(record["image"])
            said = [turn["value"].replace(IMAGE_PLACEHOLDER, "").strip() for turn in record["conversations"]]
            lines = [f"{origin['topic']}, section {origin['section']}", f"caption: {origin['caption']}"]
            return [
                {
                    **place_example(0),
                    "topic": origin["topic"],
                    "page": origin["page"],
                    "caption": origin["caption"],
                    "question": said[0],
                    "answer": said[1],
                    "text": wrap_lines(*lines, f"– {said[0]}", f"» {said[1]}"),
                    "image": image_address(picture),
                }
            ]
    return []


def list_losses(results: Path, runs: Sequence[str], config: TablesConfig) -> Rows:
    """The loss of every run's second phase, averaged over stretches of steps."""
    named = {
        config.final_run: "final model",
        config.blind_run: "no images",
        config.floor_run: "random encoder",
    }
    rows: Rows = []
    for run in runs:
        path = results / run / "loss.csv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                points = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
            stretch = max(math.ceil(len(points) / NUM_CURVE_POINTS), 1)
            for start in range(0, len(points), stretch):
                part = points[start : start + stretch]
                rows.append(
                    {
                        "run": run,
                        "kind": named.get(run, "other runs"),
                        "step": part[-1][0],
                        "loss": round_cell(mean_of([loss for _, loss in part])),
                    }
                )
    return rows


def _ratio_rows(face: str, name: str, percents: Mapping[str, float], average: float) -> Rows:
    return [
        {
            "face": face,
            "mixture": name,
            "category": category,
            "order": order,
            "percent": round_cell(percent),
            "average": round_cell(average),
            "label": f"{average:.1f}" if order == 0 else "",
        }
        for order, (category, percent) in enumerate(percents.items())
    ]


def _example_row(
    item: Mapping[str, Any], score: str, task: str, right: bool, replies: Mapping[Any, Mapping[str, Any]], order: int
) -> dict[str, Any]:
    item_id = f"{score}/{item['idx']}"
    blind = replies.get((item_id, False))
    place = ord(item["answer"].strip("()")) - ord("A")
    return {
        "order": order,
        "item": item_id,
        "task": task,
        "outcome": "right" if right else "wrong",
        "question": item["question"],
        "choices": " / ".join(item["choices"]),
        "answer": item["choices"][place],
        "reply": replies[item_id, True]["reply"],
        "reply_without_image": "" if blind is None else blind["reply"],
        "image": image_address(item["image"]["bytes"]),
    }


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _items_by_task(path: Path) -> dict[str, list[dict[str, Any]]]:
    import pyarrow.parquet

    if not path.is_file():
        return {}
    columns = ["idx", "task", "image", "question", "choices", "answer"]
    items: dict[str, list[dict[str, Any]]] = {}
    for row in pyarrow.parquet.ParquetFile(path).read(columns=columns).to_pylist():
        items.setdefault(row["task"], []).append(row)
    return items


def _category_of_sources(published: Published) -> dict[str, str]:
    printed = look_up_table(published, "data_composition")
    return {str(printed.cell(row, "dataset")): str(printed.cell(row, "category")) for row in printed.rows}
