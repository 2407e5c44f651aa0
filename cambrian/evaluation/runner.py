"""Evaluate a run: every item with and without its image, raw replies, scores."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from cambrian.artifacts import read_manifest, write_json
from cambrian.data.collate import collate
from cambrian.data.conversation import Encoded, encode_prompt, find_template
from cambrian.data.images import preprocess
from cambrian.data.tokenizer import read_tokenizer
from cambrian.evaluation.benchmarks.registry import find_benchmark, read_items
from cambrian.evaluation.replies import write_replies
from cambrian.evaluation.scoring import score_replies
from cambrian.interfaces import IGNORE_LABEL, ArtifactError, RecordError, Reply
from cambrian.runtime import iter_progress, logged_step

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian.data.conversation import Template
    from cambrian.data.tokenizer import Tokenizer
    from cambrian.evaluation.config import EvaluationConfig
    from cambrian.interfaces import Batch, Item
    from cambrian.models.multimodal import MultimodalModel
    from cambrian.runtime import RuntimeConfig

Prompt = tuple[str, bytes | None]
"""What a model is asked: the user's turn and its image."""


class Answerer:
    """A model with its tokenizer and template, answering prompts greedily."""

    def __init__(
        self, model: MultimodalModel, tokenizer: Tokenizer, template: Template, config: EvaluationConfig, device: str
    ) -> None:
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._template = template
        self._config = config
        self._device = device
        closing = tokenizer.encode(template.assistant_end)
        self._end_id = closing[-1] if closing else tokenizer.end_id

    def answer(self, prompts: Sequence[Prompt], *, what: str) -> dict[Prompt, str]:
        """The reply to every prompt; equal prompts are asked once.

        Batches hold prompts of similar length; within a length, in the order of their first mention.

        Raises:
            ValueError: a prompt has a word outside a word-level vocabulary.
        """
        encoded = {prompt: self._encode(prompt) for prompt in dict.fromkeys(prompts)}
        ordered = sorted(encoded, key=lambda prompt: len(encoded[prompt].input_ids))
        size = self._config.batch_size
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        replies: dict[Prompt, str] = {}
        for batch in iter_progress(batches, total=len(batches), what=what):
            replies.update(zip(batch, self._generate(batch, [encoded[prompt] for prompt in batch]), strict=True))
        return replies

    def _encode(self, prompt: Prompt) -> Encoded:
        question, image = prompt
        ids = encode_prompt(
            question, image is not None, self._template, self._tokenizer, self._model.num_image_positions
        )
        return Encoded(ids, [IGNORE_LABEL] * len(ids))

    def _generate(self, prompts: Sequence[Prompt], encoded: Sequence[Encoded]) -> list[str]:
        from cambrian.models.generation import generate

        specs = self._model.image_specs
        batch = collate(
            encoded,
            [None if image is None else preprocess(image, specs) for _, image in prompts],
            [None if image is None else _image_size(image) for _, image in prompts],
            self._tokenizer.pad_id,
        )
        ids = generate(
            self._model,
            _move(batch, self._device),
            max_new_tokens=self._config.max_new_tokens,
            end_id=self._end_id,
        )
        return [self._tokenizer.decode(row).strip() for row in ids]


def evaluate_run(
    model_folder: Path,
    *,
    backbones: Path,
    benchmarks: Path,
    config: EvaluationConfig,
    runtime: RuntimeConfig,
    use_images: bool,
    replies_path: Path,
    scores_path: Path,
    run: str,
    scale: str,
) -> None:
    """Ask a run's model every item, with and without the image, and write its replies and its scores.

    A model that was trained without images is asked without them only.

    Raises:
        ArtifactError: the model, a backbone or a benchmark is missing or broken.
        ParamsError: `config.prompts` names an unknown score.
    """
    import torch

    from cambrian.models.weights import read_model, read_stored

    for name in config.prompts:
        find_benchmark(name)
    torch.set_num_threads(runtime.threads)
    read_manifest(benchmarks)
    stored = read_stored(model_folder).config
    answerer = Answerer(
        read_model(model_folder, backbones=backbones),
        read_tokenizer(backbones / stored.llm),
        find_template(stored.template),
        config,
        runtime.device,
    )
    items: dict[str, list[Item]] = {}
    replies: dict[str, list[Reply]] = {}
    with logged_step(f"{run} evaluated") as facts:
        for name, prompt in config.prompts.items():
            asked = read_items(benchmarks, name, prompt)
            replies[name] = ask_items(answerer, asked, use_images=use_images)
            items[name] = [replace(item, image=None) for item in asked]  # scoring needs none of the pictures
        facts["items"] = sum(map(len, items.values()))
    write_replies(replies_path, items, replies)
    write_json(scores_path, {"run": run, "scale": scale, **score_replies(items, replies)})


def ask_items(answerer: Answerer, items: Sequence[Item], *, use_images: bool) -> list[Reply]:
    """The replies to all items with the image, where images are used, and then to all items without it.

    Raises:
        ArtifactError: a picture cannot be decoded.
    """
    replies = []
    for with_image in (True, False) if use_images else (False,):
        prompts: list[Prompt] = [(item.question, item.image if with_image else None) for item in items]
        name = items[0].benchmark
        try:
            texts = answerer.answer(prompts, what=f"{name} {'with' if with_image else 'without'} images")
        except RecordError as error:
            raise ArtifactError(f"a picture of {name}: {error}; run `dvc repro build_benchmarks`") from error
        replies += [Reply(item.id, texts[prompt], with_image) for item, prompt in zip(items, prompts, strict=True)]
    return replies


def _move(batch: Batch, device: str) -> Batch:
    images = batch.images
    return replace(
        batch,
        input_ids=batch.input_ids.to(device),
        labels=batch.labels.to(device),
        attention_mask=batch.attention_mask.to(device),
        images=images
        and replace(images, pixels=[pixels.to(device) for pixels in images.pixels], sizes=images.sizes.to(device)),
    )


def _image_size(data: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return image.size
