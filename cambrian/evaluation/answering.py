"""What answers prompts: a model of ours with its tokenizer and template, greedily and in batches."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from cambrian.data.collate import collate
from cambrian.data.conversation import Encoded, encode_prompt
from cambrian.data.images import preprocess
from cambrian.data.tokenizer import read_tokenizer
from cambrian.interfaces import IGNORE_LABEL
from cambrian.release.templates import find_template

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian.data.conversation import Template
    from cambrian.data.tokenizer import Tokenizer
    from cambrian.evaluation.reply_log import Prompt
    from cambrian.interfaces import Batch
    from cambrian.models.multimodal import MultimodalModel


class Answerer(Protocol):
    """A model that can be asked."""

    def length(self, prompt: Prompt) -> int:
        """How long a prompt is, in tokens: prompts of similar length share a batch."""
        ...

    def prepare(self, prompts: Sequence[Prompt]) -> Any:
        """A batch of prompts, ready for `generate`; runs beside the generation of the batch before."""
        ...

    def generate(self, batch: Any, *, max_new_tokens: int) -> list[str]:
        """The reply to each prompt of a prepared batch."""
        ...


class OwnAnswerer:
    """A model of this project with its tokenizer and template."""

    def __init__(self, model: MultimodalModel, tokenizer: Tokenizer, template: Template, device: str) -> None:
        self._model = model.to(device).eval()
        self._tokenizer = tokenizer
        self._template = template
        self._device = device
        closing = tokenizer.encode(template.assistant_end)
        self._end_id = closing[-1] if closing else tokenizer.end_id

    @property
    def model(self) -> MultimodalModel:
        """The model itself, on its device."""
        return self._model

    def length(self, prompt: Prompt) -> int:
        """How many positions a prompt has, those of its image included.

        Raises:
            ValueError: it has a word outside a word-level vocabulary.
        """
        return len(self._encode(prompt).input_ids)

    def prepare(self, prompts: Sequence[Prompt]) -> Batch:
        """Token ids, and pictures for every encoder.

        Raises:
            RecordError: a picture cannot be decoded.
        """
        specs = self._model.image_specs
        return collate(
            [self._encode(prompt) for prompt in prompts],
            [None if image is None else preprocess(image, specs) for _, image in prompts],
            [None if image is None else _image_size(image) for _, image in prompts],
            self._tokenizer.pad_id,
        )

    def generate(self, batch: Batch, *, max_new_tokens: int) -> list[str]:
        """The greedy reply to each prompt of the batch."""
        from cambrian.models.generation import generate

        ids = generate(self._model, _move(batch, self._device), max_new_tokens=max_new_tokens, end_id=self._end_id)
        return [self._tokenizer.decode(row).strip() for row in ids]

    def _encode(self, prompt: Prompt) -> Encoded:
        question, image = prompt
        ids = encode_prompt(
            question, image is not None, self._template, self._tokenizer, self._model.num_image_positions
        )
        return Encoded(ids, [IGNORE_LABEL] * len(ids))


def open_own_model(folder: Path, *, backbones: Path, device: str) -> OwnAnswerer:
    """Read a run's model, its tokenizer and its template.

    Raises:
        ArtifactError: the model or a backbone is missing or broken.
    """
    from cambrian.models.weights import read_model, read_stored

    stored = read_stored(folder).config
    return OwnAnswerer(
        read_model(folder, backbones=backbones),
        read_tokenizer(backbones / stored.llm),
        find_template(stored.template),
        device,
    )


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
