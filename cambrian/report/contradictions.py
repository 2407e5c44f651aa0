"""Where the publication contradicts itself or its release: both values, recomputed from the published numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from cambrian.params import parse_block, read_yaml
from cambrian.report.contradictions_config import CONTRADICTIONS_PATH, Statements
from cambrian.report.published import AVERAGE, look_up_table
from cambrian.report.scores import means_of_scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from cambrian.report.published import Cell, Published

CVBENCH_2D, CVBENCH_3D = "CV-Bench-2D", "CV-Bench-3D"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values of one thing, both published or following from what is published."""

    what: str
    one: float
    other: float

    @property
    def difference(self) -> float:
        """How far apart they lie."""
        return round(self.other - self.one, 4) + 0.0


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One place with its two sources and the values of each."""

    id: str
    title: str
    one: str
    """What says the first value of each pair."""
    other: str
    taken: str
    """What this project goes by."""
    pairs: list[Pair]

    def to_json(self) -> dict[str, Any]:
        """The place as plain values."""
        value = asdict(self)
        for plain, pair in zip(value["pairs"], self.pairs, strict=True):
            plain["difference"] = pair.difference
        return value


def list_contradictions(published: Published) -> list[Contradiction]:
    """Every known place at which two published values of one thing differ.

    Raises:
        ParamsError: contradictions.yaml has an unknown or missing field.
    """
    stated = parse_block(Statements, read_yaml(CONTRADICTIONS_PATH), where=CONTRADICTIONS_PATH.name)
    return [
        Contradiction(
            place.id, place.title, place.one, place.other, place.taken, _RECOMPUTED[place.id](published, stated)
        )
        for place in stated.places
    ]


def _gap_axes(published: Published, stated: Statements) -> list[Pair]:
    """Figure 6: what the tables give and what one reads on the printed axes, for the two axes that are wrong."""
    rows = published.figures["fig_gap"]["data"]["rows"]
    return [
        Pair(f"{row[0]}, {row[1]}, {row[2]}", float(row[3]), float(row[4]))
        for row in rows
        if row[0] in ("General", "Knowledge")
    ]


def _plotted_ratios(published: Published, stated: Statements) -> list[Pair]:
    printed, full = look_up_table(published, "ratio_mixtures"), look_up_table(published, "ratio_full")
    plotted = printed.columns[-1]
    pairs = []
    for row in printed.rows:
        name = printed.cell(row, "experiment")
        (scores,) = full.find_rows(["experiment"], [name])
        pairs.append(Pair(str(name), _number(full.cell(scores, AVERAGE)), _number(printed.cell(row, plotted))))
    return pairs


def _heat_map_cell(published: Published, stated: Statements) -> list[Pair]:
    """CV-Bench of every heat-map row by its two tables; only the pairs that lie more than rounding apart are given."""
    data = published.figures["fig_unfreeze_change"]["data"]
    frozen, trained = look_up_table(published, "recipe_1.2M"), look_up_table(published, "recipe_1.2M_unfrozen")
    place = data["columns"].index("CV-Bench")
    changes = {str(row[0]): float(row[place]) for row in data["rows"]}
    pairs = []
    for row in trained.rows:
        keys = [trained.cell(row, key) for key in ("model", "architecture")]
        (before,) = frozen.find_rows(["model", "architecture"], keys)
        means = [
            (_number(table.cell(line, CVBENCH_2D)) + _number(table.cell(line, CVBENCH_3D))) / 2
            for table, line in ((frozen, before), (trained, row))
        ]
        change = 100 * (means[1] / means[0] - 1)
        name = " ".join(map(str, keys))
        if name in changes and abs(changes[name] - change) > stated.heat_map_rounding:
            pairs.append(Pair(f"{name}: CV-Bench, percent", round(change, 2), changes[name]))
    return pairs


def _running_text(published: Published, stated: Statements) -> list[Pair]:
    pairs = []
    for quote in stated.running_text:
        table = look_up_table(published, quote.table)
        (row,) = table.find_rows(["model", "architecture"], quote.row)
        pairs.append(Pair(f"{quote.table}: {' '.join(quote.row)}", _number(table.cell(row, AVERAGE)), quote.average))
    pairs.append(
        Pair("backbones in table 9", len(look_up_table(published, "recipe_0M").rows), stated.announced_backbones)
    )
    return pairs


def _repeated_row(published: Published, stated: Statements) -> list[Pair]:
    """Table 24: grading less fuzzy matching, as the printed rows give it and as it is printed, for the 13B model."""
    table = look_up_table(published, "fuzzy_matching")
    rows = {
        kind: table.find_rows(["model", "grading"], ["Cambrian-1-13B", kind])[0]
        for kind in ("fuzzy", "GPT-3.5", "delta")
    }
    return [
        Pair(
            f"13B, {column}",
            round(_number(table.cell(rows["GPT-3.5"], column)) - _number(table.cell(rows["fuzzy"], column)), 2),
            _number(table.cell(rows["delta"], column)),
        )
        for column in table.columns[2:]
    ]


def _curation_averages(published: Published, stated: Statements) -> list[Pair]:
    """Table 3 in the paper and in the release's README; both averages follow from their own category means."""
    table = look_up_table(published, "curation")
    pairs = []
    for name, vision in stated.readme_vision_centric.items():
        (row,) = table.find_rows(["data"], [name])
        means = [_number(table.cell(row, category)) for category in published.categories]
        average = (math.fsum(means[:3]) + vision) / 4
        pairs += [
            Pair(f"{name}: Vision-Centric", means[3], vision),
            Pair(f"{name}: Average", _number(table.cell(row, AVERAGE)), round(average, 2)),
        ]
    return pairs


def _final_recipe(published: Published, stated: Statements) -> list[Pair]:
    return [
        Pair(f"{value.what}, {size}", written, released)
        for value in stated.final_recipe
        for size, written, released in zip(("8B", "13B", "34B"), value.written, value.released, strict=True)
        if written != released
    ]


def _ratio_of_the_release(published: Published, stated: Statements) -> list[Pair]:
    """Shares of Cambrian-7M by category, and the ratio of experiment 5 that is named as the recommended one."""
    table, mixtures = look_up_table(published, "data_composition"), look_up_table(published, "ratio_mixtures")
    (ratio,) = mixtures.find_rows(["experiment"], ["exp5"])
    kept = [row for row in table.rows if table.cell(row, "in_7M")]
    total = math.fsum(_number(table.cell(row, "k_samples")) for row in kept)
    pairs = []
    for category in mixtures.columns[1:-1]:
        own = math.fsum(
            _number(table.cell(row, "k_samples")) for row in kept if table.cell(row, "category") == category
        )
        pairs.append(Pair(f"{category}, percent", round(100 * own / total, 2), _number(mixtures.cell(ratio, category))))
    return pairs


def _sum_of_737k(published: Published, stated: Statements) -> list[Pair]:
    return [Pair("samples", float(sum(stated.parts_of_737k.values())), 737000.0)]


def _sum_of_sources(published: Published, stated: Statements) -> list[Pair]:
    table = look_up_table(published, "data_composition")
    total = math.fsum(_number(table.cell(row, "k_samples")) for row in table.rows)
    return [Pair("thousands of samples", total, stated.stated_thousands)]


def _engine_growth(published: Published, stated: Statements) -> list[Pair]:
    engine = stated.engine
    return [
        Pair("samples", engine["samples in the pool"], engine["samples in the appendix"]),
        Pair("growth, percent", round(100 * engine["samples in the pool"] / engine["earlier science samples"] - 100, 1),
             engine["growth, percent"]),
    ]  # fmt: skip


def _knowledge_ranks(published: Published, stated: Statements) -> list[Pair]:
    """Table 8: the printed Knowledge ranks of the encoders without language, and those of figure 5's means."""
    ranks, plotted = look_up_table(published, "rankings"), published.figures["fig_interface"]["data"]
    place = plotted["columns"].index("Knowledge")
    means = {str(row[1]): float(row[place]) for row in plotted["rows"] if row[0] != "language-supervised"}
    pairs = []
    for row in ranks.rows:
        if ranks.cell(row, "half") != "ssl+other":
            continue
        name = f"{ranks.cell(row, 'model')} {ranks.cell(row, 'architecture')}"
        own = next(mean for model, mean in means.items() if _same_model(model, name))
        counted = 1 + sum(mean > own for mean in means.values())
        printed = _number(ranks.cell(row, "K"))
        if counted != printed:
            pairs.append(Pair(f"{name}: Knowledge rank", float(counted), printed))
    return pairs


def _labels_of_experiment_5(published: Published, stated: Statements) -> list[Pair]:
    mixtures = look_up_table(published, "ratio_mixtures")
    (row,) = mixtures.find_rows(["experiment"], ["exp5"])
    total = math.fsum(_number(mixtures.cell(row, column)) for column in mixtures.columns[1:-1])
    return [Pair("sum of the labels, percent", 100.0, round(total, 2))]


def _caps(published: Published, stated: Statements) -> list[Pair]:
    """Table 2's category means and those of table 17's scores, where they differ by more than rounding."""
    short, full = look_up_table(published, "threshold"), look_up_table(published, "threshold_full")
    pairs = []
    for row in short.rows:
        (scores,) = full.find_rows(["t"], [short.cell(row, "t")])
        means = means_of_scores({name: _number(full.cell(scores, name)) for name in published.scores}, published)
        for category in published.categories:
            printed = _number(short.cell(row, category))
            if abs(printed - means[category]) > stated.table_rounding:
                pairs.append(Pair(f"{short.cell(row, 't')}: {category}", round(means[category], 2), printed))
    return pairs


def _same_model(plotted: str, ranked: str) -> bool:
    """Whether two figures' names mean one encoder: they share its first word and its resolution."""
    names = [name.replace("Diffusion ", "").replace("VAE+UNet", "SD2.1") for name in (plotted, ranked)]
    first = [name.split(" ")[0].split("/")[0] for name in names]
    return (
        first[0] == first[1]
        and names[0].split("@")[-1] == names[1].split("@")[-1]
        and _size(names[0]) == _size(names[1])
    )


def _size(name: str) -> str:
    return next((size for size in ("ViT-B", "ViT-L", "ViT-H") if size in name), "")


def _number(cell: Cell) -> float:
    if not isinstance(cell, int | float):
        raise ValueError(f"published.yaml: found {cell!r} where a number is printed")
    return float(cell)


_RECOMPUTED: dict[str, Callable[[Published, Statements], list[Pair]]] = {
    "gap-axes": _gap_axes,
    "plotted-ratios": _plotted_ratios,
    "heat-map-cell": _heat_map_cell,
    "running-text": _running_text,
    "repeated-row": _repeated_row,
    "curation": _curation_averages,
    "final-recipe": _final_recipe,
    "ratio-of-the-release": _ratio_of_the_release,
    "sum-of-737k": _sum_of_737k,
    "sum-of-sources": _sum_of_sources,
    "engine-growth": _engine_growth,
    "knowledge-ranks": _knowledge_ranks,
    "labels-of-experiment-5": _labels_of_experiment_5,
    "caps": _caps,
}
