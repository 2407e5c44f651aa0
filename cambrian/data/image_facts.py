"""What an encoded picture is, without keeping it: whether it can be used, its digest and its difference hash."""

from __future__ import annotations

from dataclasses import dataclass

import xxhash

from cambrian.data.duplicates import difference_hash
from cambrian.interfaces import RecordError

IMAGE_REASONS = frozenset({"missing-image", "undecodable-image", "image-too-small"})
"""Every reason for which an image cannot be used."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is kept of one picture."""

    digest: str
    """Of the encoded bytes."""
    hash: bytes
    """The difference hash."""


def describe_image(data: bytes, *, name: str, hash_side: int, min_side: int) -> ImageFacts:
    """Decode a picture to its end and describe it.

    Raises:
        RecordError: it cannot be decoded, or its shorter side has fewer than `min_side` pixels.
    """
    from cambrian.data.images import load_image

    try:
        image = load_image(data)
    except RecordError as error:
        raise RecordError(error.reason, f"{name} ({len(data)} bytes): {error}") from error
    if min(image.size) < min_side:
        raise RecordError(
            "image-too-small",
            f"{name} is {image.width} x {image.height} pixels, the shorter side must have at least {min_side}",
        )
    return ImageFacts(digest_image(data), difference_hash(image, hash_side))


def digest_image(data: bytes) -> str:
    """XXH3, 128 bits, of the encoded bytes: by it a picture is known again."""
    return xxhash.xxh3_128_hexdigest(data)
