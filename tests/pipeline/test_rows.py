"""Every breadth of params.yaml: the paper's trained models, and that every name in them means something at a scale."""

from __future__ import annotations

from typing import Any

import pytest

from cambrian.backbones.config import BackboneConfig, TrainedEncoder
from cambrian.models.config import filled_slots
from cambrian.params import ParamsFiles, parse_block, read_yaml
from cambrian.report.config import read_findings_config, read_tables_config
from cambrian.report.published import read_published
from cambrian.report.seeds import group_seeds
from cambrian.training.config import AdapterRow, ConnectorMeaning, Recipe, RunRow
from tests.pipeline.imports import ROOT

FILES = ParamsFiles(ROOT)
BREADTHS: dict[str, dict[str, Any]] = FILES.params["breadths"]
SCALES = {path.stem: read_yaml(path) for path in sorted((ROOT / "scales").glob("*.yaml"))}
TABLES = ("backbones", "mixes", "adapters", "runs", "probed", "analysed")
SIZES = {"default": 50, "seeds": 84, "all": 131}


def test_every_model_that_the_paper_trained_has_a_row() -> None:
    """One row a model: tables 9 to 14, 1, 20, 21, 17, 18, 3, 4, DINOv2@518 (figure 5), and four rows of ours."""
    tables = read_published().tables
    counted = ("recipe_0M", "recipe_0.5M", "recipe_1.2M", "recipe_1.2M_unfrozen", "instr_5M", "ensembles")
    counted = (*counted, "spatial_connectors", "threshold_full", "ratio_full", "curation")
    rows = sum(len(tables[name].rows) for name in counted)
    dinov2_518, connectors_without_concat, ablation_without_the_shared_row = 1, 3, 6
    final_with_phi3, floor_plain_and_two_blind = 4, 4
    rows += dinov2_518 + connectors_without_concat + ablation_without_the_shared_row
    runs = BREADTHS["all"]["runs"]
    assert len(group_seeds(runs)) == rows + final_with_phi3 + floor_plain_and_two_blind


def test_the_breadths_have_their_sizes_and_hold_the_default_one() -> None:
    assert {name: len(tables["runs"]) for name, tables in BREADTHS.items()} == SIZES
    for name, tables in BREADTHS.items():
        for table in ("mixes", "adapters", "runs"):
            assert BREADTHS["default"][table].items() <= tables[table].items(), (name, table)


def test_the_rows_that_run_are_those_of_one_breadth() -> None:
    chosen = {table: FILES.params[table] for table in TABLES}
    assert chosen in list(BREADTHS.values())


@pytest.mark.parametrize("breadth", BREADTHS)
def test_rows_refer_to_names_that_there_are(breadth: str) -> None:
    tables = BREADTHS[breadth]
    adapters = {name: parse_block(AdapterRow, row, where=name) for name, row in tables["adapters"].items()}
    for name, values in tables["runs"].items():
        row = parse_block(RunRow, values, where=name)
        adapter = adapters[row.adapter]
        assert (adapter.encoders, adapter.llm) == (row.encoders, row.llm), name
        assert {row.mix, adapter.mix} <= tables["mixes"].keys(), name
        assert {*row.encoders, row.llm} <= set(tables["backbones"]), name
    assert {row["adapter"] for row in tables["runs"].values()} == adapters.keys()
    assert tables["analysed"].items() <= tables["runs"].items()
    assert set(tables["probed"]) <= set(tables["backbones"])


def test_every_probed_encoder_of_the_paper_is_probed_with_all_rows_and_what_tables_show_is_analysed() -> None:
    config = read_tables_config()
    assert {row.encoder for row in config.probes.rows} <= set(BREADTHS["all"]["probed"])
    assert {row.encoder for row in config.probes.added} <= set(BREADTHS["default"]["probed"])
    assert {row.run for row in [*config.probes.rows, *config.probes.added]} <= BREADTHS["all"]["runs"].keys()
    shown = {config.attention.run, *config.grading.runs.values(), *config.answer_machine.talkers}
    shown |= {config.answer_machine.with_prompts, config.answer_machine.without_prompts}
    assert shown == BREADTHS["all"]["analysed"].keys()
    assert set(config.attention.encoders.values()) == set(BREADTHS["all"]["runs"][config.attention.run]["encoders"])


@pytest.mark.parametrize(("breadth", "num_runs"), [("default", 7), ("all", 7), ("seeds", 24)])
def test_the_main_comparisons_have_three_seeds(breadth: str, num_runs: int) -> None:
    runs = BREADTHS[breadth]["runs"]
    repeated = {base: names for base, names in group_seeds(runs).items() if len(names) > 1}
    assert len(repeated) == num_runs
    for base, names in repeated.items():
        assert names == [base, f"{base}-s1", f"{base}-s2"]
        assert [runs[name]["seed"] for name in names] == [0, 1, 2]


@pytest.mark.parametrize(
    ("finding", "plus", "minus"),
    [
        ("two-phases", "clip-558k", "clip-0m"),
        ("more-adapter-data", "clip-1200k", "clip-558k"),
        ("dinov2-near-on-vision", "clip-1200k", "dinov2-1200k"),
        ("sva-concat", "sva", "all-four"),
        ("sva-resampler", "sva", "resampler"),
    ],
)
def test_both_sides_of_a_main_comparison_have_three_seeds(finding: str, plus: str, minus: str) -> None:
    (found,) = [one for one in read_findings_config().findings if one.id == finding]
    assert (plus, minus) in zip(found.plus, found.minus, strict=True)
    seeds = group_seeds(BREADTHS["default"]["runs"])
    assert (len(seeds[plus]), len(seeds[minus])) == (3, 3)


@pytest.mark.parametrize("scale", SCALES)
def test_every_name_of_every_breadth_means_something_at_every_scale(scale: str) -> None:
    meanings = SCALES[scale]
    rows = [row for tables in BREADTHS.values() for table in ("adapters", "runs") for row in tables[table].values()]
    used = {field: {row[field] for row in rows if field in row} for field in ("connector", "recipe", "llm")}
    for field in used:
        table = f"{field}s"
        assert used[field] <= meanings[table].keys(), (table, used[field] - meanings[table].keys())
    for table, kind in (("connectors", ConnectorMeaning), ("recipes", Recipe)):
        for name in used[table.removesuffix("s")]:
            parse_block(kind, meanings[table][name], where=f"{scale}: {table}.{name}")
    for name in BREADTHS["all"]["backbones"]:
        assert name in meanings["backbones"], f"scales/{scale}.yaml: backbones lacks {name}"
        parse_block(BackboneConfig, meanings["backbones"][name], where=f"{scale}: backbones.{name}")


def test_connectors_of_every_row_can_be_built_over_its_encoders() -> None:
    """At the scale that trains its encoders; a connector sees of an encoder only the shape of its map."""
    from cambrian.backbones.vision_encoder import build_encoder
    from cambrian.models.building import build_connector
    from cambrian.models.connector import FeatureShape
    from cambrian.models.encoders import VisionEncoder

    shapes, widths = {}, {}
    for name in BREADTHS["all"]["backbones"]:
        meaning = FILES.meaning("backbones", name, BackboneConfig).root
        if isinstance(meaning, TrainedEncoder):
            encoder = VisionEncoder(build_encoder(meaning, seed=0), meaning.spec)
            shapes[name] = FeatureShape(encoder.channels, encoder.grid)
        elif hasattr(meaning, "shape"):
            widths[name] = meaning.shape.hidden_dim
    assert len(shapes) == 24  # the 23 of table 6 and the one with random weights
    for row in BREADTHS["all"]["adapters"].values():
        connector = FILES.meaning("connectors", row["connector"], ConnectorMeaning).root
        encoders = [shapes[name] for name in filled_slots(row["encoders"])]
        build_connector(connector, encoders, llm_dim=widths[row["llm"]])
