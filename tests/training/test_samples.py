from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cambrian.data.conversation import TURNS
from cambrian.data.tokenizer import read_tokenizer
from cambrian.interfaces import IMAGE_TOKEN_ID, ArtifactError, ImageSpec, Record, RecordError, Turn
from cambrian.training.samples import ImageCache, Samples
from tests.training import tiny

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ImageSpec(side=4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), pad_colour=(0, 0, 0))
OTHER = ImageSpec(side=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), pad_colour=(0, 0, 0))


class Pictures:
    """Pictures by name, counting how often each is read; names that start with `broken` are cut short."""

    def __init__(self) -> None:
        self.reads: dict[str, int] = {}

    def read(self, name: str) -> bytes:
        self.reads[name] = self.reads.get(name, 0) + 1
        if name.startswith("missing"):
            raise RecordError("missing-image", f"no {name}")
        data = tiny.encode_png((255, 0, 0))
        return data[:40] if name.startswith("broken") else data


@pytest.fixture
def pictures() -> Pictures:
    return Pictures()


def make_record(name: str, image: str | None, answer: str = "red") -> Record:
    tag = "<image>\n" if image else ""
    return Record(id=name, source="s", turns=(Turn("human", f"{tag}what"), Turn("gpt", answer)), image=image)


def make_samples(folder: Path, records: list[Record], pictures: Pictures, **changes: Any) -> Samples:
    tiny.write_tokenizer(folder)
    arguments: dict[str, Any] = {
        "specs": [SPEC, OTHER, SPEC],
        "num_image_positions": 2,
        "template": TURNS,
        "tokenizer": read_tokenizer(folder),
        "use_images": True,
        "max_length": 64,
        "max_unusable_share": 0.5,
        "image_cache_mib": 1,
        "num_workers": 0,
        "features": None,
    }
    return Samples(records, pictures.read, **{**arguments, **changes})


def test_a_batch_holds_the_records_asked_for_with_their_images(tmp_path: Path, pictures: Pictures) -> None:
    records = [make_record("a", "a.png"), make_record("b", None), make_record("c", "c.png")]
    batch = make_samples(tmp_path, records, pictures).read_batch([2, 1])
    assert batch is not None
    assert batch.record_ids == ["c", "b"]
    assert batch.sources == ["s", "s"]
    assert (batch.input_ids == IMAGE_TOKEN_ID).sum(dim=1).tolist() == [2, 0]
    assert batch.images is not None
    assert [tuple(pixels.shape) for pixels in batch.images.pixels] == [(1, 3, 4, 4), (1, 3, 8, 8), (1, 3, 4, 4)]
    assert batch.images.sizes.tolist() == [[10, 8]]


def test_an_image_is_decoded_once_and_other_epochs_see_the_same(tmp_path: Path, pictures: Pictures) -> None:
    samples = make_samples(tmp_path, [make_record("a", "a.png")], pictures)
    first, second = samples.read_batch([0]), samples.read_batch([0])
    assert pictures.reads == {"a.png": 1}
    assert first is not None
    assert second is not None
    assert first.images is not None
    assert second.images is not None
    assert (first.images.pixels[0] == second.images.pixels[0]).all()
    assert (samples.num_samples, samples.num_tokens) == (2, 2 * 6)


def test_the_memory_for_images_is_bounded_and_changes_nothing(pictures: Pictures) -> None:
    one_image = 4 * 4 * 3
    cache = ImageCache(pictures.read, [SPEC], max_bytes=one_image)
    for _ in range(3):
        images = [cache.fit(name) for name in ("a", "b")]
    assert pictures.reads == {"a": 1, "b": 3}
    assert np.array_equal(images[0].pixels[SPEC], images[1].pixels[SPEC])


def test_a_blind_run_has_neither_images_nor_their_places(tmp_path: Path, pictures: Pictures) -> None:
    batch = make_samples(tmp_path, [make_record("a", "broken.png")], pictures, use_images=False).read_batch([0])
    assert batch is not None
    assert batch.images is None
    assert pictures.reads == {}
    seen = make_samples(tmp_path, [make_record("a", None)], pictures).read_batch([0])
    assert seen is not None
    assert batch.input_ids.tolist() == seen.input_ids.tolist()


def test_unusable_records_are_left_out_named_and_not_tried_again(tmp_path: Path, pictures: Pictures) -> None:
    records = [
        make_record("a", "broken.png"),
        make_record("b", "missing.png"),
        make_record("c", None),
        make_record("d", None),
    ]
    samples = make_samples(tmp_path, records, pictures)
    for _ in range(2):
        batch = samples.read_batch([0, 1, 2, 3])
        assert batch is not None
        assert batch.record_ids == ["c", "d"]
    assert samples.unusable == {"a": "undecodable-image", "b": "missing-image"}
    assert pictures.reads == {"broken.png": 1, "missing.png": 1}
    assert samples.read_batch([0, 1]) is None


def test_too_many_unusable_records_fail_the_run_and_are_named(tmp_path: Path, pictures: Pictures) -> None:
    records = [make_record("a", "broken.png"), make_record("b", "missing.png"), make_record("c", None)]
    samples = make_samples(tmp_path, records, pictures)
    with pytest.raises(
        ArtifactError, match=r"2 of 3 records .* allows 50\.0%: a \(undecodable-image\), b \(missing-image\)"
    ):
        samples.read_batch([0, 1, 2])


@pytest.mark.parametrize(("text", "image"), [("<image>\nwhat", None), ("what", "a.png")])
def test_an_image_without_a_place_and_a_place_without_an_image_are_unusable(
    text: str, image: str | None, tmp_path: Path, pictures: Pictures
) -> None:
    odd = Record(id="odd", source="s", turns=(Turn("human", text), Turn("gpt", "red")), image=image)
    samples = make_samples(tmp_path, [odd, make_record("a", None)], pictures)
    samples.read_batch([0, 1])
    assert samples.unusable == {"odd": "image-placeholder"}


def test_what_is_cut_off_is_counted_once(tmp_path: Path, pictures: Pictures) -> None:
    samples = make_samples(
        tmp_path, [make_record("a", None, "red red red"), make_record("b", None)], pictures, max_length=5
    )
    for _ in range(2):
        batch = samples.read_batch([0, 1])
        assert batch is not None
        assert batch.input_ids.shape == (2, 5)
    assert samples.num_truncated == 1


def test_a_word_that_the_tokenizer_lacks_names_its_record(tmp_path: Path, pictures: Pictures) -> None:
    samples = make_samples(tmp_path, [make_record("a", None, "purple")], pictures)
    with pytest.raises(ArtifactError, match=r"record a \(s\): 'purple'"):
        samples.read_batch([0])


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_make_the_same_batches(tmp_path: Path, pictures: Pictures, num_workers: int) -> None:
    names = [f"{index}.png" for index in range(6)] + ["broken.png"]
    records = [make_record(name, name) for name in names]
    plain = make_samples(tmp_path, records, Pictures())
    samples = make_samples(tmp_path, records, pictures, num_workers=num_workers)
    samples.announce(range(7))
    for indices in ([0, 1, 2], [3, 6, 4], [5]):
        ours, expected = samples.read_batch(indices), plain.read_batch(indices)
        assert ours is not None
        assert expected is not None
        assert ours.record_ids == expected.record_ids
        assert ours.images is not None
        assert expected.images is not None
        assert all(map(np.array_equal, ours.images.pixels, expected.images.pixels))
    assert samples.unusable == plain.unusable == {"broken.png": "undecodable-image"}
    assert set(pictures.reads.values()) == {1}
