from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cambrian.data import images
from cambrian.data.image_facts import describe_image
from cambrian.data.images import decode_image, fit_image, normalise, preprocess
from cambrian.interfaces import ImageSpec, RecordError

SPEC = ImageSpec(side=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0), pad_colour=(10, 20, 30))


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encode_png(width: int, height: int, *, depth: int, colour_type: int, levels: bytes) -> bytes:
    """A PNG by hand, of kinds that Pillow reads and does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(levels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


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


@pytest.mark.parametrize(("colour_type", "levels"), [(2, (0, 32768, 65535)), (6, (0, 32768, 65535, 1000))])
def test_16_bit_colour_keeps_its_levels(colour_type: int, levels: tuple[int, ...]) -> None:
    row = b"\0" + struct.pack(f">{len(levels)}H", *levels)
    decoded = decode_image(encode_png(1, 1, depth=16, colour_type=colour_type, levels=row))
    assert decoded.getpixel((0, 0)) == (0, 128, 255)


def test_inks_of_a_cmyk_photograph_become_colours() -> None:
    picture = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    decoded = decode_image(encode(picture, "JPEG", quality=100))
    assert decoded.getpixel((4, 4)) == pytest.approx((255, 0, 0), abs=3)  # JPEG loses a little


def test_floating_point_levels_are_refused_because_nobody_says_what_is_white() -> None:
    with pytest.raises(RecordError, match="floating-point numbers: save it with 8 bits"):
        decode_image(encode(Image.new("F", (4, 4), 0.5), "TIFF"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    lossless = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode_image(encode(first, kind, save_all=True, append_images=[second], **lossless))
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
    monkeypatch.setattr(images, "_MAX_PIXELS", 100)
    assert decode_image(encode(make_gradient(10, 10))).size == (10, 10)
    with pytest.raises(RecordError, match="too many pixels: 12 x 12, at most 100 are read"):
        decode_image(encode(make_gradient(12, 12)))


def test_a_small_file_that_declares_enormous_sides_is_refused_before_it_is_unpacked() -> None:
    bomb = encode_png(60_000, 60_000, depth=8, colour_type=2, levels=bytes(1000))
    with pytest.raises(RecordError, match="too many pixels: Image size \\(3600000000 pixels\\)"):
        decode_image(bomb)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_image_without_area_is_undecodable(size: tuple[int, int]) -> None:
    with pytest.raises(RecordError, match="cannot be decoded: no known picture format, or no area"):
        decode_image(encode_png(*size, depth=8, colour_type=2, levels=b""))


def test_a_side_that_no_square_could_be_made_of_is_refused() -> None:
    with pytest.raises(RecordError, match="100001 x 1 pixels, a side may have 100000: cut it into pieces"):
        decode_image(encode(Image.new("RGB", (100_001, 1))))


def with_long_text(data: bytes) -> bytes:
    """A PNG with a packed text of two MiB, at which Pillow raises a ValueError."""
    body = b"Comment\0\0" + zlib.compress(bytes(2**21))
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return data[:33] + chunk + data[33:]


REFUSED = {
    "a long text": (with_long_text(encode(make_gradient(4, 4))), "too large"),
    "floating-point levels": (encode(Image.new("F", (4, 4), 0.5), "TIFF"), "floating-point numbers"),
    "a long side": (encode(Image.new("RGB", (100_001, 1))), "a side may have 100000"),
    "many pixels": (encode(Image.new("1", (9500, 9500))), "too many pixels"),
    "half a file": (encode(make_gradient(40, 40))[:60], "truncated"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_cleaning_refuses_what_training_would_refuse(what: str) -> None:
    data, reason = REFUSED[what]
    with pytest.raises(RecordError, match=reason) as error:
        decode_image(data)
    assert error.value.reason == "undecodable-image"
    with pytest.raises(RecordError, match=f"a.png .*{reason}") as error:
        describe_image(data, name="a.png", hash_side=8, min_side=1)
    assert error.value.reason == "undecodable-image"


@pytest.mark.parametrize("size", [(50, 2), (3, 300), (401, 2), (1, 130), (130, 65), (63, 200)])
@pytest.mark.parametrize("side", [1, 8, 70])
def test_padding_by_bands_gives_the_bytes_of_padding_at_once(size: tuple[int, int], side: int) -> None:
    spec = ImageSpec(side=side, mean=SPEC.mean, std=SPEC.std, pad_colour=(10, 20, 30))
    picture = make_gradient(*size)
    square = Image.new("RGB", (max(size), max(size)), spec.pad_colour)
    square.paste(picture, ((max(size) - size[0]) // 2, (max(size) - size[1]) // 2))
    expected = np.asarray(square.resize((side, side), Image.Resampling.BICUBIC))
    assert np.array_equal(fit_image(picture, spec), expected)


def test_a_strip_of_200_to_1_is_fitted_without_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    new = Image.new

    def keep_size(mode: str, size: tuple[int, int], *colour: Any) -> Image.Image:
        made.append(size[0] * size[1])
        return new(mode, size, *colour)

    picture = make_gradient(20_000, 100)
    monkeypatch.setattr(Image, "new", keep_size)
    spec = ImageSpec(side=8, mean=SPEC.mean, std=SPEC.std, pad_colour=(10, 20, 30))
    pixels = fit_image(picture, spec)
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[4].std() > 0
    assert max(made) <= 64 * 20_000  # pixels; the square has 400 million


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
