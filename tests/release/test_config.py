import json
from pathlib import Path
from typing import Any

import pytest

from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.release.config import parse_config, read_config, read_released, write_config
from tests.release.conftest import VALUES


def test_a_config_is_written_back_with_every_field(tmp_path: Path) -> None:
    values = VALUES | {"unfreeze_mm_vision_tower": False, "spmd_mesh": None, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    write_config(tmp_path, read_config(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text()) == values


def test_the_older_names_of_the_encoders_are_read() -> None:
    values = {name.replace("mm_vision_tower", "vision_tower"): value for name, value in VALUES.items()}
    config = parse_config(values, where="config.json")
    assert config.towers == ("a", "b")
    assert config.tower_sides() == [2, 4]
    assert config.values() == values


def test_the_connector_has_the_configs_sizes() -> None:
    connector = parse_config(VALUES, where="config.json").connector()
    assert (connector.side, connector.depth, connector.group_sides, connector.max_window_side) == (2, 2, (2, 1), 2)
    assert connector.in_llm is not None
    assert (connector.in_llm.start, connector.in_llm.stride, connector.in_llm.count) == (0, 2, 2)


def test_channels_of_the_released_encoders_are_known() -> None:
    shapes = read_released("cambrian-8b").shapes()
    assert [(shape.channels, shape.grid) for shape in shapes] == [(1152, 24), (1024, 24), (1536, 24), (5760, 96)]


def test_an_unknown_encoder_is_named_with_the_nearest() -> None:
    config = parse_config(VALUES | {"mm_vision_tower_aux_list": ["a", "facebook/dinov2-giant"]}, where="config.json")
    with pytest.raises(ParamsError, match="unknown name 'a'"):
        config.shapes()


def test_an_unknown_model_is_named_with_the_nearest() -> None:
    with pytest.raises(ParamsError, match="unknown name 'cambrian-8B'; did you mean 'cambrian-8b'"):
        read_released("cambrian-8B")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "cambrian_mistral"}, "model_type: found 'cambrian_mistral'"),
        ({"mm_projector_type": "mlp2x_gelu"}, "Only the release's SVA models can be read"),
        ({"hidden_size": "32"}, "hidden_size: found '32'"),
        ({"query_num_list": [4]}, "num_query_group is 2, query_num_list has 1"),
        ({"query_num_list": [4, 3]}, "query_num_list: 3 is no square number"),
        ({"mm_vision_tower_aux_token_len_list": [4, 9]}, "a grid of side 3 does not divide into 2 cells"),
        ({"mm_vision_tower_aux_token_len_list": [4]}, "names 2 encoders, .* has 1 entries"),
        ({"vision_hidden_size": 24}, "24 does not divide into 16 heads"),
        ({"stride_of_vision_sampler_layers": 3}, "would act after layer 3, the LLM has layers 0 to 2"),
    ],
)
def test_a_config_that_makes_no_model_is_told_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        parse_config(VALUES | changes, where="config.json")


def test_a_missing_field_is_named() -> None:
    values = {name: value for name, value in VALUES.items() if name != "connector_depth"}
    with pytest.raises(ArtifactError, match="connector_depth: missing"):
        parse_config(values, where="config.json")
