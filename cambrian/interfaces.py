"""What the rooms hand each other: records, images as arrays, batches, benchmark items and replies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

IMAGE_TOKEN_ID = -200
"""Stands in `input_ids` at every position that an image fills (the release's placeholder index)."""

IGNORE_LABEL = -100
"""A position that the loss leaves out (the release's and torch's ignore index)."""

IMAGE_PLACEHOLDER = "<image>"
"""Stands in a turn's text where the image goes."""

CATEGORIES = ("Language", "General", "OCR", "Counting", "Math", "Code", "Science")
"""The seven categories of Cambrian-10M (paper, data section)."""


class ParamsError(ValueError):
    """A value in params.yaml or scales/*.yaml that cannot be used; says where, what was found and what to do."""


class ArtifactError(RuntimeError):
    """A stage's folder that is missing, incomplete or not what the reader expects."""


class RecordError(ValueError):
    """One record that cannot be used; `reason` is the short name under which the ledger counts it."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation; `speaker` is the release's `from`."""

    speaker: Literal["human", "gpt"]
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One training sample in the release's border format (JSONL of id, image, conversations, source)."""

    id: str
    source: str
    turns: tuple[Turn, ...]
    image: str | None
    """Member name inside the pool's image shards; None for text-only samples."""


@dataclass(frozen=True, slots=True)
class Item:
    """One benchmark question, whatever the benchmark."""

    id: str
    benchmark: str
    question: str
    """The complete user turn without the image placeholder."""
    choices: tuple[str, ...]
    """The options of a multiple-choice item in order; empty for open and yes/no questions."""
    answers: tuple[str, ...]
    """Every accepted answer; for multiple choice the text of the right option."""
    category: str
    """Subtask or topic, as the benchmark's own score needs it (MME subtask, CV-Bench source)."""
    group: str
    """Items scored together: MME's image, MMVP's pair, MMBench's rotations; the id where there is no group."""
    image: bytes | None
    """The encoded image file."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model said to one item, raw."""

    item_id: str
    text: str
    with_image: bool


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What an encoder wants its images to look like."""

    side: int
    """Pixels of the square's side."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad_colour: tuple[int, int, int]
    """RGB, 0 to 255, of what is added to make a picture square."""


@dataclass(slots=True)
class ImageBatch:
    """The images of a batch, preprocessed once for every encoder.

    `pixels[k]` belongs to encoder k; image i fills the i-th run of IMAGE_TOKEN_ID in the batch, row by row.
    """

    pixels: list[Float[Tensor, "images 3 side_k side_k"]]
    sizes: Int[Tensor, "images 2"]
    """Original width and height in pixels, which say what part of the padded square is the picture."""
    features: list[Float[Tensor, "images channels_k grid_k grid_k"]] | None = None
    """Every encoder's feature maps where they are known already; `pixels` is then empty."""


@dataclass(slots=True)
class Batch:
    """Right-padded conversations, ready for the model."""

    input_ids: Int[Tensor, "batch length"]
    labels: Int[Tensor, "batch length"]
    """The id to be predicted *at* each position (not shifted); IGNORE_LABEL where nothing is learned."""
    attention_mask: Bool[Tensor, "batch length"]
    images: ImageBatch | None
    """None when no sample of the batch has an image."""
    record_ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    """The data source of each conversation."""
