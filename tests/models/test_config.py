from pathlib import Path

import pytest

from cambrian.interfaces import ParamsError
from cambrian.models.config import ModelConfig, filled_slots
from cambrian.params import parse_block, read_yaml
from tests.models.conftest import CONNECTORS

SCALES = sorted(Path("scales").glob("*.yaml"))


def parse(connector: dict[str, object]) -> ModelConfig:
    block = {"encoders": ["vit"], "connector": connector, "llm": "llm", "template": "turns"}
    return parse_block(ModelConfig, block, where="model")


def test_empty_slots_are_left_out_in_order() -> None:
    assert filled_slots(["b", "none", "a", "none"]) == ("b", "a")


@pytest.mark.parametrize("scale", SCALES, ids=lambda path: path.stem)
def test_every_connector_of_every_scale_is_valid(scale: Path) -> None:
    connectors = read_yaml(scale)["connectors"]
    assert len(connectors) > 5
    for connector in connectors.values():
        parse(connector)


def test_an_unknown_kind_names_the_kinds() -> None:
    with pytest.raises(ParamsError, match=r"model.connector.*'mlp'.*'resampler'.*'sva'"):
        parse({**CONNECTORS["mlp"], "kind": "mpl"})


def test_a_missing_value_is_an_error_because_nothing_has_a_default() -> None:
    values = dict(CONNECTORS["mlp"])
    del values["position_rms"]
    with pytest.raises(ParamsError, match="position_rms: missing, and it has no default"):
        parse(values)


def test_a_value_of_another_connector_is_refused() -> None:
    with pytest.raises(ParamsError, match="unknown field"):
        parse({**CONNECTORS["mlp"], "depth": 3})
