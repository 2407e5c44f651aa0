"""Whole tiny models, read as a checkpoint of the release is, against the official classes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from cambrian.artifacts import write_json
from cambrian.interfaces import IGNORE_LABEL, IMAGE_TOKEN_ID, Batch, ImageBatch
from cambrian.models.generation import generate
from cambrian.models.multimodal import MultimodalModel, vision_argument
from cambrian.release.checkpoints import official_tensors, read_checkpoint
from cambrian.release.config import parse_config
from cambrian.release.shards import write_shard
from tests.parity.files import golden_files, part_of, read_golden

# float32 sums in another order than the official modules: the largest difference seen is 2e-6
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}

MODEL_FILES = golden_files("model_")


@pytest.fixture(scope="module", params=MODEL_FILES, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> "Golden":
    return Golden(request.param, tmp_path_factory.mktemp(request.param.stem))


def test_logits_of_prompts_with_an_image_are_the_official_ones(golden: "Golden") -> None:
    samples = golden.samples_of("inference.logits_")
    assert samples
    for sample in samples:
        batch = golden.batch([sample])
        prompt = golden.model.embed(batch)
        with torch.no_grad():
            logits = golden.model(batch)
        torch.testing.assert_close(logits[prompt.mask], golden.tensors[f"inference.logits_{sample}"][0], **TOLERANCE)
        if f"inference.inputs_embeds_{sample}" in golden.tensors:
            embeddings = golden.tensors[f"inference.inputs_embeds_{sample}"][0]
            torch.testing.assert_close(prompt.embeddings[prompt.mask], embeddings, **TOLERANCE)


def test_a_batch_of_prompts_gives_what_each_gives_alone(golden: "Golden") -> None:
    samples = golden.samples_of("inference.logits_")
    batch = golden.batch(samples)
    with torch.no_grad():
        logits, prompt = golden.model(batch), golden.model.embed(batch)
    for row, sample in enumerate(samples):
        expected = golden.tensors[f"inference.logits_{sample}"][0]
        torch.testing.assert_close(logits[row][prompt.mask[row]], expected, **TOLERANCE)


def test_a_text_needs_no_image_and_gives_the_official_logits(golden: "Golden") -> None:
    for sample in golden.samples_of("text.logits_"):
        with torch.no_grad():
            logits = golden.model(golden.batch([sample]))
        torch.testing.assert_close(logits[0], golden.tensors[f"text.logits_{sample}"][0], **TOLERANCE)


def test_aggregators_rewrite_the_image_after_the_official_layers(golden: "Golden") -> None:
    """What the release keeps in between: the residual stream, and the image's cells around every aggregator."""
    layers = list(golden.model.llm.model.layers)
    outputs: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_hook(lambda _, __, output, index=index: outputs.update({f"layer_out_{index}": output}))
        for index, layer in enumerate(layers)
    ]

    def keep(index: int, queries: Tensor, output: Tensor) -> None:
        outputs.update({f"llm_sampler_{index}_in": queries, f"llm_sampler_{index}_out": output})

    handles += [
        aggregator.register_forward_hook(lambda _, inputs, output, index=index: keep(index, inputs[0], output))
        for index, aggregator in enumerate(golden.model.aggregators)
    ]
    batch = golden.batch([0])
    with torch.no_grad():
        golden.model(batch)
    for handle in handles:
        handle.remove()
    names = [name for name in golden.tensors if name.endswith("_sample0")]
    assert names or "phi3" in golden.config["kind"]
    for name in names:
        found = outputs[name.removeprefix("inference.").removesuffix("_sample0")]
        found = found[0] if "layer_out" in name else found  # hidden cells are not computed at all
        torch.testing.assert_close(found, golden.tensors[name].reshape(found.shape), **TOLERANCE)


def test_greedy_tokens_are_the_official_ones(golden: "Golden") -> None:
    samples = golden.samples_of("inference.greedy_")
    assert samples or "phi3" in golden.config["kind"]
    for sample in samples:
        expected = golden.tensors[f"inference.greedy_{sample}"][0, 1:].tolist()  # the first is a BOS of the library
        found = generate(golden.model, golden.batch([sample]), max_new_tokens=len(expected), end_id=-1)
        assert found == [expected]


def test_the_loss_is_the_official_one_of_the_same_predictions(golden: "Golden") -> None:
    """The release predicts one token of a text from the hidden image that it puts in; we predict it from the text."""
    samples = golden.samples_of("input.labels_")
    assert samples or "phi3" in golden.config["kind"]
    if not samples:
        return
    batch = golden.batch(samples)
    with torch.no_grad():
        logits, prompt = golden.model(batch), golden.model.embed(batch)
        loss = golden.model.loss(batch)
    torch.testing.assert_close(logits[prompt.mask], golden.tensors["train.logits_valid"], **TOLERANCE)
    visible = golden.tensors["train.attention_mask"]
    rows = golden.tensors["train.logits_valid"].split(visible.sum(dim=1).tolist())
    predicted = torch.cat([row[:-1] for row in rows])
    targets = torch.cat(
        [labels[seen][1:] for labels, seen in zip(golden.tensors["train.labels"], visible, strict=True)]
    )
    torch.testing.assert_close(loss, functional.cross_entropy(predicted, targets), **TOLERANCE)


def test_all_gradients_are_the_official_ones(golden: "Golden") -> None:
    """Through the release's own layout: every text gets a hidden image, all sequences have the same length."""
    stored = part_of(golden.tensors, "train.grad.param.")
    assert stored or "phi3" in golden.config["kind"]
    if not stored:
        return
    model = golden.model
    model.zero_grad()
    loss = release_loss(golden)
    torch.testing.assert_close(loss.detach(), golden.tensors["train.loss"][0], **TOLERANCE)
    loss.backward()
    ours = official_parameters(model)
    norms = part_of(golden.tensors, "train.gradnorm.param.") or part_of(golden.tensors, "train.gradnorm.")
    assert norms.keys() == ours.keys()
    for name, gradient in stored.items():
        found = ours[name].grad
        assert found is not None
        # 1e-4 of the largest entry: an entry near zero is a difference of larger ones
        limit = max(1e-4 * float(gradient.abs().max()), 1e-7)
        torch.testing.assert_close(
            found, gradient, atol=limit, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    for name, norm in norms.items():
        found = ours[name].grad
        assert found is not None
        torch.testing.assert_close(found.norm(), norm[0], atol=1e-7, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")


def release_loss(golden: "Golden") -> Tensor:
    """The loss of the release's fixed-length batch, by our model's parts and the file's own mask and positions."""
    model, tensors = golden.model, golden.tensors
    is_image = tensors["train.input_ids"] == IMAGE_TOKEN_ID
    starts = is_image.to(torch.int64).argmax(dim=1)
    input_ids = tensors["train.input_ids"].clone()
    for row, start in enumerate(starts.tolist()):
        input_ids[row, start : start + model.num_image_positions] = IMAGE_TOKEN_ID
    everyone = list(range(len(input_ids)))
    batch = Batch(input_ids, tensors["train.labels"], tensors["train.attention_mask"], golden.images(everyone))
    prompt = model.embed(batch)
    hidden = model.llm.model(
        inputs_embeds=prompt.embeddings,
        attention_mask=tensors["train.attention_mask"],
        position_ids=tensors["train.position_ids"],
        use_cache=False,
        **vision_argument(prompt.vision),
    ).last_hidden_state
    logits = model.llm.lm_head(hidden)[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), tensors["train.labels"][:, 1:].flatten())


def official_parameters(model: MultimodalModel) -> dict[str, nn.Parameter]:
    parameters = dict(model.named_parameters())
    by_address = {parameter.data_ptr(): parameter for parameter in parameters.values()}
    return {name: by_address[tensor.data_ptr()] for name, tensor in official_tensors(model).items()}


@dataclass
class GoldenSample:
    ids: list[int]
    labels: list[int]


class Golden:
    """One golden file: the model that it describes, and its samples as our batches."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.config, self.tensors = read_golden(path)
        write_json(folder / "config.json", config_values(self.config))
        write_shard(folder / "model.safetensors", part_of(self.tensors, "param."))
        config = parse_config(config_values(self.config), where=path.name)
        self.sides = config.tower_sides()
        # the files hold what encoders would deliver, so an encoder is what returns its input
        encoders: list[Any] = [nn.Identity() for _ in self.sides]
        shapes = config.shapes_of(self.config["tower_hidden_sizes"])
        self.model = read_checkpoint(folder, encoders=encoders, shapes=shapes, dtype=torch.float32)

    def samples_of(self, prefix: str) -> list[int]:
        names = [name for name in self.tensors if name.startswith(prefix)]
        return sorted(int(name.removeprefix(prefix)) for name in names if name.removeprefix(prefix).isdigit())

    def batch(self, samples: list[int]) -> Batch:
        """Samples with the placeholder widened to all positions of the image, padded on the right."""
        encoded = [self._widen(sample) for sample in samples]
        length = max(len(one.ids) for one in encoded)
        with_image = [sample for sample, one in zip(samples, encoded, strict=True) if IMAGE_TOKEN_ID in one.ids]
        return Batch(
            input_ids=torch.tensor([one.ids + [0] * (length - len(one.ids)) for one in encoded]),
            labels=torch.tensor([one.labels + [IGNORE_LABEL] * (length - len(one.ids)) for one in encoded]),
            attention_mask=torch.tensor([[place < len(one.ids) for place in range(length)] for one in encoded]),
            images=self.images(with_image) if with_image else None,
        )

    def images(self, samples: list[int]) -> ImageBatch:
        pixels = [
            rearrange(
                self.tensors[f"input.features_{index}"][samples],
                "images (row column) dim -> images dim row column",
                row=side,
            )
            for index, side in enumerate(self.sides)
        ]
        return ImageBatch(pixels, self.tensors["input.image_sizes_wh"][samples])

    def _widen(self, sample: int) -> GoldenSample:
        ids = self.tensors[f"input.ids_{sample}"].tolist()
        labels = self.tensors.get(f"input.labels_{sample}", torch.full((len(ids),), IGNORE_LABEL)).tolist()
        if IMAGE_TOKEN_ID in ids:
            place, extra = ids.index(IMAGE_TOKEN_ID), self.model.num_image_positions - 1
            ids[place:place] = [IMAGE_TOKEN_ID] * extra
            labels[place:place] = [IGNORE_LABEL] * extra
        return GoldenSample(ids, labels)


def config_values(config: dict[str, Any]) -> dict[str, Any]:
    """The `config.json` that a model of this golden file would have."""
    is_phi3 = "phi3" in config["kind"]
    values = {name: value for name, value in config.items() if name not in ("kind", "seed", "tower_hidden_sizes")}
    return values | {
        "model_type": "cambrian_phi3" if is_phi3 else "cambrian_llama",
        "mm_projector_type": "sva",
        "mm_vision_tower_aux_list": [f"encoder-{index}" for index in range(len(config["tower_hidden_sizes"]))],
        "max_position_embeddings": config["tokenizer_model_max_length"],
        "pad_token_id": None,
        "tie_word_embeddings": False,
    }
