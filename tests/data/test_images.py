from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cambrian.data.images import decode_image, fit_image, normalise, preprocess
from cambrian.interfaces import ImageSpec, RecordError

SPEC = ImageSpec(side=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0), pad_colour=(10, 20, 30))


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def make_gradient(width: int, height: int) -> Image.Image:
    levels = np.arange(width * height * 3, dtype=np.uint32).reshape(height, width, 3) * 37 % 256
    return Image.fromarray(levels.astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
def test_every_mode_becomes_8_bit_rgb(mode: str) -> None:
    picture = Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)
    decoded = decode_image(encode(picture, "TIFF" if mode == "CMYK" else "PNG"))
    assert (decoded.mode, decoded.size) == ("RGB", (6, 4))
    assert np.asarray(decoded).min() == 255


def test_16_bit_grey_keeps_its_levels_instead_of_being_clipped() -> None:
    levels = np.array([[0, 32768, 65535]], np.uint16)
    decoded = np.asarray(decode_image(encode(Image.fromarray(levels))))
    assert decoded[0, :, 0].tolist() == [0, 128, 255]


def test_the_first_frame_of_an_animation_is_taken() -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    decoded = decode_image(encode(first, "GIF", save_all=True, append_images=[second]))
    assert decoded.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_truncated_file_is_undecodable(kind: str, share: float) -> None:
    data = encode(make_gradient(40, 40), kind)
    with pytest.raises(RecordError) as error:
        decode_image(data[: int(len(data) * share)])
    assert error.value.reason == "undecodable-image"


def test_a_file_that_is_no_image_is_undecodable() -> None:
    with pytest.raises(RecordError, match="11 bytes cannot be decoded"):
        decode_image(b"hello world")


def test_an_image_that_would_fill_the_memory_is_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(RecordError, match="too many pixels"):
        decode_image(encode(make_gradient(12, 12)))


def test_the_extra_pixel_of_an_odd_difference_lies_at_the_bottom() -> None:
    spec = ImageSpec(side=4, mean=SPEC.mean, std=SPEC.std, pad_colour=(10, 20, 30))
    pixels = fit_image(Image.new("RGB", (4, 1), (200, 200, 200)), spec)
    assert pixels[:, 0].tolist() == [[10, 20, 30], [200, 200, 200], [10, 20, 30], [10, 20, 30]]


def test_the_extra_pixel_of_an_odd_difference_lies_at_the_right() -> None:
    spec = ImageSpec(side=4, mean=SPEC.mean, std=SPEC.std, pad_colour=(10, 20, 30))
    pixels = fit_image(Image.new("RGB", (1, 4), (200, 200, 200)), spec)
    assert pixels[0].tolist() == [[10, 20, 30], [200, 200, 200], [10, 20, 30], [10, 20, 30]]


def test_a_square_of_the_right_side_passes_unchanged() -> None:
    picture = make_gradient(8, 8)
    assert np.array_equal(fit_image(picture, SPEC), np.asarray(picture))


def test_resizing_is_bicubic_on_8_bit_pixels() -> None:
    picture = make_gradient(20, 20)
    assert np.array_equal(fit_image(picture, SPEC), np.asarray(picture.resize((8, 8), Image.Resampling.BICUBIC)))


def test_normalised_pixels_have_channels_first() -> None:
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2, 5] = (255, 0, 51)
    normalised = normalise(pixels, SPEC)
    assert (normalised.shape, normalised.dtype) == ((3, 8, 8), np.float32)
    assert normalised[:, 2, 5].tolist() == pytest.approx([2.0, -1.0, -0.3])


def test_equal_specs_share_one_array_and_others_do_not() -> None:
    other = ImageSpec(side=4, mean=SPEC.mean, std=SPEC.std, pad_colour=SPEC.pad_colour)
    first, second, third = preprocess(encode(make_gradient(9, 5)), [SPEC, other, SPEC])
    assert first is third
    assert (first.shape, second.shape) == ((3, 8, 8), (3, 4, 4))
