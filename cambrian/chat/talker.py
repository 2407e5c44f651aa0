"""A model that can be talked to: read from its folder, asked with pictures and a conversation so far."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from cambrian.chat.dialogue import encode_dialogue
from cambrian.data.images import preprocess
from cambrian.data.tokenizer import read_tokenizer
from cambrian.evaluation.attention import LayerShares, record_shares
from cambrian.interfaces import IGNORE_LABEL, ArtifactError, Batch, ImageBatch, RecordError
from cambrian.models.generation import generate
from cambrian.models.weights import read_model, read_stored
from cambrian.release.templates import find_template

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian.chat.dialogue import Exchange
    from cambrian.data.conversation import Template
    from cambrian.data.tokenizer import Tokenizer
    from cambrian.models.config import ModelConfig
    from cambrian.models.multimodal import MultimodalModel


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said, and where its queries looked."""

    text: str
    layers: tuple[LayerShares, ...]
    """Empty without images, and for connectors other than the spatial vision aggregator."""


@dataclass(frozen=True, slots=True)
class Talker:
    """A model with its tokenizer and conversation template."""

    name: str
    config: ModelConfig
    model: MultimodalModel
    tokenizer: Tokenizer
    template: Template
    device: str

    def answer(
        self, images: Sequence[bytes], exchanges: Sequence[Exchange], question: str, *, max_new_tokens: int
    ) -> Answer:
        """Answer greedily; the images (encoded files) belong to the whole conversation.

        An answer has at most `max_new_tokens`, and ends where the language model's positions end.

        Raises:
            RecordError: a picture cannot be decoded, the question cannot be asked (see `encode_dialogue`), or the
                conversation is longer than the language model was made for (`too-long`).
        """
        ids = encode_dialogue(
            exchanges,
            question,
            num_images=len(images),
            template=self.template,
            tokenizer=self.tokenizer,
            num_image_positions=self.model.num_image_positions,
        )
        max_new_tokens = min(max_new_tokens, self._num_free_positions(len(ids)))
        batch = self._make_batch(ids, images)
        closing = self.tokenizer.encode(self.template.assistant_end)
        end_id = closing[-1] if closing else self.tokenizer.end_id
        sizes = None if batch.images is None else batch.images.sizes
        with record_shares(self.model, self.config.connector, sizes) as layers:
            (new_ids,) = generate(self.model, batch, max_new_tokens=max_new_tokens, end_id=end_id)
        if self.tokenizer.end_id in new_ids:
            new_ids = new_ids[: new_ids.index(self.tokenizer.end_id)]
        return Answer(self.tokenizer.decode(new_ids).strip(), tuple(layers))

    def _num_free_positions(self, num_ids: int) -> int:
        limit: int = self.model.llm.config.max_position_embeddings
        if num_ids >= limit:
            raise RecordError(
                "too-long",
                f"the conversation fills {num_ids} positions, the language model was made for {limit}: begin a new "
                "conversation",
            )
        return limit - num_ids

    def _make_batch(self, ids: list[int], images: Sequence[bytes]) -> Batch:
        input_ids = torch.tensor([ids], device=self.device)
        return Batch(
            input_ids=input_ids,
            labels=torch.full_like(input_ids, IGNORE_LABEL),
            attention_mask=torch.ones_like(input_ids, dtype=torch.bool),
            images=self._read_images(images) if images else None,
        )

    def _read_images(self, images: Sequence[bytes]) -> ImageBatch:
        views = [preprocess(data, self.model.image_specs) for data in images]
        return ImageBatch(
            pixels=[
                torch.stack([torch.from_numpy(view) for view in column]).to(self.device)
                for column in zip(*views, strict=True)
            ],
            sizes=torch.tensor([_size_of(data) for data in images], device=self.device),
        )


def read_talker(folder: Path, *, backbones: Path | None, device: str) -> Talker:
    """Read a finished model folder and what it needs of its backbones.

    `backbones` may be None where they lie as the pipeline puts them: models/SCALE/runs/NAME, models/SCALE/backbones.

    Raises:
        ArtifactError: the folder or a backbone is missing, unfinished or broken, or the device is not there.
        ParamsError: the model's conversation template is unknown.
    """
    stored = read_stored(folder)
    backbones = find_backbones(folder) if backbones is None else backbones
    model = read_model(folder, backbones=backbones).eval()
    try:
        model = model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ArtifactError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return Talker(
        name=folder.resolve().name,
        config=stored.config,
        model=model,
        tokenizer=read_tokenizer(backbones / stored.config.llm),
        template=find_template(stored.config.template),
        device=device,
    )


def find_backbones(folder: Path) -> Path:
    """Return the folder of backbones beside the folder of runs that a model lies in.

    Raises:
        ArtifactError: there is none.
    """
    backbones = folder.resolve().parent.parent / "backbones"
    if not backbones.is_dir():
        raise ArtifactError(f"{folder} has no backbones at {backbones}: name their folder with --backbones")
    return backbones


def _size_of(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        return image.size
