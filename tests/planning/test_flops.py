from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch
from cambrian.params import ParamsFiles
from cambrian.planning.experiment import Experiment, read_experiment
from cambrian.planning.flops import NOTHING, count_connector, count_encoder, count_llm
from cambrian.planning.meta import MetaModels
from tests.pipeline.imports import ROOT

if TYPE_CHECKING:
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.planning.experiment import PhasePlan

NUM_SAMPLES, NUM_TEXT_TOKENS, NUM_LABELS = 8, 20, 6


@cache
def read_rows() -> Experiment:
    return read_experiment(ParamsFiles(ROOT, "mini"))


def find(key: str) -> PhasePlan:
    return next(phase for phase in read_rows().phases if phase.key == key)


def make_real(model: MultimodalModel) -> MultimodalModel:
    """The model with memory, full of zeros: its operations are the same."""
    index = torch.arange(len(model.layout.token_index))
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.zero_()
    model.layout.token_index = index
    return model


def make_batch(model: MultimodalModel, *, has_images: bool) -> Batch:
    positions = model.num_image_positions if has_images else 0
    length = positions + NUM_TEXT_TOKENS
    input_ids = torch.ones(NUM_SAMPLES, length, dtype=torch.long)
    input_ids[:, 1 : 1 + positions] = IMAGE_TOKEN_ID
    labels = torch.full_like(input_ids, IGNORE_LABEL)
    labels[:, -NUM_LABELS:] = 1
    images = None
    if has_images:
        pixels = [torch.zeros(NUM_SAMPLES, 3, spec.side, spec.side) for spec in model.image_specs]
        images = ImageBatch(pixels, torch.full((NUM_SAMPLES, 2), 48))
    return Batch(input_ids, labels, torch.ones_like(input_ids, dtype=torch.bool), images)


def count_step(model: MultimodalModel, batch: Batch) -> int:
    # torch does not count the CPU's fused attention
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.loss(batch).backward()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    "key",
    [
        "adapters.clip-1200k",
        "adapters.sva-1200k",
        "adapters.resampler-1200k",
        "runs.clip-1200k",
        "runs.clip-1200k-trained",
        "runs.sva",
        "runs.blind",
    ],
)
def test_predicted_operations_are_those_that_torch_counts_in_a_step(key: str) -> None:
    plan = find(key)
    models = MetaModels(read_rows())
    model = models.build(plan.model)
    learns = "encoders" in plan.trained
    model.set_trainable(set(plan.trained))
    per_image = count_connector(model, encoders_learn=learns)
    for name in plan.model.encoders:
        per_image += count_encoder(models.encoder(name), learns=learns)
    length = NUM_TEXT_TOKENS + (model.num_image_positions if plan.use_images else 0)
    llm = count_llm(model.llm, learns="llm" in plan.trained).cost(
        tokens=NUM_SAMPLES * length,
        squares=NUM_SAMPLES * length**2,
        labels=NUM_SAMPLES * NUM_LABELS,
        causal_share=1.0,  # torch counts what the causal mask hides
    )
    images = per_image * NUM_SAMPLES if plan.use_images else NOTHING
    model.set_trainable(set(plan.trained))
    counted = count_step(make_real(model), make_batch(model, has_images=plan.use_images))
    assert images.flops + llm.flops == pytest.approx(counted, rel=0.01)
