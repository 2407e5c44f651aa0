from __future__ import annotations

import os
import pickle
import tarfile
from typing import TYPE_CHECKING

import pytest

from cambrian.data.shards import ImageStore, ShardWriter, shard_name
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from pathlib import Path

IMAGES = {f"source/{number}.png": bytes([number]) * (number * 100) for number in range(10)}


def write_images(folder: Path, max_bytes: int) -> None:
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, max_bytes) as shards:
        for name, data in IMAGES.items():
            shards.add(name, data)


def test_every_image_comes_back_as_it_was(tmp_path: Path) -> None:
    write_images(tmp_path, max_bytes=3000)
    with ImageStore(tmp_path) as store:
        assert {name: store.read(name) for name in store} == IMAGES
        assert len(store) == len(IMAGES)


def test_shards_are_tar_files_that_any_reader_opens(tmp_path: Path) -> None:
    write_images(tmp_path, max_bytes=3000)
    paths = sorted(tmp_path.glob("images-*.tar"))
    assert len(paths) > 2
    found = {}
    for path in paths:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
                assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
    assert found == IMAGES


def test_an_image_larger_than_a_shard_gets_one_of_its_own(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, max_bytes=1024) as shards:
        shards.add("small", b"1")
        shards.add("large", b"2" * 5000)
        shards.add("next", b"3")
    assert [path.name for path in sorted(tmp_path.glob("*.tar"))] == [shard_name(number) for number in range(3)]
    assert ImageStore(tmp_path).read("large") == b"2" * 5000


def test_the_same_images_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_images(tmp_path / name, max_bytes=3000)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert len(files) > 3
    for file in files:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_no_images_make_an_empty_index(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, max_bytes=1024):
        pass
    assert len(ImageStore(tmp_path)) == 0
    assert "any" not in ImageStore(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, max_bytes=1024) as shards:
        shards.add("same", b"1")
        with pytest.raises(ValueError, match="'same' is already in"):
            shards.add("same", b"2")


def test_a_missing_image_is_a_fault_of_its_record(tmp_path: Path) -> None:
    write_images(tmp_path, max_bytes=3000)
    with ImageStore(tmp_path) as store, pytest.raises(RecordError, match="'absent' is not among the 10") as error:
        store.read("absent")
    assert error.value.reason == "missing-image"


def test_a_shard_that_is_cut_short_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, max_bytes=10**6)
    os.truncate(tmp_path / shard_name(0), 2048)
    with ImageStore(tmp_path) as store, pytest.raises(ArtifactError, match=r"images-00000\.tar ends within 900 bytes"):
        store.read("source/9.png")


def test_a_shard_that_is_gone_is_named(tmp_path: Path) -> None:
    write_images(tmp_path, max_bytes=10**6)
    (tmp_path / shard_name(0)).unlink()
    with ImageStore(tmp_path) as store, pytest.raises(ArtifactError, match=r"images-00000\.tar is missing"):
        store.read("source/9.png")


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"images\.json is missing"):
        ImageStore(tmp_path)


def test_an_unpickled_or_closed_store_opens_its_shards_again(tmp_path: Path) -> None:
    write_images(tmp_path, max_bytes=3000)
    store = ImageStore(tmp_path)
    store.read("source/3.png")
    copy = pickle.loads(pickle.dumps(store))
    store.close()
    assert copy.read("source/3.png") == store.read("source/3.png") == IMAGES["source/3.png"]


def test_a_forked_worker_reads_beside_its_parent(tmp_path: Path) -> None:
    write_images(tmp_path, max_bytes=10**6)
    store = ImageStore(tmp_path)
    store.read("source/1.png")
    child = os.fork()
    if child == 0:
        right = all(store.read(name) == data for name, data in IMAGES.items())
        os._exit(0 if right else 1)
    assert all(store.read(name) == data for name, data in IMAGES.items())
    assert os.waitpid(child, 0)[1] == 0
