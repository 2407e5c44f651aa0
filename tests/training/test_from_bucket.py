"""A whole phase whose images stay in a bucket: slow, failing, and gone for a while."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cambrian.data import bucket as bucket_module
from cambrian.interfaces import ArtifactError
from cambrian.params import parse_block
from cambrian.runtime import RuntimeConfig
from cambrian.training.config import Recipe, TrainingConfig
from cambrian.training.engine import LocalEngine
from cambrian.training.phases import Phase, Places, train_phase
from tests.data.faulty_bucket import FaultyBucket
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARD = "pools/pool/images-00000.tar"


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyBucket]:
    """A bucket with the pool's shards; in the working folder `local` is the whole pool, `pool` has its index only."""
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(bucket_module, "_FIRST_WAIT_S", 0.0)
    tiny.write_backbones(tmp_path / "backbones")
    tiny.write_data(tmp_path, tiny.make_records(12), broken=["r5"])
    shutil.copytree("pool", "local")
    served = FaultyBucket()
    for path in Path("pool").glob("*.tar"):
        served.objects[f"pools/pool/{path.name}"] = path.read_bytes()
        path.unlink()
    assert list(served.objects) == [SHARD]
    yield served
    served.close()


def train(name: str, bucket: FaultyBucket | None, **changes: object) -> dict[str, str]:
    """Train a phase from the bucket, or from the folder where there is none; return the hashes of what it wrote."""
    loading = tiny.LOADING
    if bucket is not None:
        shards = {
            "kind": "bucket", "bucket": "data", "prefix": "pools", "endpoint": bucket.endpoint,
            "connect_timeout_s": 2.0, "read_timeout_s": 0.3, "num_attempts": 3, "cache": f"cache-{name}",
            "cache_mib": 1, **changes,
        }  # fmt: skip
        loading = {**loading, "shards": shards, "num_workers": 2, "num_steps_ahead": 1}
    training = parse_block(TrainingConfig, {**tiny.LOCAL, "loading": loading}, where="training")
    recipe = parse_block(Recipe, {**tiny.RECIPE, "image_cache_mib": 0, "feature_cache_mib": 0}, where="recipe")
    at = Places(
        Path("backbones"), Path("mix"), Path("local" if bucket is None else "pool"), Path(name), Path(f"{name}.json"),
        Path(f"{name}.csv"),
    )  # fmt: skip
    phase = Phase("runs.x", frozenset({"connector", "llm"}), initial=None, use_images=True, seed=0)
    train_phase(phase, tiny.MODEL, recipe, RuntimeConfig(device="cpu", threads=1), training, at)
    written = [Path(name, "model.safetensors"), at.metrics, Path(f"{name}.csv")]
    return {path.suffix: hashlib.sha256(path.read_bytes()).hexdigest() for path in written}


def test_a_phase_from_a_faulty_bucket_ends_in_the_bytes_of_one_from_a_folder(bucket: FaultyBucket) -> None:
    bucket.faults = [503, "truncate", "hang"]
    assert train("remote", bucket) == train("near", None)
    assert bucket.faults == []
    assert bucket.requests["GET"] == 9 + 3  # every picture once, as the cache has it in the second epoch, and in vain


def test_a_shard_that_disappears_in_the_middle_costs_nothing_that_was_saved(
    bucket: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, step, done = bucket.objects[SHARD], LocalEngine.step, []

    def lose_shard(self: LocalEngine, rate_factor: float) -> float:
        done.append(rate_factor)
        if len(done) == 3:
            del bucket.objects[SHARD]
        return step(self, rate_factor)

    monkeypatch.setattr(LocalEngine, "step", lose_shard)
    with pytest.raises(ArtifactError, match=r"s3://data/pools/pool/images-00000\.tar is not there \(404"):
        train("remote", bucket, cache_mib=0)
    assert not Path("remote").exists()
    saved = {path.name for path in Path("checkpoints").glob("*/step-*")}
    assert "step-00000002" in saved  # workers may have read the pictures of later steps before
    bucket.objects[SHARD] = shard
    assert train("remote", bucket, cache_mib=0) == train("near", None)
