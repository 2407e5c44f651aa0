"""Shards that stay in a bucket: ranges of them are read as they are needed, through a bounded local cache."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from cambrian.data.range_cache import RangeCache
from cambrian.interfaces import ArtifactError
from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_BYTES_PER_MIB = 1 << 20
_REFUSED = (401, 403)
_GONE = (404, 410)
_CHANGED = 412
_OUTSIDE = 416
_log = logging.getLogger("cambrian")


class _TruncatedError(Exception):
    """An answer that ended before its end."""


class BucketConfig(Params):
    """A bucket with the shards of pools, each under its pool's name.

    Credentials come from the environment, as boto3 finds them.
    """

    kind: Literal["bucket"]
    bucket: str
    prefix: str
    """Of all pools: a pool's shards lie under PREFIX/POOL/."""
    endpoint: str | None
    """Another S3 service than Amazon's; null is Amazon's, or AWS_ENDPOINT_URL."""
    connect_timeout_s: float = Field(gt=0)
    read_timeout_s: float = Field(gt=0)
    num_attempts: int = Field(gt=0)
    """Of one piece, whatever went wrong with it."""
    cache: str
    """A folder on a local disk."""
    cache_mib: int = Field(ge=0)
    """The most that one process keeps there; 0 keeps nothing."""


class BucketShards:
    """The shards of one pool in a bucket; what is read comes whole or not at all.

    The first read of a shard remembers its version, and every later one asks for that version.
    """

    def __init__(self, config: BucketConfig, pool: str, cache: Path) -> None:
        self._config = config
        self._prefix = "/".join(part for part in (config.prefix.strip("/"), pool) if part)
        self._cache = RangeCache(cache, config.cache_mib * _BYTES_PER_MIB)
        self._versions: dict[str, str] = {}
        self._client: Any
        self._open()

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """The bytes of a shard from an offset on.

        Raises:
            ArtifactError: the bucket refuses, the shard is gone, changed or too short, or no attempt came through.
        """
        version = self._version(shard)
        key = f"{self._where(shard)} {version} {offset} {size}"
        kept = self._cache.get(key)
        if kept is None:
            kept = self._try(shard, lambda: self._fetch(shard, version, offset, size))
            self._cache.put(key, kept)
        return kept

    def close(self) -> None:
        """Close the connections; a later read opens them again."""
        self._client = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_client", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._client = None
        self._lock = threading.Lock()

    def _version(self, shard: str) -> str:
        """The shard's version when this process first met it; pieces of another version are never mixed with it."""
        if shard not in self._versions:
            key = f"{self._prefix}/{shard}"
            answer = self._try(shard, lambda: self._connect().head_object(Bucket=self._config.bucket, Key=key))
            self._versions.setdefault(shard, answer["ETag"])
        return self._versions[shard]

    def _fetch(self, shard: str, version: str, offset: int, size: int) -> bytes:
        answer = self._connect().get_object(
            Bucket=self._config.bucket,
            Key=f"{self._prefix}/{shard}",
            Range=f"bytes={offset}-{offset + size - 1}",
            IfMatch=version,
        )
        with closing(answer["Body"]) as body:
            data: bytes = body.read()
        if len(data) != size:
            raise _TruncatedError(f"{len(data)} of {size} bytes came")
        return data

    def _try(self, shard: str, ask: Callable[[], T]) -> T:
        """Ask until an answer has come whole; what asking again cannot mend fails at once."""
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        where, limit = self._where(shard), self._config.num_attempts
        fault = ""
        for attempt in range(1, limit + 1):
            try:
                return ask()
            except ClientError as error:
                fault = self._judge(error, where)
            except (BotoCoreError, HTTPError, OSError, _TruncatedError) as error:  # botocore lets urllib3's errors pass
                fault = f"{type(error).__name__}: {error}"
            if attempt < limit:
                _log.warning("%s: %s; attempt %d of %d follows", where, fault, attempt + 1, limit)
                time.sleep(min(_FIRST_WAIT_S * 2 ** (attempt - 1), _LONGEST_WAIT_S))
        raise ArtifactError(
            f"{where} did not answer whole in {limit} attempts, the last: {fault}. Nothing that was saved is lost: "
            "start again when the bucket answers, and training goes on from its checkpoint"
        )

    def _where(self, shard: str) -> str:
        return f"s3://{self._config.bucket}/{self._prefix}/{shard}"

    def _judge(self, error: Any, where: str) -> str:
        """Say what an answer of the service means.

        Raises:
            ArtifactError: trying again would not help.
        """
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = error.response.get("Error", {}).get("Code", "")
        if status in _REFUSED:
            raise ArtifactError(
                f"{where}: the bucket refuses ({status} {code}): give this machine credentials that may read it "
                "(AWS_PROFILE, a role, or AWS_ACCESS_KEY_ID), and start again: training goes on from its checkpoint"
            ) from error
        if status in _GONE:
            raise ArtifactError(
                f"{where} is not there ({status} {code}): put the pool's shards back (`copy_to` of the collect stage "
                "does), and start again: training goes on from its checkpoint"
            ) from error
        if status == _CHANGED:
            raise ArtifactError(
                f"{where} is another file than when this process began, and nothing is trained on a mixture of two: "
                "put the old one back and start again: training goes on from its checkpoint"
            ) from error
        if status == _OUTSIDE:
            raise ArtifactError(f"{where} is shorter than the pool's index says: copy the pool into the bucket again")
        return f"the bucket answers {status} {code}"

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                import boto3
                from botocore.config import Config

                config = Config(
                    connect_timeout=self._config.connect_timeout_s,
                    read_timeout=self._config.read_timeout_s,
                    retries={"total_max_attempts": 1},  # attempts are counted here, bodies included
                    max_pool_connections=32,
                )
                self._client = boto3.client("s3", endpoint_url=self._config.endpoint, config=config)
            return self._client
