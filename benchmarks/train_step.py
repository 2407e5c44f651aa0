"""A step of the second training phase: ours against the release's form, on the same model and the same samples.

    python -m benchmarks.train_step

The release pads every sample to the maximum length, computes every LLM layer a second time in the backward pass, runs
encoders and connector on an empty image for samples of text alone, runs the LLM's head on every position, and projects
every feature in its aggregators. Each is taken away in turn, so that the ratio falls into its causes; the last form is
what the training stages call. Lengths are a quarter of those that the project assumes for the real mix, and so is the
maximum; the model is a small one of the same build. Times are the process's own seconds of processor on one thread,
forms take turns, and every form's loss and gradients are compared with the first's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from benchmarks.machine import describe_machine
from benchmarks.plain_aggregator import PlainAggregator
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch
from cambrian.models.aggregator import Aggregator
from cambrian.models.building import build_aggregators, build_connector
from cambrian.models.config import SVAConfig
from cambrian.models.connector import FeatureShape, TokenLayout
from cambrian.models.encoders import EncoderSpec, FeaturesConfig, ImageConfig, VisionEncoder
from cambrian.models.multimodal import MultimodalModel, positions_of, vision_argument
from cambrian.models.packing import find_segments
from cambrian.models.torchvision_shim import declare_missing_operators

if TYPE_CHECKING:
    from collections.abc import Iterator

GOAL = 3.0
"""Times the release's samples a second."""

EXACT = 1e-5
"""Largest difference of losses, and of gradients relative to their norm."""

TEXT_ONLY_SHARE, LABELLED_SHARE = 0.21, 0.22
NUM_PROMPT_TOKENS, MAX_LENGTH = 23, 512
"""A quarter of 91 and of 2048."""


@dataclass(frozen=True)
class Form:
    """Which of the release's habits a step has."""

    name: str
    is_padded: bool = False
    recomputes: bool = False
    has_dummies: bool = False
    has_whole_head: bool = False
    is_plain: bool = False


RELEASE = Form("release", is_padded=True, recomputes=True, has_dummies=True, has_whole_head=True, is_plain=True)
FORMS = [RELEASE]
for _cause, _without in [
    ("padding", {"is_padded": False}),
    ("recompute", {"recomputes": False}),
    ("dummy images", {"has_dummies": False}),
    ("head", {"has_whole_head": False}),
    ("aggregators", {"is_plain": False}),
]:
    FORMS.append(replace(FORMS[-1], name=_cause, **_without))


def build_model(*, hidden: int, layers: int, vocabulary: int) -> MultimodalModel:
    """Build a model of two ViTs, an SVA with aggregators after every second layer, and a Llama."""
    declare_missing_operators()
    import timm
    from transformers.models.llama import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    encoders = []
    for patch in (8, 4):
        image = ImageConfig(side=96, mean=(0.5,) * 3, std=(0.5,) * 3, pad_colour=(127, 127, 127))
        vit = timm.create_model(
            "vit_tiny_patch16_224", img_size=96, patch_size=patch, embed_dim=96, depth=4, num_heads=3, num_classes=0
        )
        encoders.append(VisionEncoder(vit, EncoderSpec(image=image, features=FeaturesConfig(layers=(-1,), norm=True))))
    config = SVAConfig.model_validate(
        {
            "kind": "sva", "side": 12, "depth": 3, "group_sides": [12], "dim": 128, "num_heads": 8,
            "max_window_side": 4, "in_llm": {"start": 0, "stride": 2, "count": layers // 2}, "position_rms": None,
            "output_rms": None, "newline": True, "hide_padding": True,
        }
    )  # fmt: skip
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
            num_attention_heads=hidden // 32, num_key_value_heads=hidden // 128, tie_word_embeddings=False,
            max_position_embeddings=MAX_LENGTH,
        )
    )  # fmt: skip
    shapes = [FeatureShape(encoder.channels, encoder.grid) for encoder in encoders]
    connector = build_connector(config, shapes, llm_dim=hidden)
    model = MultimodalModel(
        encoders=encoders,
        connector=connector,
        layout=TokenLayout(config, num_tokens=connector.num_tokens, dim=hidden),
        aggregators=build_aggregators(config, connector, llm_dim=hidden),
        in_llm=config.in_llm,
        llm=llm,
        backbone_hashes={},
    )
    model.set_trainable({"connector", "llm"})
    return model.train()


def draw_lengths(num_samples: int, generator: np.random.Generator) -> list[tuple[bool, int]]:
    """Whether each sample has an image, and its tokens of text: the mix that the project assumes, at a quarter."""
    drawn = []
    for _ in range(num_samples):
        has_image = generator.random() >= TEXT_ONLY_SHARE
        median = 120 if has_image else 350
        drawn.append((has_image, max(8, round(generator.lognormal(np.log(median), 1.0) / 4))))
    return drawn


def make_batches(model: MultimodalModel, *, num_samples: int, batch_size: int) -> list[Batch]:
    """Draw samples, cut at the maximum length, as batches padded to their longest sample."""
    generator = np.random.default_rng(0)
    drawn = draw_lengths(num_samples, generator)
    return [
        make_batch(model, drawn[start : start + batch_size], generator) for start in range(0, num_samples, batch_size)
    ]


def make_batch(model: MultimodalModel, drawn: list[tuple[bool, int]], generator: np.random.Generator) -> Batch:
    """Fill samples with random tokens; the last of each are labelled."""
    vocabulary, rows = model.llm.config.vocab_size, []
    for has_image, num_text in drawn:
        prompt = generator.integers(0, vocabulary, NUM_PROMPT_TOKENS)
        image = np.full(model.num_image_positions if has_image else 0, IMAGE_TOKEN_ID)
        text = generator.integers(0, vocabulary, min(num_text, MAX_LENGTH - len(prompt) - len(image)))
        rows.append(np.concatenate([prompt, image, text]))
    ids, labels, mask = (np.full((len(rows), max(map(len, rows))), fill) for fill in (0, IGNORE_LABEL, 0))
    for index, (row, (has_image, _)) in enumerate(zip(rows, drawn, strict=True)):
        num_text = len(row) - NUM_PROMPT_TOKENS - (model.num_image_positions if has_image else 0)
        num_labelled = min(max(1, round(LABELLED_SHARE * len(row))), num_text - 1)
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
        labels[index, len(row) - num_labelled : len(row)] = row[-num_labelled:]
    num_images = sum(has_image for has_image, _ in drawn)
    pixels = torch.from_numpy(generator.standard_normal((num_images, 3, 96, 96), np.float32))
    images = ImageBatch([pixels, pixels], torch.tensor([[96, 96]] * num_images)) if num_images else None
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels), torch.from_numpy(mask).bool(), images)


def loss_of(model: MultimodalModel, batch: Batch, form: Form) -> Tensor:
    """Return the mean loss over labelled positions, computed in this form."""
    if not (form.is_padded or form.has_dummies or form.has_whole_head):
        return model.loss(batch)
    if form.is_padded:
        batch = pad_to_maximum(batch)
    prompt = model.embed(batch)
    if form.is_padded:
        hidden = (
            model.llm.model(
                inputs_embeds=prompt.embeddings,
                attention_mask=prompt.mask,
                position_ids=positions_of(prompt.mask),
                use_cache=False,
                **vision_argument(prompt.vision),
            )
            .last_hidden_state[:, :-1]
            .flatten(0, 1)
        )
        targets = batch.labels[:, 1:].flatten()
    else:
        segments = find_segments(prompt.mask)
        hidden = model._hidden_states(prompt, segments)[:-1]
        targets = batch.labels[prompt.mask][1:].masked_fill(segments.starts[1:], IGNORE_LABEL)
    if not form.has_whole_head:
        hidden, targets = hidden[targets != IGNORE_LABEL], targets[targets != IGNORE_LABEL]
    loss = F.cross_entropy(model.llm.lm_head(hidden).float(), targets, ignore_index=IGNORE_LABEL)
    return loss + dummy_loss(model, batch) if form.has_dummies else loss


def dummy_loss(model: MultimodalModel, batch: Batch) -> Tensor:
    """Run encoders and connector on an empty image for each sample without one; the result is a loss of 0."""
    num_dummies = len(batch.input_ids) - (0 if batch.images is None else len(batch.images.sizes))
    if not num_dummies:
        return torch.zeros(())
    pixels = torch.zeros(num_dummies, 3, 96, 96)
    images = ImageBatch([pixels, pixels], torch.tensor([[96, 96]] * num_dummies))
    tokens: Tensor = model.connector(model.encode(images), images.sizes).tokens
    return 0.0 * tokens.sum()


def pad_to_maximum(batch: Batch) -> Batch:
    """Pad a batch on the right to the longest sample that there may be."""
    more = (0, MAX_LENGTH - batch.input_ids.shape[1])
    return replace(
        batch,
        input_ids=F.pad(batch.input_ids, more),
        labels=F.pad(batch.labels, more, value=IGNORE_LABEL),
        attention_mask=F.pad(batch.attention_mask, more),
    )


@contextmanager
def in_form(model: MultimodalModel, form: Form) -> Iterator[None]:
    """Let the model's own modules work in this form inside the block."""
    aggregators = [module for module in model.modules() if isinstance(module, Aggregator)] if form.is_plain else []
    if form.recomputes:
        model.recompute_activations()
    for module in aggregators:
        module.forward = PlainAggregator(module, is_checkpointed=False).forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in aggregators:
            del module.forward
        model.llm.activation_checkpointing_disable()


def run_step(model: MultimodalModel, batches: list[Batch], form: Form) -> tuple[float, float]:
    """Return a step's mean loss over its batches and its seconds of processor; gradients stay on the model."""
    model.zero_grad(set_to_none=True)
    total = 0.0
    started = time.process_time()
    with in_form(model, form):
        for batch in batches:
            loss = loss_of(model, batch, form) / len(batches)
            torch.autograd.backward(loss)
            total += loss.item()
    return total, time.process_time() - started


def count_computed(model: MultimodalModel, batches: list[Batch], form: Form) -> int:
    """Return how many tokens the LLM's layers compute in a step, padding included."""
    computed = []

    def count(layer: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
        computed.append(args[0].shape[:2].numel())

    handle = model.llm.get_submodule("model.layers")[0].register_forward_pre_hook(count)
    try:
        with torch.no_grad():
            for batch in batches:
                loss_of(model, batch, form)
    finally:
        handle.remove()
    return sum(computed)


def compare_forms(model: MultimodalModel, batches: list[Batch], *, repeats: int) -> dict[str, dict[str, float]]:
    """Return each form's seconds, and how far its loss and its gradients are from the release's."""
    found: dict[str, dict[str, float]] = {form.name: {} for form in FORMS}
    reference: tuple[float, Tensor] | None = None
    for form in FORMS:
        loss, _ = run_step(model, batches, form)
        gradients = torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])
        reference = reference or (loss, gradients)
        found[form.name]["loss"] = loss
        found[form.name]["loss_difference"] = abs(loss - reference[0])
        found[form.name]["gradient_difference"] = float((gradients - reference[1]).norm() / reference[1].norm())
    seconds: dict[str, list[float]] = {form.name: [] for form in FORMS}
    for _ in range(repeats):
        for form in FORMS:
            seconds[form.name].append(run_step(model, batches, form)[1])
    for name, values in seconds.items():
        found[name]["seconds"] = statistics.median(values)
    return found


def main() -> None:
    """Measure, and print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8, help="samples at once, as the release has on a device")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=256, help="the LLM's width")
    parser.add_argument("--layers", type=int, default=6, help="the LLM's layers")
    parser.add_argument("--output", type=Path, help="also write the result here, indented")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = build_model(hidden=args.hidden, layers=args.layers, vocabulary=8192)
    batches = make_batches(model, num_samples=args.samples, batch_size=args.batch_size)
    found = compare_forms(model, batches, repeats=args.repeats)
    seconds = {name: facts["seconds"] for name, facts in found.items()}
    ratio = seconds["release"] / seconds["aggregators"]
    difference = max(max(facts["loss_difference"], facts["gradient_difference"]) for facts in found.values())
    real = sum(int(batch.attention_mask.sum()) for batch in batches)
    report = {
        "name": "train_step",
        "ratio": round(ratio, 2),
        "goal": GOAL,
        "meets": ratio >= GOAL and difference <= EXACT,
        "by_cause": {
            after.name: round(seconds[before.name] / seconds[after.name], 3)
            for before, after in itertools.pairwise(FORMS)
        },
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "largest_difference": difference,
        "real_share_padded": round(real / count_computed(model, batches, RELEASE), 3),
        "real_share_packed": round(real / count_computed(model, batches, FORMS[-1]), 3),
        "machine": describe_machine("cpu"),
        "command": " ".join(["python -m benchmarks.train_step", *sys.argv[1:]]),
    }
    if args.output is not None:
        args.output.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
