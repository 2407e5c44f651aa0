from __future__ import annotations

from typing import TYPE_CHECKING, Any

import boto3
import pytest

from cambrian.artifacts import read_json, read_manifest
from cambrian.interfaces import ArtifactError
from tests.data.collecting.pools import collect, named, origin, pool, read_dropped, read_lines, read_step, tar
from tests.data.pools import picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def client(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = boto3.client("s3", endpoint_url=endpoint)
    made.create_bucket(Bucket="data")
    return made


def place(endpoint: str, prefix: str = "raw/") -> dict[str, Any]:
    return {"kind": "s3", "bucket": "data", "prefix": prefix, "endpoint": endpoint}


def test_a_pool_comes_from_a_bucket_and_is_put_into_another_place_of_it(
    endpoint: str, client: Any, tmp_path: Path
) -> None:
    client.put_object(Bucket="data", Key="raw/charts.jsonl", Body=named(3))
    client.put_object(Bucket="data", Key="raw/a.tar", Body=tar({f"pictures/{n}.png": picture(n) for n in range(3)}))
    target = {"bucket": "data", "prefix": "pools/instruction", "endpoint": endpoint}
    config = pool(tmp_path, {"charts": origin(place(endpoint))}, copy_to=target)
    folder = collect(config, tmp_path / "pool")
    assert len(read_lines(folder)) == 3
    assert read_step(folder, "pictures")["out"] == 3
    stored = {entry["Key"]: entry for entry in client.list_objects_v2(Bucket="data", Prefix="pools/")["Contents"]}
    names = {f"pools/instruction/{name}" for name in [*read_manifest(folder)["files"], "manifest.json"]}
    assert set(stored) == names
    body = client.get_object(Bucket="data", Key="pools/instruction/images-00000.tar")["Body"].read()
    assert body == (folder / "images-00000.tar").read_bytes()
    before = stored["pools/instruction/images-00000.tar"]["LastModified"]
    collect(config, tmp_path / "again")
    (entry,) = client.list_objects_v2(Bucket="data", Prefix="pools/instruction/images-00000.tar")["Contents"]
    assert entry["LastModified"] == before


def test_an_object_that_was_half_fetched_is_gone_on_from(
    endpoint: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.put_object(Bucket="data", Key="half/charts.jsonl", Body=named(30))
    from cambrian.data.collecting import readers

    config = pool(tmp_path, {"charts": origin(place(endpoint, "half/"), archives=[])})
    starts: list[int] = []
    original = readers._s3_opener

    def breaking(s3: Any, bucket: str, key: str) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def open_at(start: int) -> Iterator[readers.Opened]:
            starts.append(start)
            with original(s3, bucket, key)(start) as opened:
                if len(starts) == 1:
                    opened = readers.Opened(opened.start, opened.version, iter([next(opened.chunks)[:1000]]))
                yield opened

        return open_at

    monkeypatch.setattr(readers, "_s3_opener", breaking)
    folder = collect(config, tmp_path / "pool")
    assert starts == [0, 1000]
    assert len(read_lines(folder)) == 30
    assert read_json(folder / "files.json")[0]["where"] == "s3://data/half/charts.jsonl"


@pytest.mark.parametrize("policy", ["fail", "skip-and-record"])
def test_a_bucket_that_is_not_there_stops_the_stage_or_is_written_down(
    endpoint: str, client: Any, tmp_path: Path, policy: str
) -> None:
    row = origin({**place(endpoint), "bucket": "nowhere"}, when_gone=policy)
    config = pool(tmp_path, {"charts": row})
    if policy == "fail":
        with pytest.raises(ArtifactError, match=r"charts: .*gone: s3://nowhere/raw/"):
            collect(config, tmp_path / "pool")
        return
    assert read_dropped(collect(config, tmp_path / "pool")) == [("(all files)", "charts", "gone")]
