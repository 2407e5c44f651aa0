"""Pictures of the web as PNG: decoded whole, flattened on white, in their full size."""

from __future__ import annotations

import io
import re
import warnings

from cambrian.interfaces import RecordError

_LINK = re.compile(rb"""(?:href|src)\s*=\s*["'](?!#|data:)|url\(\s*["']?(?!#|data:)|@import|<!ENTITY""", re.IGNORECASE)


def to_png(data: bytes, *, name: str, min_side: int, max_pixels: int) -> bytes:
    """The picture as PNG in RGB.

    Raises:
        RecordError: `undecodable-image`, `small-image`, `large-image`, or `linked-image` for an SVG that refers to
            anything outside itself.

    Source: paper, section on the data engine; release, its fifth step (SVG and GIF on white).
    """
    from PIL import Image

    if b"<svg" in data[:4096].lower():
        data = _render_svg(data, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is max_pixels
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
                if width * height > max_pixels:
                    raise RecordError(
                        "large-image", f"{name} has {width} x {height} pixels, at most {max_pixels} are read"
                    )
                if min(width, height) < min_side:
                    raise RecordError(
                        "small-image", f"{name} has {width} x {height} pixels, its side must be {min_side}"
                    )
                layers = image.convert("RGBA")
    except RecordError:
        raise
    except Exception as error:  # Pillow raises whatever its many decoders raise
        raise RecordError("undecodable-image", f"{name} is no picture: {error}") from error
    flat = Image.new("RGB", layers.size, "white")
    flat.paste(layers, mask=layers.getchannel("A"))
    png = io.BytesIO()
    flat.save(png, "PNG")
    return png.getvalue()


def _render_svg(data: bytes, name: str) -> bytes:
    import vl_convert

    if _LINK.search(data):
        raise RecordError("linked-image", f"{name} refers to something outside itself")
    try:
        png: bytes = vl_convert.svg_to_png(data.decode("utf-8"))
    except ValueError as error:
        raise RecordError("undecodable-image", f"{name} is no SVG: {error}") from error
    return png
