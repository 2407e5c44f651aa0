import pytest

from cambrian.release.config import parse_config, read_released
from cambrian.release.counts import count_parameters

# millions, as the specification states them after running the official modules: the numbers of section 2.1
STATED = {
    "cambrian-8b": {"output": 21.0, "in_llm": 220.6},
    "cambrian-13b": {"output": 31.5, "in_llm": 241.5},
    "cambrian-34b": {"output": 58.7, "in_llm": 255.1},
}
LLMS = {"cambrian-8b": 8_030_261_248, "cambrian-13b": 13_015_864_320, "cambrian-34b": 34_388_917_248}


@pytest.mark.parametrize("name", STATED)
def test_a_released_model_has_the_stated_parameters(name: str) -> None:
    config = read_released(name)
    counts = count_parameters(config, config.shapes())
    assert round(counts.projections / 1e6, 1) == 13.9
    assert round(counts.connector_aggregators / 1e6, 1) == 47.3
    assert round(counts.output / 1e6, 1) == STATED[name]["output"]
    assert round(counts.in_llm / 1e6, 1) == STATED[name]["in_llm"]
    assert counts.query_and_newline == config.vision_hidden_size + config.hidden_size
    assert counts.llm == LLMS[name]
    assert counts.total > LLMS[name] + 300e6


def test_the_8b_model_has_the_stated_number_of_tensors() -> None:
    config = read_released("cambrian-8b")
    counts = count_parameters(config, config.shapes())
    assert counts.num_tensors == 775 + 1
    assert counts.num_vision_tensors == 485


def test_phi3s_model_follows_from_its_widths() -> None:
    """Its number of aggregators stands only in its own config.json; what each of them has, follows."""
    values = read_released("cambrian-8b").values() | {
        "model_type": "cambrian_phi3",
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_key_value_heads": 32,
        "vocab_size": 32064,
        "max_position_embeddings": 4096,
        "num_of_vision_sampler_layers": 1,
    }
    config = parse_config(values, where="phi3")
    counts = count_parameters(config, config.shapes())
    assert counts.llm == 3_821_079_552
    # 22.06 million at width 4096, and one column of proj_in and one row of proj_out for each of 1024 channels less
    assert round(counts.in_llm / 1e6, 2) == round(22.05696 - 2 * 1024 * 1024 / 1e6, 2)
    assert counts.output == 3072 * (1024 + 1) + 3072 * (3072 + 1)
