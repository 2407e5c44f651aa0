from __future__ import annotations

import errno
import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.data import bucket as bucket_module
from cambrian.data.bucket import BucketConfig, BucketShards
from cambrian.data.loading import LoadingConfig, open_images
from cambrian.data.shards import ImageStore
from cambrian.interfaces import ArtifactError, RecordError
from tests.data.faulty_bucket import FaultyBucket
from tests.data.test_shards import IMAGES, write_images

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARD = "images-00000.tar"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyBucket]:
    """A bucket with the shards of the pool `pool`, whose folder keeps its index only."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(bucket_module, "_FIRST_WAIT_S", 0.0)
    served = FaultyBucket()
    write_images(tmp_path / "pool", max_bytes=3000)
    for path in (tmp_path / "pool").glob("*.tar"):
        served.objects[f"pools/pool/{path.name}"] = path.read_bytes()
        path.unlink()
    yield served
    served.close()


def configure(bucket: FaultyBucket, folder: Path, **changes: Any) -> LoadingConfig:
    values = {
        "kind": "bucket",
        "bucket": "data",
        "prefix": "pools",
        "endpoint": bucket.endpoint,
        "connect_timeout_s": 2.0,
        "read_timeout_s": 0.3,
        "num_attempts": 3,
        "cache": str(folder / "cache"),
        "cache_mib": 1,
    }
    shards = BucketConfig.model_validate({**values, **changes})
    return LoadingConfig(folder=str(folder / "mapped"), shards=shards, num_workers=0, num_steps_ahead=0)


def open_store(bucket: FaultyBucket, folder: Path, **changes: Any) -> ImageStore:
    return open_images(folder / "pool", configure(bucket, folder, **changes))


def test_images_come_from_a_bucket_as_from_a_folder(bucket: FaultyBucket, tmp_path: Path) -> None:
    with open_store(bucket, tmp_path) as store:
        assert {name: store.read(name) for name in IMAGES} == IMAGES
        assert len(store) == len(IMAGES)
        with pytest.raises(RecordError, match="'absent' is not among the 10 images"):
            store.read("absent")


def test_what_was_read_is_kept_and_serves_the_next_process(bucket: FaultyBucket, tmp_path: Path) -> None:
    for _ in range(2):
        store = open_store(bucket, tmp_path)
        assert all(store.read(name) == data for name, data in IMAGES.items())
    assert bucket.requests["GET"] == len(IMAGES)


def test_a_copy_in_a_worker_reads_too(bucket: FaultyBucket, tmp_path: Path) -> None:
    store = open_store(bucket, tmp_path)
    store.read("source/3.png")
    assert pickle.loads(pickle.dumps(store)).read("source/4.png") == IMAGES["source/4.png"]


@pytest.mark.parametrize("fault", [500, 503, "truncate", "hang"])
def test_a_passing_fault_is_tried_again(
    bucket: FaultyBucket, tmp_path: Path, fault: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.faults = [fault, fault]
    with caplog.at_level(logging.WARNING):
        assert open_store(bucket, tmp_path).read("source/9.png") == IMAGES["source/9.png"]
    assert caplog.text.count("follows") == 2


@pytest.mark.parametrize(
    ("fault", "said"), [(500, "500 InternalError"), ("truncate", "IncompleteRead"), ("hang", "Read timeout")]
)
def test_a_fault_that_stays_ends_with_what_to_do(
    bucket: FaultyBucket, tmp_path: Path, fault: int | str, said: str
) -> None:
    store = open_store(bucket, tmp_path, num_attempts=2)
    kept = store.read("source/2.png")
    bucket.faults = [fault] * 2
    with pytest.raises(ArtifactError, match=rf"s3://data/pools/pool/{SHARD}.*2 attempts.*{said}.*start again"):
        store.read("source/1.png")
    assert store.read("source/2.png") == kept


def test_a_bucket_that_refuses_is_asked_once(bucket: FaultyBucket, tmp_path: Path) -> None:
    store = open_store(bucket, tmp_path)
    bucket.faults = [403]
    with pytest.raises(ArtifactError, match=r"refuses \(403 AccessDenied\): give this machine credentials"):
        store.read("source/1.png")
    assert bucket.requests["GET"] == 1


def test_a_shard_that_disappears_is_named(bucket: FaultyBucket, tmp_path: Path) -> None:
    store = open_store(bucket, tmp_path)
    kept = store.read("source/2.png")
    del bucket.objects[f"pools/pool/{SHARD}"]
    with pytest.raises(ArtifactError, match=rf"{SHARD} is not there \(404 NoSuchKey\): put the pool's shards back"):
        store.read("source/1.png")
    assert store.read("source/2.png") == kept


def test_an_object_that_changes_is_never_mixed_with_what_it_was(bucket: FaultyBucket, tmp_path: Path) -> None:
    store = open_store(bucket, tmp_path)
    store.read("source/2.png")
    changed = bytes(reversed(bucket.objects[f"pools/pool/{SHARD}"]))
    bucket.objects[f"pools/pool/{SHARD}"] = changed
    with pytest.raises(ArtifactError, match="is another file than when this process began"):
        store.read("source/1.png")
    assert open_store(bucket, tmp_path).read("source/2.png") != IMAGES["source/2.png"]  # not the old piece


def test_a_shard_that_is_shorter_than_its_index_is_named(bucket: FaultyBucket, tmp_path: Path) -> None:
    bucket.objects[f"pools/pool/{SHARD}"] = b"short"
    with pytest.raises(ArtifactError, match="is shorter than the pool's index says"):
        open_store(bucket, tmp_path).read("source/1.png")


def test_the_cache_is_bounded_and_forgets_the_oldest(bucket: FaultyBucket, tmp_path: Path) -> None:
    config = configure(bucket, tmp_path).shards
    assert isinstance(config, BucketConfig)
    shards = BucketShards(config, "pool", Path(config.cache))
    bound = shards._cache._max_bytes = 1000
    store = open_images(tmp_path / "pool", configure(bucket, tmp_path))
    limited = ImageStore(tmp_path / "pool", shards=shards)
    for name in ("source/1.png", "source/4.png", "source/5.png", "source/1.png"):
        assert limited.read(name) == store.read(name)
        assert shards._cache.num_bytes <= bound
    assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) > 0


def test_a_disk_that_fills_up_costs_the_cache_and_nothing_else(
    bucket: FaultyBucket, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(bucket, tmp_path)
    store.read("source/1.png")
    write = Path.open

    def refuse(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if "w" in mode and path.parent == tmp_path / "cache":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, mode, *arguments, **named)

    monkeypatch.setattr(Path, "open", refuse)
    assert all(store.read(name) == data for name, data in IMAGES.items())
    assert caplog.text.count("the disk is full") == 1
    assert "free space or lower cache_mib" in caplog.text
    requests = bucket.requests["GET"]
    assert store.read("source/1.png") == IMAGES["source/1.png"]
    assert bucket.requests["GET"] == requests  # what was kept before is still there


def test_a_damaged_piece_is_fetched_again(
    bucket: FaultyBucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_store(bucket, tmp_path).read("source/7.png")
    (piece,) = (tmp_path / "cache").iterdir()
    piece.write_bytes(piece.read_bytes()[:-1] + b"!")
    assert open_store(bucket, tmp_path).read("source/7.png") == IMAGES["source/7.png"]
    assert "is damaged and is fetched again" in caplog.text


def test_what_a_killed_process_left_half_written_is_removed(bucket: FaultyBucket, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    left = tmp_path / "cache" / ".abc.999999999.1.partial"
    left.write_bytes(b"half")
    open_store(bucket, tmp_path)
    assert not left.exists()
