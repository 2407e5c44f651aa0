"""The parts of the benchmark at tiny sizes; as a program it measures tiny steps of both phases.

DeepSpeed joins a group of processes, which a test's own process must not stay in.
"""

import json
import subprocess
import sys

import pytest
import torch

from benchmarks.model_8b import FORMS, build, count_flops, fuse, make_batch, measure, peak_flops, read_form
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID
from cambrian.models.aggregator import AggregatorLayer
from cambrian.params import parse_block
from cambrian.planning.config import SampleConfig
from cambrian.release.config import ReleaseConfig, read_released
from cambrian.training.config import DeepSpeedEngineConfig
from tests.training.many import DEEPSPEED
from tests.training.tiny import stage_environment

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


ABOUT = SampleConfig(text_tokens=20.0, variation=0.7, image_share=1.0, visible_share=1.0, labelled_share=0.5)
SIZES = {"samples": 2, "steps": 2, "fused": False, "device": "cpu"}


def tiny_config() -> ReleaseConfig:
    return read_released("cambrian-8b").model_copy(update=CHANGES)


@pytest.fixture
def config() -> ReleaseConfig:
    return tiny_config()


def test_a_model_on_the_meta_device_gets_weights_that_learn(config: ReleaseConfig) -> None:
    torch.manual_seed(0)
    model = build(config, device="cpu", dtype=torch.bfloat16)
    batch = make_batch(config, model, ABOUT, samples=2)
    loss = model.loss(batch)
    assert loss.item() == pytest.approx(torch.tensor(50.0).log().item(), rel=0.2)  # all words about equally likely
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert count_flops(model, batch) > 0


def test_operations_grow_with_samples_and_are_fewer_where_the_llm_is_frozen(config: ReleaseConfig) -> None:
    model = build(config, device="cpu", dtype=torch.float32)
    one, two, three = (count_flops(model, make_batch(config, model, ABOUT, samples=samples)) for samples in (1, 2, 3))
    assert three == one + 2 * (two - one)
    model.set_trainable({"connector"})
    assert count_flops(model, make_batch(config, model, ABOUT, samples=1)) < one


def test_a_batch_has_one_image_a_sample_and_labels_only_text(config: ReleaseConfig) -> None:
    model = build(config, device="cpu", dtype=torch.float32)
    batch = make_batch(config, model, ABOUT, samples=3)
    assert (batch.input_ids == IMAGE_TOKEN_ID).sum(dim=1).tolist() == [model.num_image_positions] * 3
    labelled = batch.labels != IGNORE_LABEL
    assert torch.equal(batch.labels[labelled], batch.input_ids[labelled])
    assert not (batch.labels == IMAGE_TOKEN_ID).any()
    assert labelled.sum(dim=1).tolist() == [10] * 3


@pytest.mark.parametrize("phase", list(FORMS))
def test_a_phase_takes_lengths_and_recipe_of_the_scale(phase: str) -> None:
    about, recipe = read_form(FORMS[phase], samples=4, micro_batches=16)
    assert (recipe.micro_batch_size, recipe.global_batch_size) == (4, 64)
    assert about.text_tokens > 0
    assert (recipe.learning_rates.llm > 0) == ("llm" in FORMS[phase].trained)


def test_passes_alone_are_measured_without_an_engine(config: ReleaseConfig) -> None:
    found = measure(config, FORMS["finetune"], None, micro_batches=4, dtype=torch.float32, **SIZES)
    assert found["sizes"]["micro_batches"] == 1
    assert found["sizes"]["engine"] is None
    assert found["flops_per_second"] == pytest.approx(found["flops_per_step"] / found["seconds_per_step"], rel=0.1)


def test_steps_of_both_phases_are_measured_under_the_engine() -> None:
    command = [sys.executable, "-m", "tests.benchmarks.test_model_8b"]
    done = subprocess.run(command, env={**stage_environment(), "DS_ACCELERATOR": "cpu"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    align, finetune = (json.loads(line) for line in done.stdout.splitlines()[-2:])
    assert align["sizes"]["trained_weights"] < finetune["sizes"]["trained_weights"]
    assert align["flops_per_step"] < finetune["flops_per_step"]
    for found in (align, finetune):
        assert found["sizes"]["micro_batches"] == 2
        assert len(found["losses"]) == 3
        assert found["tokens_per_second"] > 0
        assert found["losses"] == pytest.approx([torch.tensor(50.0).log().item()] * 3, rel=0.2)
        assert len(set(found["losses"])) > 1  # the weights move: it is the same batch again and again


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


def main() -> None:
    engine = parse_block(DeepSpeedEngineConfig, {**DEEPSPEED, "zero_stage": 2, "precision": "bfloat16"}, where="engine")
    for form in FORMS.values():
        found = measure(tiny_config(), form, engine, micro_batches=2, dtype=torch.bfloat16, **SIZES)
        sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main()
