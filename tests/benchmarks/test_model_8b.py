import pytest
import torch

from benchmarks.model_8b import build, count_flops, fuse, make_batch, peak_flops
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID
from cambrian.models.aggregator import AggregatorLayer
from cambrian.release.config import ReleaseConfig, read_released

CHANGES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "mm_vision_tower_aux_token_len_list": (4, 4, 4, 64),
    "image_token_len": 4,
    "query_num_list": (4,),
    "vision_hidden_size": 32,
    "num_of_vision_sampler_layers": 1,
}


@pytest.fixture
def config() -> ReleaseConfig:
    return read_released("cambrian-8b").model_copy(update=CHANGES)


def test_a_model_on_the_meta_device_gets_weights_that_learn(config: ReleaseConfig) -> None:
    torch.manual_seed(0)
    model = build(config, device="cpu", dtype=torch.bfloat16)
    batch = make_batch(config, model, samples=2)
    loss = model.loss(batch)
    assert loss.item() == pytest.approx(torch.tensor(50.0).log().item(), rel=0.2)  # all words about equally likely
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert count_flops(model, batch) > 0


def test_a_batch_has_one_image_a_sample_and_labels_only_text(config: ReleaseConfig) -> None:
    model = build(config, device="cpu", dtype=torch.float32)
    batch = make_batch(config, model, samples=3)
    assert (batch.input_ids == IMAGE_TOKEN_ID).sum(dim=1).tolist() == [model.num_image_positions] * 3
    labelled = batch.labels != IGNORE_LABEL
    assert torch.equal(batch.labels[labelled], batch.input_ids[labelled])
    assert not (batch.labels == IMAGE_TOKEN_ID).any()
    assert labelled.float().mean() == pytest.approx(0.22, abs=0.01)


def test_every_aggregator_is_switched(config: ReleaseConfig) -> None:
    model = build(config, device="cpu", dtype=torch.float32)
    fuse(model, is_fused=True)
    layers = [module for module in model.modules() if isinstance(module, AggregatorLayer)]
    assert len(layers) == 3 + 1
    assert all(layer.is_fused for layer in layers)


def test_an_unknown_gpu_is_named() -> None:
    assert peak_flops("NVIDIA H200 SXM") == 989e12
    with pytest.raises(ValueError, match="the peak of Abacus 1 is not known"):
        peak_flops("Abacus 1")
