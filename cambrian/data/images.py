"""Encoded image files to the pixels that encoders take."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, UInt8

    from cambrian.interfaces import ImageSpec

    Pixels = UInt8[np.ndarray, "side side 3"]

_DEEP_MODES = {"I": 65535.0, "I;16": 65535.0, "I;16L": 65535.0, "I;16B": 65535.0, "I;16N": 65535.0}
"""Grey modes of more than eight bits and their white; Pillow's own conversion clips them at 255."""

_MAX_SIDE = 100_000
"""Pixels of the longest side. The file formats without such a bound of their own could ask for any amount of memory
with a picture of one row, because it is padded to a square."""

_MAX_PIXELS = 1024**3 // 4 // 3
"""Of one picture: Pillow's own number, a quarter of a GiB as 8-bit RGB."""

_BAND_PIXELS = 1 << 20
"""Pixels of a tall picture's padded square that are there at a time."""


def load_image(data: bytes) -> Image.Image:
    """Decode an image file to its end, in its own mode: the first frame of several.

    Whatever cleaning and the gates take for an image can be trained on: all of them ask here.

    Raises:
        RecordError: `undecodable-image`, when the bytes are no image, are cut short, would be too large in memory,
            have a side of more than 100,000 pixels, or levels that are floating-point numbers.
    """
    try:
        image = Image.open(io.BytesIO(data))
        # Pillow only warns of such a size. To make an error of its warning here is not safe among threads.
        if image.width * image.height > _MAX_PIXELS:
            raise RecordError(
                "undecodable-image", f"too many pixels: {image.width} x {image.height}, at most {_MAX_PIXELS} are read"
            )
        image.load()
    except RecordError:
        raise
    except UnidentifiedImageError as error:  # its own message has the address of the buffer, another in every run
        raise RecordError("undecodable-image", "no known picture format, or no area") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RecordError("undecodable-image", f"too many pixels: {error}") from error
    except Exception as error:  # Pillow's decoders raise many classes for broken bytes; which ones is not documented
        raise RecordError("undecodable-image", _first_line(error)) from error
    if image.mode == "F":
        raise RecordError("undecodable-image", "its levels are floating-point numbers: save it with 8 bits")
    if max(image.size) > _MAX_SIDE:
        raise RecordError(
            "undecodable-image",
            f"{image.width} x {image.height} pixels, a side may have {_MAX_SIDE}: cut it into pieces",
        )
    return image


def decode_image(data: bytes) -> Image.Image:
    """Decode an image file to 8-bit RGB: the first frame of several, transparency dropped, no rotation by EXIF.

    Raises:
        RecordError: as `load_image`.
    """
    try:
        image = load_image(data)
    except RecordError as error:
        raise RecordError(error.reason, f"{len(data)} bytes cannot be decoded: {error}") from error
    if image.mode in _DEEP_MODES:
        levels = np.asarray(image, np.float64) * (255.0 / _DEEP_MODES[image.mode])
        return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def fit_image(image: Image.Image, spec: ImageSpec) -> Pixels:
    """Pad a picture to a square with the spec's colour, centred, and resize it to the spec's side.

    With an odd difference the extra pixel lies at the bottom or right.

    Source: the release's mm_utils.py, which resizes by Pillow's bicubic filter on 8-bit RGB.
    """
    width, height = image.size
    if width == height:
        return np.asarray(image.resize((spec.side, spec.side), Image.Resampling.BICUBIC))
    # Pillow resizes a square along its rows first, then along its columns. Doing the first step on the picture's rows
    # alone gives the same bytes, and the square, 1.2 GB for a strip of 20000 x 100, is never made.
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    narrowed = Image.new("RGB", (spec.side, side), spec.pad_colour)
    if left == 0:
        narrowed.paste(image.resize((spec.side, height), Image.Resampling.BICUBIC), (0, top))
        return np.asarray(narrowed.resize((spec.side, spec.side), Image.Resampling.BICUBIC))
    num_rows = max(_BAND_PIXELS // side, 1)
    for first in range(0, height, num_rows):
        last = min(first + num_rows, height)
        band = Image.new("RGB", (side, last - first), spec.pad_colour)
        band.paste(image.crop((0, first, width, last)), (left, 0))
        narrowed.paste(band.resize((spec.side, last - first), Image.Resampling.BICUBIC), (0, top + first))
    return np.asarray(narrowed.resize((spec.side, spec.side), Image.Resampling.BICUBIC))


def normalise(pixels: Pixels, spec: ImageSpec) -> Float[np.ndarray, "3 side side"]:
    """Bring 8-bit pixels to the values that the encoder was trained on, channels first."""
    normalised = np.empty((3, *pixels.shape[:2]), np.float32)
    for channel, plane in enumerate(normalised):  # in place: new memory for every step took most of the time
        plane[...] = pixels[..., channel]
        plane /= np.float32(255)
        plane -= np.float32(spec.mean[channel])
        plane /= np.float32(spec.std[channel])
    return normalised


def preprocess(image_bytes: bytes, specs: Sequence[ImageSpec]) -> list[Float[np.ndarray, "3 side side"]]:
    """Preprocess an image file for every encoder; equal specs share one array.

    Raises:
        RecordError: `undecodable-image`.
    """
    image = decode_image(image_bytes)
    done = {spec: normalise(fit_image(image, spec), spec) for spec in dict.fromkeys(specs)}
    return [done[spec] for spec in specs]


def _first_line(error: Exception) -> str:
    """Pillow's message without the address of its buffer, which differs from run to run."""
    lines = str(error).split("<", 1)[0].strip().splitlines()
    return lines[0] if lines else type(error).__name__
