"""Tables of counts and facts: CV-Bench's tasks, the backbones, test images in training data, sources of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_json
from cambrian.report.published import look_up_table
from cambrian.report.tables import Row, Table, round_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.report.config import BackboneMeaning, BackboneRow, LeakageTable
    from cambrian.report.published import Cell, Published

CVBENCH_SCORES = ("CV-Bench-2D", "CV-Bench-3D")
BACKBONE_KEYS = ["method", "architecture", "resolution", "hidden"]


def make_task_table(tasks: Mapping[str, str], benchmarks: Path, published: Published, *, scale: str) -> Table:
    """CV-Bench's tasks with their numbers of questions and their sources."""
    printed = look_up_table(published, "cvbench_tasks")
    counts, sources = count_tasks(benchmarks)
    rows = []
    for values in printed.rows:
        task = tasks[str(printed.cell(values, "task"))]
        count = counts.get(task)
        samples = printed.cell(values, "samples")
        rows.append(
            Row(
                keys=[printed.cell(values, "type"), printed.cell(values, "task")],
                run=None,
                status="not attempted" if count is None else "reproduced",
                published={"sources": printed.cell(values, "sources"), "samples": samples},
                reproduced={} if count is None else {"sources": "; ".join(sources[task]), "samples": count},
                difference={} if count is None or not isinstance(samples, int) else {"samples": count - samples},
            )
        )
    return Table.of(
        printed,
        scale=scale,
        keys=["type", "task"],
        columns=["sources", "samples"],
        rows=rows,
        own_notes=["The difference is one of size: the questions are other ones, made by the same rules."],
    )


def make_backbone_table(
    rows_of_backbones: Sequence[BackboneRow],
    meanings: Mapping[str, BackboneMeaning],
    published: Published,
    *,
    scale: str,
) -> Table:
    """The backbones: the published facts, and what each name means at this scale."""
    printed = look_up_table(published, "backbones")
    columns = [column for column in printed.columns if column not in BACKBONE_KEYS]
    shown = ["resolution", "hidden", "supervision", "architecture"]
    backbone_of_row = {
        printed.rows.index(found): row.backbone
        for row in rows_of_backbones
        for found in printed.find_rows(BACKBONE_KEYS, row.row)
    }
    rows = []
    for place, values in enumerate(printed.rows):
        backbone = backbone_of_row.get(place)
        rows.append(
            Row(
                keys=[printed.cell(values, "group"), printed.cell(values, "method")],
                run=None,
                status="not attempted" if backbone is None else "reproduced",
                published={column: printed.cell(values, column) for column in [*shown, "patch", "tokens"]},
                reproduced={} if backbone is None else backbone_facts(meanings[backbone]),
            )
        )
    assert set(columns) >= {"group", "supervision", "patch", "tokens"}
    return Table.of(
        printed,
        scale=scale,
        keys=["group", "method"],
        columns=[*shown, "patch", "tokens"],
        rows=rows,
        own_notes=["Facts, not results: the reproduced face is what the name means at this scale."],
    )


def make_leakage_table(config: LeakageTable, validated: Path, published: Published, *, scale: str) -> Table:
    """Test images found among the training images of each mix or pool, by benchmark; `validated` has the verdicts."""
    printed = look_up_table(published, "leakage")
    keys, columns = ["category", "test set"], list(printed.columns[2:])
    verdicts = {
        column: read_json(validated / f"{name}.json")["leakage"]["benchmarks"]
        for column, name in config.columns.items()
        if (validated / f"{name}.json").is_file()
    }
    rows = []
    for values in printed.rows:
        name = str(printed.cell(values, "test set"))
        sums = {column: _sum_leakage(found, name, config.joined) for column, found in verdicts.items()}
        facts = {column: fact for column, fact in sums.items() if fact is not None}
        reproduced: dict[str, Cell] = {column: fact[1] for column, fact in facts.items()}
        differences = {}
        for column, fact in facts.items():
            reproduced["images"] = fact[0]
            printed_found, printed_images = printed.cell(values, column), printed.cell(values, "images")
            if isinstance(printed_found, int) and isinstance(printed_images, int) and fact[0]:
                share = 100 * (fact[1] / fact[0] - printed_found / printed_images)
                differences[column] = round(share, 2) + 0.0
        rows.append(
            Row(
                keys=[printed.cell(values, key) for key in keys],
                run=None,
                status="reproduced" if facts else "not attempted",
                published={column: printed.cell(values, column) for column in columns},
                reproduced=reproduced,
                difference=differences,
            )
        )
    return Table.of(
        printed,
        scale=scale,
        keys=keys,
        columns=columns,
        rows=rows,
        own_notes=[
            "Differences are percentage points of the test images. The engine's column is of its own records' images."
        ],
    )


def make_composition_table(
    collections: Mapping[str, str], data: Path, published: Published, *, samples_per_record: int, scale: str
) -> Table:
    """The sources of the two collections with thousands of samples; ours are records times what one stands for."""
    printed = look_up_table(published, "data_composition")
    columns = list(collections)
    taken = {name: read_records_by_source(data, mix) for name, mix in collections.items()}
    rows = []
    for values in printed.rows:
        source, thousands = str(printed.cell(values, "dataset")), printed.cell(values, "k_samples")
        is_kept = printed.cell(values, "in_7M")
        printed_cells: dict[str, Cell] = {
            column: thousands if column == columns[0] or is_kept else 0 for column in columns
        }
        found = {name: counts for name, counts in taken.items() if counts is not None}
        reproduced = {name: counts.get(source, 0) * samples_per_record / 1000 for name, counts in found.items()}
        rows.append(
            Row(
                keys=[printed.cell(values, "category"), source],
                run=None,
                status="reproduced" if found else "not attempted",
                published=printed_cells,
                reproduced={name: round_cell(value) for name, value in reproduced.items()},
                difference={
                    name: round(value - float(str(printed_cells[name])), 4) + 0.0 for name, value in reproduced.items()
                },
            )
        )
    return Table.of(
        printed,
        scale=scale,
        keys=["category", "dataset"],
        columns=columns,
        rows=rows,
        own_notes=[f"Thousands of samples; one record stands for {samples_per_record} of them."],
    )


def read_records_by_source(data: Path, mix: str) -> dict[str, int] | None:
    """Records of each source in a mix, from its ledger; None where the mix was not made."""
    path = data / "mixes" / mix / "ledger.json"
    if not path.is_file():
        return None
    return {source: facts["out"] for source, facts in read_json(path)["steps"][-1]["sources"].items()}


def count_tasks(benchmarks: Path) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Questions of CV-Bench and their sources by task; nothing where they are not made."""
    import pyarrow.parquet

    counts: dict[str, int] = {}
    sources: dict[str, set[str]] = {}
    for score in CVBENCH_SCORES:
        path = benchmarks / score / "test.parquet"
        if path.is_file():
            table = pyarrow.parquet.ParquetFile(path).read(columns=["task", "source"])
            for task, source in zip(*(table.column(name).to_pylist() for name in ("task", "source")), strict=True):
                counts[task] = counts.get(task, 0) + 1
                sources.setdefault(task, set()).add(source)
    return counts, {task: sorted(names) for task, names in sources.items()}


def backbone_facts(meaning: BackboneMeaning) -> dict[str, Cell]:
    """What a backbone's name means at a scale, in the columns of tables 6 and 7."""
    arguments = meaning.model_args
    patch, dims = arguments.get("patch_size"), arguments.get("dims")
    side = meaning.spec.get("image", {}).get("side")
    return {
        "resolution": side,
        "hidden": arguments.get("embed_dim") or (sum(dims) if dims else None),
        "supervision": meaning.objective.get("kind"),
        "architecture": meaning.architecture,
        "patch": patch,
        "tokens": (side // patch) ** 2 if side and patch else None,
    }


def _sum_leakage(
    found: Mapping[str, Mapping[str, Any]], name: str, joined: Mapping[str, Sequence[str]]
) -> tuple[int, int] | None:
    """Test images and those found, of a row of the table; None where the gate has not looked."""
    members = list(found) if name == "all" else [part for part in joined.get(name, [name]) if part in found]
    if not members:
        return None
    return sum(found[part]["images"] for part in members), sum(found[part]["found"] for part in members)
