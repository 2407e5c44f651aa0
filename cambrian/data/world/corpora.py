"""What backbones are trained on: documents and annotated images, drawn from the same world as the pools."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from pydantic import Field

from cambrian.artifacts import write_json
from cambrian.data.world.config import WorldConfig
from cambrian.data.world.conversations import draw_name, find_recipe, sample_conversation
from cambrian.data.world.pictures import caption, labels, phrases, render, sample_picture
from cambrian.data.world.questions import all_words
from cambrian.data.world.words import CLASSES, KINDS, NUMBERS, OPTION_LETTERS, Kind
from cambrian.params import Params, look_up
from cambrian.runtime import generator_seed, iter_progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DOCUMENTS_NAME = "documents.jsonl"
CAPTIONS_NAME = "captions.jsonl"
ARRAYS_NAME = "arrays.npz"
VOCABULARY_NAME = "vocabulary.json"

_WORD_PROMPTS: tuple[int, ...] = (1, 4, 9)
_NUMBER_PROMPTS = (1, 2, 4)
_LETTER_PROMPTS = (3, 10)
"""Which kinds of the paper's response-format prompts fit which answers (format_prompts.yaml)."""


class GeneratedCorpora(Params):
    """Text and images drawn from the world, which backbones are trained on."""

    kind: Literal["generated-corpora"]
    world: WorldConfig
    num_images: int = Field(gt=0)
    num_documents: int = Field(gt=0)
    pictures: dict[str, float]
    """Weights of the kinds of pictures among the images."""
    recipes: dict[str, float]
    """Weights of the recipes among the documents."""
    prompts: dict[int, str]
    """The words of the response-format prompts, by the kind's number in the paper."""
    prompt_share: float = Field(ge=0, le=1)
    """Share of the documents whose questions end on such a prompt."""


def write_corpora(folder: Path, config: GeneratedCorpora, *, seed: int) -> None:
    """Write documents, captions, the images' arrays and the vocabulary.

    Raises:
        ParamsError: an unknown recipe or kind of picture.
    """
    write_json(folder / VOCABULARY_NAME, vocabulary(config))
    _write_documents(folder / DOCUMENTS_NAME, config, seed)
    _write_images(folder, config, seed)


def vocabulary(config: GeneratedCorpora) -> list[str]:
    """Every word that the corpora and all other texts of this world can have, sorted."""
    return sorted(all_words() | {word for prompt in config.prompts.values() for word in prompt.split()})


def _write_documents(path: Path, config: GeneratedCorpora, seed: int) -> None:
    rng = np.random.default_rng(generator_seed(seed, "corpora/documents"))
    with path.open("w", encoding="utf-8") as file:
        for _ in iter_progress(range(config.num_documents), total=config.num_documents, what="writing documents"):
            conversation = sample_conversation(rng, find_recipe(draw_name(rng, config.recipes)), config.world)
            is_prompted = bool(rng.random() < config.prompt_share)
            turns: list[dict[str, str]] = []
            for exchange in conversation.exchanges:
                prompt = _draw_prompt(rng, exchange.answer, config.prompts) if is_prompted else ""
                turns.append({"from": "human", "value": exchange.question + prompt})
                turns.append({"from": "gpt", "value": exchange.answer})
            cells = [] if conversation.picture is None else phrases(conversation.picture)
            file.write(json.dumps({"phrases": cells, "turns": turns}) + "\n")


def _draw_prompt(rng: np.random.Generator, answer: str, prompts: Mapping[int, str]) -> str:
    """A prompt that fits the answer, on a line of its own; nothing where none does."""
    kinds = _WORD_PROMPTS
    if answer in OPTION_LETTERS:
        kinds = _LETTER_PROMPTS
    elif answer in NUMBERS:
        kinds = _NUMBER_PROMPTS
    fitting = [prompts[kind] for kind in kinds if kind in prompts]
    if " " in answer or not fitting:
        return ""
    return "\n" + fitting[int(rng.integers(len(fitting)))]


def _write_images(folder: Path, config: GeneratedCorpora, seed: int) -> None:
    rng = np.random.default_rng(generator_seed(seed, "corpora/images"))
    count, side = config.num_images, config.world.image_side
    kinds: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    arrays: dict[str, Any] = {
        "pixels": np.zeros((count, side, side, 3), dtype=np.uint8),
        "segmentation": np.zeros((count, side, side), dtype=np.uint8),
        "depth": np.zeros((count, side, side), dtype=np.float16),
        "labels": np.zeros((count, len(CLASSES)), dtype=np.uint8),
        "kind": np.zeros(count, dtype=np.uint8),
    }
    with (folder / CAPTIONS_NAME).open("w", encoding="utf-8") as file:
        for index in iter_progress(range(count), total=count, what="drawing images"):
            kind = look_up(kinds, draw_name(rng, config.pictures), where="pools.corpora.pictures")
            picture = sample_picture(rng, config.world, kind)
            drawn = render(picture, side)
            arrays["pixels"][index] = drawn.pixels
            arrays["segmentation"][index] = drawn.segmentation
            arrays["depth"][index] = drawn.depth
            arrays["labels"][index] = labels(picture)
            arrays["kind"][index] = KINDS.index(kind)
            text = caption(picture)
            file.write(json.dumps({"index": index, "text": text, "words": text.split()}) + "\n")
    np.savez(folder / ARRAYS_NAME, **arrays)
