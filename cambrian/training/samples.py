"""Records as batches: encoded and decoded when first needed, unusable ones left out, named and limited."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cambrian.data.collate import collate
from cambrian.data.conversation import truncate, without_images
from cambrian.data.images import decode_image, fit_image, normalise
from cambrian.interfaces import IMAGE_PLACEHOLDER, ArtifactError, ImageBatch, RecordError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from cambrian.data.conversation import Encoded, Template
    from cambrian.data.tokenizer import Tokenizer
    from cambrian.interfaces import Batch, ImageSpec, Record, Turn
    from cambrian.training.features import FeatureCache

_NUM_NAMED_RECORDS = 5
_BYTES_PER_MIB = 1 << 20
_NUM_KEPT_CONVERSATIONS = 100_000
"""Conversations whose ids are kept for the next epoch; about a gigabyte of the longest."""


@dataclass(frozen=True, slots=True)
class FittedImage:
    """One image, padded and resized for every distinct spec, before normalisation: an eighth of its final memory."""

    name: str
    pixels: dict[ImageSpec, np.ndarray]
    size: tuple[int, int]

    @property
    def num_bytes(self) -> int:
        """Memory of the pixels."""
        return sum(array.nbytes for array in self.pixels.values())


class ImageCache:
    """Fitted images, kept in memory until the limit is reached and decoded again beyond it."""

    def __init__(
        self, read: Callable[[str], bytes], specs: Sequence[ImageSpec], *, max_bytes: int, num_workers: int = 0
    ) -> None:
        """Take what reads an image's file, and how many threads make images that are announced."""
        self._read = read
        self._specs = list(dict.fromkeys(specs))
        self._free_bytes = max_bytes
        self._images: dict[str, FittedImage] = {}
        self._workers = ThreadPoolExecutor(num_workers, "images") if num_workers else None
        self._announced: dict[str, Future[FittedImage]] = {}

    def announce(self, name: str) -> None:
        """Let a worker make an image that will be asked for; without workers it is made when it is."""
        if self._workers is not None and name not in self._images and name not in self._announced:
            self._announced[name] = self._workers.submit(self._make, name)

    def fit(self, name: str) -> FittedImage:
        """The image of this name.

        Raises:
            RecordError: `missing-image` or `undecodable-image`.
        """
        if name in self._images:
            return self._images[name]
        announced = self._announced.pop(name, None)
        fitted = self._make(name) if announced is None else announced.result()
        if fitted.num_bytes <= self._free_bytes:
            self._free_bytes -= fitted.num_bytes
            self._images[name] = fitted
        return fitted

    def _make(self, name: str) -> FittedImage:
        image = decode_image(self._read(name))
        return FittedImage(name, {spec: fit_image(image, spec) for spec in self._specs}, image.size)


class Samples:
    """The records of a phase, as a model takes them.

    `use_images` false takes images and their places away and leaves the conversations as they are.
    """

    def __init__(
        self,
        records: Sequence[Record],
        read_image: Callable[[str], bytes],
        *,
        specs: Sequence[ImageSpec],
        num_image_positions: int,
        template: Template,
        tokenizer: Tokenizer,
        use_images: bool,
        max_length: int,
        max_unusable_share: float,
        image_cache_mib: int,
        num_workers: int,
        features: FeatureCache | None,
    ) -> None:
        """Take `features` where the encoders are frozen and images come back: batches then hold feature maps."""
        self._features = features
        self._records = records
        self._specs = specs
        self._images = ImageCache(
            read_image, specs, max_bytes=image_cache_mib * _BYTES_PER_MIB, num_workers=num_workers
        )
        self._num_image_positions = num_image_positions
        self._template = template
        self._tokenizer = tokenizer
        self._use_images = use_images
        self._max_length = max_length
        self._max_unusable_share = max_unusable_share
        self._encoded: dict[int, Encoded] = {}
        self.unusable: dict[str, str] = {}
        """Why each record that was left out was: its id to the reason's short name."""
        self._news: dict[str, str] = {}
        self._truncated: set[int] = set()
        self.num_samples = 0
        """Conversations that batches were made of, over all epochs."""
        self.num_tokens = 0
        """Positions of these conversations, images included, padding not."""

    def __len__(self) -> int:
        return len(self._records)

    @property
    def num_truncated(self) -> int:
        """Records of which `max_length` cut something off."""
        return len(self._truncated)

    @property
    def keeps_features(self) -> bool:
        """Whether a batch depends on the batches before it: an image is encoded in the one that it first stands in."""
        return self._features is not None

    def state(self) -> dict[str, Any]:
        """What was counted so far, for a checkpoint."""
        return {
            "num_samples": self.num_samples,
            "num_tokens": self.num_tokens,
            "truncated": sorted(self._truncated),
            "unusable": self.unusable,
        }

    def load_state(self, state: dict[str, Any], *, is_counting: bool) -> None:
        """Go on from what `state` returned; of many processes one goes on counting, the others begin at 0."""
        self.num_samples = state["num_samples"] if is_counting else 0
        self.num_tokens = state["num_tokens"] if is_counting else 0
        self._truncated, self.unusable = set(state["truncated"]), dict(state["unusable"])
        self._news.clear()

    @property
    def has_news(self) -> bool:
        """Whether records were left out that other processes do not know of."""
        return bool(self._news)

    def take_news(self) -> dict[str, str]:
        """Those records and their reasons; they are news no longer."""
        news, self._news = self._news, {}
        return news

    def leave_out(self, unusable: dict[str, str]) -> None:
        """Leave out what another process found.

        Raises:
            ArtifactError: they are more than the limit, all processes together.
        """
        self.unusable.update(unusable)
        self._check_limit("found by several processes")

    def announce(self, indices: Sequence[int]) -> None:
        """Let workers make the images of a batch that will be read."""
        for index in indices:
            record = self._records[index]
            if self._use_images and record.image is not None and record.id not in self.unusable:
                self._images.announce(record.image)

    def read_batch(self, indices: Sequence[int]) -> Batch | None:
        """One batch of these records; None when none of them can be used.

        Raises:
            ArtifactError: more records than the limit cannot be used, or one has a word that the tokenizer lacks.
        """
        usable = []
        for index in indices:
            record = self._records[index]
            if record.id not in self.unusable:
                try:
                    usable.append((record.id, record.source, self._encode(index), self._fit(index)))
                except RecordError as error:
                    self._leave_out(index, error)
        if not usable:
            return None
        ids, sources, encoded, fitted = zip(*usable, strict=True)
        self.num_samples += len(ids)
        self.num_tokens += sum(len(one.input_ids) for one in encoded)
        sizes = [image and image.size for image in fitted]
        if self._features is None:
            views = [image and self._normalise(image) for image in fitted]
            return collate(encoded, views, sizes, self._tokenizer.pad_id, ids, sources)
        batch = collate(encoded, [None] * len(ids), sizes, self._tokenizer.pad_id, ids, sources)
        images = {image.name: image for image in fitted if image is not None}
        if images:
            names = [image.name for image in fitted if image is not None]
            batch.images = ImageBatch(
                pixels=[],
                sizes=torch.tensor([images[name].size for name in names]),
                features=self._features.read(names, lambda name: self._normalise(images[name])),
            )
        return batch

    def _encode(self, index: int) -> Encoded:
        if index in self._encoded:
            return self._encoded[index]
        record = self._records[index]
        try:
            encoded, num_cut = truncate(
                self._template.encode_conversation(self._turns(record), self._tokenizer, self._num_image_positions),
                self._max_length,
            )
        except RecordError:
            raise
        except ValueError as error:
            raise ArtifactError(f"record {record.id} ({record.source}): {error}") from error
        if num_cut:
            self._truncated.add(index)
        if len(self._encoded) < _NUM_KEPT_CONVERSATIONS:
            self._encoded[index] = encoded
        return encoded

    def _turns(self, record: Record) -> Sequence[Turn]:
        num_places = sum(IMAGE_PLACEHOLDER in turn.text for turn in record.turns)
        if num_places != (record.image is not None):
            raise RecordError("image-placeholder", f"{num_places} places for {record.image or 'no image'}")
        return record.turns if self._use_images else without_images(record.turns)

    def _fit(self, index: int) -> FittedImage | None:
        name = self._records[index].image
        return self._images.fit(name) if self._use_images and name is not None else None

    def _normalise(self, image: FittedImage) -> list[np.ndarray]:
        views = {spec: normalise(pixels, spec) for spec, pixels in image.pixels.items()}
        return [views[spec] for spec in self._specs]

    def _leave_out(self, index: int, error: RecordError) -> None:
        self.unusable[self._records[index].id] = error.reason
        self._news[self._records[index].id] = error.reason
        self._check_limit(str(error))

    def _check_limit(self, last: str) -> None:
        if len(self.unusable) > self._max_unusable_share * len(self._records):
            named = [f"{record_id} ({reason})" for record_id, reason in self.unusable.items()][:_NUM_NAMED_RECORDS]
            raise ArtifactError(
                f"{len(self.unusable)} of {len(self._records)} records cannot be used, max_unusable_share allows "
                f"{self._max_unusable_share:.1%}: {', '.join(named)}; the last: {last}. Mend the data's cleaning, or "
                "raise the limit"
            )


def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several processes counted, as one would have."""
    unusable: dict[str, str] = {}
    for state in states:
        unusable.update(state["unusable"])
    return {
        "num_samples": sum(state["num_samples"] for state in states),
        "num_tokens": sum(state["num_tokens"] for state in states),
        "truncated": sorted({index for state in states for index in state["truncated"]}),
        "unusable": unusable,
    }
