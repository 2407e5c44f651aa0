import copy
from pathlib import Path

import pytest
import torch

from cambrian.interfaces import ParamsError
from cambrian.models.config import ModelConfig
from cambrian.models.weights import build_model
from cambrian.params import parse_block
from tests.models.conftest import CONNECTORS, make_batch, make_model, real_logits


def test_aggregators_rewrite_only_the_cells_of_images(backbones: Path) -> None:
    model = make_model(backbones, "sva-in-llm")
    batch = make_batch(model, [[1, "image", 7, 8], [3, 4, "image", 5]], [(9, 9), (9, 9)])
    prompt = model.embed(batch)
    assert prompt.vision is not None
    seen = {}
    layer = model.llm.model.layers[0]
    layer.mlp.register_forward_hook(lambda module, args, output: seen.update(mlp=output))
    layer.post_attention_layernorm.register_forward_pre_hook(lambda module, args: seen.update(residual=args[0]))
    model.llm.model.layers[1].register_forward_pre_hook(lambda module, args: seen.update(next=args[0]))
    with torch.no_grad():
        real_logits(model, batch)
    changed = ((seen["residual"] + seen["mlp"]) - seen["next"]).abs().amax(dim=-1) > 1e-6
    expected = torch.zeros_like(batch.attention_mask)
    for row, start in [(0, 1), (1, 2)]:
        expected[row, [start, start + 1, start + 3, start + 4]] = True  # two rows of two cells, newlines left alone
    assert torch.equal(changed[0], expected[batch.attention_mask])  # training packs the samples into one row


def test_the_llm_keeps_transformers_parameter_names(backbones: Path) -> None:
    plain, with_aggregators = make_model(backbones, "sva"), make_model(backbones, "sva-in-llm")
    assert list(plain.llm.state_dict()) == list(with_aggregators.llm.state_dict())


def test_a_copied_model_has_aggregators_of_its_own(backbones: Path) -> None:
    model = make_model(backbones, "sva-in-llm")
    batch = make_batch(model, [[1, "image", 7, 8]], [(9, 9)])
    (before,) = real_logits(model, batch)
    clone = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in clone.aggregators.parameters():
            parameter.add_(0.5)
    assert torch.equal(real_logits(model, batch)[0], before)
    assert not torch.equal(real_logits(clone, batch)[0], before)


def test_too_few_decoder_layers_say_which_values_to_lower(backbones: Path) -> None:
    connector = {**CONNECTORS["sva"], "in_llm": {"start": 1, "stride": 2, "count": 2}}
    block = {"encoders": ["vit"], "connector": connector, "llm": "llm", "template": "turns"}
    with pytest.raises(ParamsError, match=r"2 aggregators from layer 1 with stride 2 end after layer 3.*layers 0 to 2"):
        build_model(parse_block(ModelConfig, block, where="model"), backbones=backbones, seed=0)
