"""The rows behind the figures of scores: published and reproduced values; every row of a figure has the same fields."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cambrian.report.analysis import CVBENCH, box, correlate, join_cvbench, map_benchmarks
from cambrian.report.published import AVERAGE, FIGURE_SCORE_NAMES, look_up_table
from cambrian.report.scores import means_of_scores, out_of_100
from cambrian.report.tables import round_cell
from cambrian.report.unfreezing import list_changes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.report.config import TablesConfig
    from cambrian.report.published import Cell, Published, PublishedTable
    from cambrian.report.scores import RunScores

Rows = list[dict[str, Any]]

PUBLISHED, REPRODUCED = "published", "reproduced"
RECIPES = {
    "recipe_0M": "0M",
    "recipe_0.5M": "0.5M",
    "recipe_1.2M": "1.2M",
    "recipe_1.2M_unfrozen": "1.2M trained",
}


def list_image_panel(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 3, left: means over the backbones with and without the image, and chance."""
    rows: Rows = []
    panel = published.figures["fig_benchmarks"]["left"]
    for values in panel["rows"]:
        entry = dict(zip(panel["columns"], values, strict=True))
        name = str(FIGURE_SCORE_NAMES.get(entry["benchmark"], entry["benchmark"]))
        order = entry["enabled minus disabled"]
        for condition, mean, bar in (
            ("with image", "enabled mean", "enabled bar"),
            ("without image", "disabled mean", "disabled bar"),
        ):
            rows.append(_panel_row(PUBLISHED, name, condition, entry[mean], entry[bar], order))
        rows.append(_panel_row(PUBLISHED, name, "chance", entry["random"], 0.0, order))
    orders = {row["benchmark"]: row["order"] for row in rows}
    runs = [scores[run] for run in config.backbone_runs if run in scores]
    for name in published.scores if runs else []:
        order = orders.get(
            name, mean_of([_of_100(run.with_image, name) - _of_100(run.without_image, name) for run in runs])
        )
        for condition, readings in (
            ("with image", [_of_100(run.with_image, name) for run in runs]),
            ("without image", [_of_100(run.without_image, name) for run in runs]),
            ("chance", [_of_100(run.chance, name) for run in runs]),
        ):
            rows.append(_panel_row(REPRODUCED, name, condition, mean_of(readings), _deviation(readings), order))
    return rows


def list_benchmark_map(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 3, right: benchmarks on the first two principal components over the backbones."""
    panel = published.figures["fig_benchmarks"]["right"]
    printed = {FIGURE_SCORE_NAMES.get(row[0], row[0]): (float(row[2]), float(row[3])) for row in panel["rows"]}
    ours = map_benchmarks(_pool(scores, config, published), printed)
    return [
        {"face": face, "benchmark": name, "category": _category(name, published), "pc1": place[0], "pc2": place[1]}
        for face, places in ((PUBLISHED, printed), (REPRODUCED, ours))
        for name, place in places.items()
    ]


def list_correlations(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 10: correlations of fifteen benchmarks over the backbones."""
    data = published.figures["fig_correlation"]["data"]
    names = [FIGURE_SCORE_NAMES.get(label, label) for label in data["labels"]]
    ours = correlate(_pool(scores, config, published), names)
    return [
        {
            "face": face,
            "benchmark": names[i],
            "other": names[j],
            "correlation": matrix[i][j],
            "place": i,
            "other_place": j,
        }
        for face, matrix in ((PUBLISHED, data["matrix"]), (REPRODUCED, ours))
        for i in range(len(names))
        for j in range(len(names))
        if matrix[i][j] is not None
    ]


def list_recipes(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 4: the printed models' boxes by recipe, group and category, and our models as points."""
    rows: Rows = []
    for table_id, recipe in RECIPES.items():
        printed = look_up_table(published, table_id)
        means = [
            (
                str(row[0]),
                printed_means(printed, row, published),
            )
            for row in printed.rows
        ]
        group_of_run = {row.run: str(row.row[0]) for row in config.scores[table_id].rows}
        for group in dict.fromkeys(group for group, _ in means):
            for category in published.categories:
                numbers = box([mean[category] for owner, mean in means if owner == group])
                rows.append(_recipe_row(PUBLISHED, recipe, group, category, "", None, numbers))
        for run, group in group_of_run.items():
            if run in scores:
                for category in published.categories:
                    rows.append(
                        _recipe_row(REPRODUCED, recipe, group, category, run, scores[run].headline[category], None)
                    )
    return rows


def list_encoders(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 5: category means of every encoder in the standard setting."""
    printed = look_up_table(published, "recipe_1.2M")
    table = config.scores["recipe_1.2M"]
    run_of_row: dict[tuple[Cell, ...], str] = {tuple(row.row): row.run for row in table.rows}
    entries = []
    for values in printed.rows:
        keys = tuple(printed.cell(values, key) for key in table.keys)
        label = f"{keys[1]} {str(keys[2]).split('@')[0]}@{str(keys[2]).split('@')[-1]}"
        entries.append((label, str(keys[0]), printed_means(printed, values, published), run_of_row.get(keys)))
    entries += [(f"{row.row[1]}", str(row.row[0]), {}, row.run) for row in table.added]
    rows: Rows = []
    for label, group, means, run in entries:
        ours = headline_of(run, scores)
        for face, numbers in ((PUBLISHED, means), (REPRODUCED, ours)):
            for category in published.categories:
                if category in numbers:
                    rows.append(
                        {
                            "face": face,
                            "encoder": label,
                            "group": group,
                            "category": category,
                            "score": round_cell(numbers[category]),
                            "order": round_cell(-means.get(AVERAGE, 0.0)),
                        }
                    )
    return rows


def list_gap(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 6: CLIP and DINOv2 with more data and a trained encoder."""
    settings = [
        ("0.7M frozen", "recipe_1.2M", ("group", "model", "architecture"), ()),
        ("0.7M trained", "recipe_1.2M_unfrozen", ("group", "model", "architecture"), ()),
        ("5M frozen", "instr_5M", ("model", "architecture", "encoder"), ("frozen",)),
        ("5M trained", "instr_5M", ("model", "architecture", "encoder"), ("unfrozen",)),
    ]
    rows: Rows = []
    for place, (setting, table_id, keys, ending) in enumerate(settings):
        printed = look_up_table(published, table_id)
        run_of_row: dict[tuple[Cell, ...], str] = {tuple(row.row): row.run for row in config.scores[table_id].rows}
        for values in printed.rows:
            names = tuple(printed.cell(values, key) for key in keys)
            model = printed.cell(values, "model")
            if model not in ("OpenAI CLIP", "DINOv2") or names[len(names) - len(ending) :] != ending:
                continue
            means = printed_means(printed, values, published)
            run = run_of_row.get(names)
            ours = headline_of(run, scores)
            for face, numbers in ((PUBLISHED, means), (REPRODUCED, ours)):
                for category in published.categories:
                    if category in numbers:
                        rows.append(
                            {
                                "face": face,
                                "model": model,
                                "setting": setting,
                                "place": place,
                                "category": category,
                                "score": round_cell(numbers[category]),
                            }
                        )
    return rows


def list_unfreezing(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 13: by how many percent a trained encoder changes each score."""
    changes = list_changes(scores, config, published)
    models = list(dict.fromkeys(change.model for change in changes))
    measures = list(dict.fromkeys(change.measure for change in changes))
    return [
        {
            "face": face,
            "model": change.model,
            "order": models.index(change.model),
            "measure": change.measure,
            "place": measures.index(change.measure),
            "change": round_cell(value),
        }
        for change in changes
        for face, value in ((PUBLISHED, change.published), (REPRODUCED, change.reproduced))
        if value is not None
    ]


def list_caps(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Table 2 as a curve: scores by the cap per source."""
    printed = look_up_table(published, "threshold")
    run_of_row = {row.row[0]: row.run for row in config.scores["threshold"].rows}
    rows: Rows = []
    for values in printed.rows:
        cap = str(printed.cell(values, "t"))
        run = run_of_row.get(cap)
        ours = headline_of(run, scores)
        for measure in [AVERAGE, *published.categories]:
            numbers = [(PUBLISHED, read_number(printed.cell(values, measure)))]
            numbers += [(REPRODUCED, ours[measure])] if ours else []
            rows += [
                {"face": face, "cap": int(cap.removesuffix("k")), "measure": measure, "score": round_cell(number)}
                for face, number in numbers
            ]
    return rows


def list_final(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> Rows:
    """Figure 18: category means of the final models."""
    printed = look_up_table(published, "final")
    shown = ["GPT-4V", "Mini-Gemini-HD-8B", "LLaVA-NeXT-8B", "Cambrian-1-8B"]
    bars = []
    for name in shown:
        (values,) = printed.find_rows(["method"], [name])
        numbers = {category: read_number(printed.cell(values, category)) for category in published.categories}
        bars.append((name, PUBLISHED, numbers))
    final, blind = scores.get(config.final_run), scores.get(config.blind_run)
    if final is not None:
        bars.append((config.final_run, "reproduced, with image", dict(final.with_image)))
        bars.append((f"{config.final_run}, image hidden", "reproduced, without image", dict(final.without_image)))
    if blind is not None:
        bars.append((config.blind_run, "reproduced, without image", dict(blind.headline)))
    return [
        {"model": model, "kind": kind, "order": order, "category": category, "score": round_cell(numbers[category])}
        for order, (model, kind, numbers) in enumerate(bars)
        for category in published.categories
    ]


def _panel_row(face: str, name: str, condition: str, score: float, spread: float, order: float) -> dict[str, Any]:
    return {
        "face": face,
        "benchmark": name,
        "condition": condition,
        "score": round_cell(score),
        "low": round_cell(score - spread),
        "high": round_cell(score + spread),
        "order": round_cell(order),
    }


def _recipe_row(
    face: str, recipe: str, group: str, category: str, run: str, score: float | None, numbers: dict[str, float] | None
) -> dict[str, Any]:
    boxed = numbers or {}
    return {
        "face": face,
        "recipe": recipe,
        "group": group,
        "category": category,
        "run": run,
        "score": round_cell(score),
        **{name: round_cell(boxed.get(name)) for name in ("low", "first", "median", "third", "high")},
    }


def _pool(scores: Mapping[str, RunScores], config: TablesConfig, published: Published) -> list[dict[str, float]]:
    runs = [scores[run] for run in config.backbone_runs if run in scores]
    return [join_cvbench({name: run.with_image[name] for name in published.scores}) for run in runs]


def _category(name: str, published: Published) -> str:
    for category, members in published.categories.items():
        if any(member == name or (name == CVBENCH and member.startswith(name)) for member in members):
            return category
    raise ValueError(f"{name!r} is in none of the published categories: {sorted(published.categories)}")


def _of_100(numbers: Mapping[str, float], name: str) -> float:
    return out_of_100(name, numbers[name])


def printed_means(printed: PublishedTable, row: Sequence[Cell], published: Published) -> dict[str, float]:
    """The means over a printed row's sixteen scores."""
    return means_of_scores({name: read_number(printed.cell(row, name)) for name in published.scores}, published)


def headline_of(run: str | None, scores: Mapping[str, RunScores]) -> dict[str, float]:
    """A run's numbers; none where there is no run."""
    return dict(scores[run].headline) if run is not None and run in scores else {}


def read_number(cell: Any) -> float:
    """A printed number.

    Raises:
        ValueError: the cell holds something else.
    """
    if not isinstance(cell, int | float):
        raise ValueError(f"published.yaml: found {cell!r} where a number is printed")
    return float(cell)


def mean_of(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


def _deviation(values: Sequence[float]) -> float:
    centre = mean_of(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / max(len(values) - 1, 1))
