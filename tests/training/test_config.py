from __future__ import annotations

from typing import Any

import pytest

from cambrian.interfaces import ParamsError
from cambrian.params import parse_block
from cambrian.training.config import (
    AdamWConfig,
    AdapterRow,
    ConnectorMeaning,
    MuonAdamWConfig,
    Recipe,
    RunRow,
)
from tests.training.tiny import RECIPE

RUN: dict[str, Any] = {
    "encoders": ["eye", "none", "lens", "none"], "llm": "tongue", "adapter": "a", "mix": "m", "recipe": "r",
    "train_encoders": False, "use_images": True, "seed": 0,
}  # fmt: skip


def test_empty_slots_are_no_encoders_and_order_is_kept() -> None:
    assert parse_block(RunRow, RUN, where="runs.x").encoder_names == ("eye", "lens")


def test_encoders_learn_only_where_the_row_says_so() -> None:
    assert parse_block(RunRow, RUN, where="runs.x").trained_parts == {"connector", "llm"}
    trained = parse_block(RunRow, {**RUN, "train_encoders": True}, where="runs.x").trained_parts
    assert trained == {"connector", "llm", "encoders"}


def test_the_optimizer_is_chosen_by_its_kind() -> None:
    assert type(parse_block(Recipe, RECIPE, where="r").optimizer) is MuonAdamWConfig
    keys = set(RECIPE["optimizer"]) - {"momentum", "matrix_scale", "adamw_ratio"}
    plain = {**{key: RECIPE["optimizer"][key] for key in keys}, "kind": "adamw"}
    assert type(parse_block(Recipe, {**RECIPE, "optimizer": plain}, where="r").optimizer) is AdamWConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, r"recipes\.r\.epochs: found 0"),
        ({"epochs": "2"}, r"recipes\.r\.epochs: found '2', input should be a valid integer"),
        ({"schedule": "cosin"}, r"recipes\.r\.schedule: found 'cosin', input should be 'cosine' or 'linear'"),
        ({"shedule": "cosine"}, r"recipes\.r\.shedule: unknown field, did you mean 'schedule'"),
        ({"micro_batch_size": 3}, "global_batch_size 4 does not divide into micro batches of 3"),
        ({"learning_rates": {"connector": 0.1}}, r"recipes\.r\.learning_rates\.llm: missing"),
        (
            {"learning_rates": {**RECIPE["learning_rates"], "encoder": 0.1}},
            r"recipes\.r\.learning_rates\.encoder: unknown field",
        ),
        ({"optimizer": {**RECIPE["optimizer"], "kind": "sgd"}}, r"recipes\.r\.optimizer"),
        ({"warmup_ratio": 1.0}, r"recipes\.r\.warmup_ratio: found 1\.0"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        parse_block(Recipe, {**RECIPE, **change}, where="recipes.r")


def test_every_value_of_a_recipe_must_be_given() -> None:
    for name in RECIPE:
        rest = {key: value for key, value in RECIPE.items() if key != name}
        with pytest.raises(ParamsError, match=rf"r\.{name}: missing"):
            parse_block(Recipe, rest, where="r")


def test_a_row_without_an_encoder_is_refused() -> None:
    row = {"encoders": ["none", "none"], "llm": "tongue", "connector": "mlp", "mix": "m", "recipe": "r"}
    with pytest.raises(ParamsError, match="all slots of encoders are empty"):
        parse_block(AdapterRow, row, where="adapters.x")


def test_an_unknown_kind_of_connector_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"connectors\.x"):
        parse_block(ConnectorMeaning, {"kind": "qformer"}, where="connectors.x")
