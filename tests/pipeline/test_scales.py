"""Which blocks of every scale can be read today, name by name; what cannot is listed with its owner's work to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cambrian.backbones.config import BackboneConfig, PublishedEncoder
from cambrian.chat.recorded import DialoguesConfig
from cambrian.data.analysis_sets import AnalysisSet
from cambrian.data.benchmark_sets import BenchmarksBlock
from cambrian.data.card import CardConfig
from cambrian.data.cleaning import CleaningConfig
from cambrian.data.engine.config import EngineConfig
from cambrian.data.expectations import ValidationConfig
from cambrian.data.format_prompts import FormatPromptsConfig, read_format_prompt_table
from cambrian.data.partitions import PartitionsConfig
from cambrian.data.sources import PoolConfig
from cambrian.evaluation.benchmarks.registry import BENCHMARKS, PAPER_SCORES
from cambrian.evaluation.config import AttentionConfig, EvaluationConfig
from cambrian.evaluation.probing import ProbeConfig
from cambrian.evaluation.readings import GradingBlock
from cambrian.interfaces import ParamsError
from cambrian.params import parse_block, read_yaml
from cambrian.release.encoders import read_encoder_rows
from cambrian.report.config import ReportConfig
from cambrian.runtime import RuntimeConfig
from cambrian.training.config import ConnectorMeaning, LLMMeaning, Recipe, TrainingConfig
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    import pydantic

PARAMS = read_yaml(ROOT / "params.yaml")
SCALES = {path.stem: read_yaml(path) for path in sorted((ROOT / "scales").glob("*.yaml"))}

BLOCKS: dict[str, type[pydantic.BaseModel]] = {
    "runtime": RuntimeConfig,
    "training": TrainingConfig,
    "cleaning": CleaningConfig,
    "partitions": PartitionsConfig,
    "card": CardConfig,
    "format_prompts": FormatPromptsConfig,
    "validation": ValidationConfig,
    "evaluation": EvaluationConfig,
    "report": ReportConfig,
    "engine": EngineConfig,
    "benchmarks": BenchmarksBlock,
    "probe": ProbeConfig,
    "attention": AttentionConfig,
    "grading": GradingBlock,
    "dialogues": DialoguesConfig,
}
TABLES: dict[str, type[pydantic.BaseModel]] = {
    "pools": PoolConfig,
    "backbones": BackboneConfig,
    "llms": LLMMeaning,
    "connectors": ConnectorMeaning,
    "recipes": Recipe,
    "analysis_sets": AnalysisSet,
}
NOT_YET = {
    "gpu": set(),
    "mini": set(),
    "paper": set(),
}
"""LLMs need their templates in training."""


def names_used(table: str) -> set[str]:
    """The names of a table that any row of any breadth refers to."""
    breadths = list(PARAMS["breadths"].values())
    adapters = [row for breadth in breadths for row in breadth["adapters"].values()]
    rows = [*adapters, *(row for breadth in breadths for row in breadth["runs"].values())]
    return {
        "pools": set(PARAMS["pools"]),
        "backbones": {name for breadth in breadths for name in breadth["backbones"]}
        | {name for row in rows for name in [*row["encoders"], row["llm"]]},
        "llms": {row["llm"] for row in rows},
        "connectors": {row["connector"] for row in adapters},
        "recipes": {row["recipe"] for row in rows},
        "analysis_sets": {"labelled", "dialogues"},
    }[table]


def is_readable(scale: dict[str, Any], name: str) -> bool:
    if name not in scale:
        return False
    try:
        if name in BLOCKS:
            parse_block(BLOCKS[name], scale[name], where=name)
        else:
            assert names_used(name) <= set(scale[name]), name
            for key, value in scale[name].items():
                parse_block(TABLES[name], value, where=f"{name}.{key}")
    except ParamsError:
        return False
    return True


def test_there_are_three_scales() -> None:
    assert set(SCALES) == set(NOT_YET) == {"gpu", "mini", "paper"}


@pytest.mark.parametrize("scale", SCALES)
def test_every_block_can_be_read_but_those_that_are_listed(scale: str) -> None:
    unreadable = {name for name in {**BLOCKS, **TABLES} if not is_readable(SCALES[scale], name)}
    assert unreadable == NOT_YET[scale]


@pytest.mark.parametrize("scale", SCALES)
def test_every_name_of_params_has_a_meaning(scale: str) -> None:
    for table in TABLES.keys() - NOT_YET[scale]:
        assert names_used(table) <= set(SCALES[scale][table]), table
    assert SCALES[scale]["samples_per_record"] > 0


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_published_encoders_are_rows_that_exist(scale: str) -> None:
    rows = read_encoder_rows()
    meanings = [BackboneConfig.model_validate(value).root for value in SCALES[scale]["backbones"].values()]
    encoders = [meaning for meaning in meanings if isinstance(meaning, PublishedEncoder)]
    assert len(encoders) >= 11
    assert {encoder.row for encoder in encoders} <= set(rows)


def test_the_largest_scale_has_every_encoder_of_the_study_and_of_the_final_models() -> None:
    meanings = [BackboneConfig.model_validate(value).root for value in SCALES["paper"]["backbones"].values()]
    found = {meaning.row for meaning in meanings if isinstance(meaning, PublishedEncoder)}
    # two of the final four are rows of the study on another grid, which the connector makes; the XXL with its last
    # stage alone is within the XXL with all four
    same = {"siglip-so400m-384-final": "siglip-so400m-384", "clip-l-336-final": "clip-l-336"}
    wanted = {same.get(name, name) for part in ("study", "final") for name in read_encoder_rows(part)}
    assert wanted - found == {"convnext-xxl-1024"}


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_the_prompts_for_formats_cover_every_kind(scale: str) -> None:
    config = parse_block(FormatPromptsConfig, SCALES[scale]["format_prompts"], where="format_prompts")
    assert config.texts.keys() == read_format_prompt_table().kinds.keys()


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_evaluates_at_least_the_sixteen_scores_and_builds_what_it_evaluates(scale: str) -> None:
    asked = set(SCALES[scale]["evaluation"]["prompts"])
    assert asked >= PAPER_SCORES
    assert asked == set(SCALES[scale]["benchmarks"]["sets"])
    assert set(SCALES[scale]["attention"]["benchmarks"]) <= asked


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_published_sets_keep_the_columns_that_their_benchmark_reads(scale: str) -> None:
    sets = SCALES[scale]["benchmarks"]["sets"]
    assert {name for name in sets if not set(BENCHMARKS[name].columns) <= set(sets[name]["fields"])} == set()


def test_the_largest_scale_has_the_whole_suite_of_the_release() -> None:
    assert set(SCALES["paper"]["benchmarks"]["sets"]) == set(BENCHMARKS)
