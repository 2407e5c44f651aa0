"""Encoded image files to the pixels that encoders take."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, UInt8

    from cambrian.interfaces import ImageSpec

    Pixels = UInt8[np.ndarray, "side side 3"]

_DEEP_MODES = {"I": 65535.0, "I;16": 65535.0, "I;16L": 65535.0, "I;16B": 65535.0, "I;16N": 65535.0}
"""Grey modes of more than eight bits and their white; Pillow's own conversion clips them at 255."""


def decode_image(data: bytes) -> Image.Image:
    """Decode an image file to 8-bit RGB: the first frame of several, transparency dropped, no rotation by EXIF.

    Raises:
        RecordError: `undecodable-image`, when the bytes are no image, are cut short, or would be too large in memory.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                if image.mode in _DEEP_MODES:
                    levels = np.asarray(image, np.float64) * (255.0 / _DEEP_MODES[image.mode])
                    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8)).convert("RGB")
                return image.convert("RGB")
    # Pillow's decoders raise many classes for broken bytes; which ones is not documented.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, MemoryError) as error:
        raise RecordError("undecodable-image", f"{len(data)} bytes cannot be decoded: {error}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise RecordError("undecodable-image", f"too many pixels: {error}") from error


def fit_image(image: Image.Image, spec: ImageSpec) -> Pixels:
    """Pad a picture to a square with the spec's colour, centred, and resize it to the spec's side.

    With an odd difference the extra pixel lies at the bottom or right.

    Source: the release's mm_utils.py, which resizes by Pillow's bicubic filter on 8-bit RGB.
    """
    width, height = image.size
    if width != height:
        side = max(width, height)
        square = Image.new("RGB", (side, side), spec.pad_colour)
        square.paste(image, ((side - width) // 2, (side - height) // 2))
        image = square
    return np.asarray(image.resize((spec.side, spec.side), Image.Resampling.BICUBIC))


def normalise(pixels: Pixels, spec: ImageSpec) -> Float[np.ndarray, "3 side side"]:
    """Bring 8-bit pixels to the values that the encoder was trained on, channels first."""
    levels = pixels.astype(np.float32) / np.float32(255)
    normalised = (levels - np.asarray(spec.mean, np.float32)) / np.asarray(spec.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))


def preprocess(image_bytes: bytes, specs: Sequence[ImageSpec]) -> list[Float[np.ndarray, "3 side side"]]:
    """Preprocess an image file for every encoder; equal specs share one array.

    Raises:
        RecordError: `undecodable-image`.
    """
    image = decode_image(image_bytes)
    done = {spec: normalise(fit_image(image, spec), spec) for spec in dict.fromkeys(specs)}
    return [done[spec] for spec in specs]
