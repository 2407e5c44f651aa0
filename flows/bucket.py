"""The bucket behind a DVC remote: what DVC does not do with it. Credentials are boto3's to find, never this project's.

DVC keeps an object under its hash: `PREFIX/files/md5/ab/cdef...`, a folder's list of files as one that ends in `.dir`,
and run-cache entries under `PREFIX/runs/`.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

S3_FAULTS = (BotoCoreError, ClientError)
"""What a bucket that is not there, refuses or breaks makes of a request."""
_OBJECT = re.compile(r"(?:files/md5/)?([0-9a-f]{2})/([0-9a-f]{30}(?:\.dir)?)")
_ENTRY = re.compile(r"runs/[0-9a-f]{2}/[0-9a-f]{64}/[0-9a-f]{64}")
_RULE = "flows"
_MAX_DELETED = 1000
"""Objects in one request, as S3 has it."""


class BucketError(RuntimeError):
    """The remote is no bucket, or the bucket cannot be used."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One property of a bucket that was looked at."""

    name: str
    is_good: bool
    is_needed: bool
    """Whether nothing works without it; else it is a matter of safety."""
    message: str


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of the bucket that DVC put there."""

    key: str
    """Whole."""
    digest: str | None
    """The hash of the content; None for a run-cache entry."""
    size: int
    """Bytes."""
    modified: datetime


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket and the prefix in it that belongs to a DVC remote."""

    name: str
    prefix: str
    client: Any

    def iter_stored(self) -> Iterator[Stored]:
        """List what DVC keeps there, by key; what others keep under the prefix is left out."""
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=self.prefix):
            for found in page.get("Contents", ()):
                inner = found["Key"].removeprefix(self.prefix)
                match = _OBJECT.fullmatch(inner)
                if match or _ENTRY.fullmatch(inner):
                    digest = match[1] + match[2] if match else None
                    yield Stored(found["Key"], digest, found["Size"], found["LastModified"])

    def locate(self, digest: str) -> str:
        """Name the key of an object."""
        return f"{self.prefix}files/md5/{digest[:2]}/{digest[2:]}"

    def holds(self, digest: str) -> bool:
        """Say whether an object is there."""
        try:
            self.client.head_object(Bucket=self.name, Key=self.locate(digest))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                return False
            raise
        return True

    def read(self, key: str) -> bytes:
        """Read an object."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; in a versioned bucket they can be had back until the lifecycle removes them.

        Raises:
            BucketError: some were not deleted; with the first of them.
        """
        for start in range(0, len(keys), _MAX_DELETED):
            wanted = [{"Key": key} for key in keys[start : start + _MAX_DELETED]]
            answer = self.client.delete_objects(Bucket=self.name, Delete={"Objects": wanted, "Quiet": True})
            if answer.get("Errors"):
                first = answer["Errors"][0]
                raise BucketError(f"{len(answer['Errors'])} objects were not deleted: {first['Key']}: {first['Code']}")

    def make_link(self, digest: str, *, name: str, content_type: str, seconds: int) -> str:
        """Make a link to an object that works without credentials, for a while; anybody who has it may read.

        Args:
            digest: of the object.
            name: of the file that a browser saves or shows.
            content_type: what a browser is told that it is.
            seconds: for how long; S3 allows a week, and no longer than the credentials that signed it live.
        """
        link: str = self.client.generate_presigned_url(
            "get_object",
            Params={
                "Bucket": self.name,
                "Key": self.locate(digest),
                "ResponseContentType": content_type,
                "ResponseContentDisposition": f'inline; filename="{name}"',
            },
            ExpiresIn=seconds,
        )
        return link


def open_bucket(remote: str, options: Mapping[str, Any]) -> Bucket:
    """Open the bucket of a DVC remote, by the remote's own options.

    Raises:
        BucketError: the remote is something else than a bucket.
    """
    address = urlsplit(str(options.get("url", "")))
    if address.scheme != "s3" or not address.netloc:
        raise BucketError(f"the DVC remote {remote} is at {options.get('url')!r}; expected s3://BUCKET/PREFIX")
    session = boto3.Session(profile_name=options.get("profile"), region_name=options.get("region"))
    client = session.client(
        "s3",
        endpoint_url=options.get("endpointurl"),
        verify=options.get("ssl_verify"),
        config=Config(signature_version="s3v4", retries={"mode": "standard", "max_attempts": 5}),
    )
    prefix = address.path.strip("/")
    return Bucket(address.netloc, f"{prefix}/" if prefix else "", client)


def check_bucket(bucket: Bucket) -> list[Finding]:
    """Look whether a bucket can be used, and whether it is safe to; no further than what nothing works without."""
    try:
        bucket.client.head_bucket(Bucket=bucket.name)
    except S3_FAULTS as error:
        return [Finding("reachable", False, True, f"s3://{bucket.name} cannot be reached: {error}")]
    found = [Finding("reachable", True, True, f"s3://{bucket.name} answers"), _check_writable(bucket)]
    return [*found, _check_versioned(bucket), _check_encrypted(bucket)] if found[-1].is_good else found


def build_rules(bucket: Bucket, *, keep_days: int, upload_days: int) -> list[dict[str, Any]]:
    """Build the lifecycle rules of a remote: what was deleted or overwritten goes after a while, and half uploads.

    Nothing that is current is ever removed by them.
    """
    return [
        {
            "ID": f"{_RULE} {bucket.prefix or '/'}",
            "Status": "Enabled",
            "Filter": {"Prefix": bucket.prefix},
            "NoncurrentVersionExpiration": {"NoncurrentDays": keep_days},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": upload_days},
            "Expiration": {"ExpiredObjectDeleteMarker": True},
        }
    ]


def read_rules(bucket: Bucket) -> list[dict[str, Any]]:
    """Read the bucket's lifecycle rules, those of others too."""
    try:
        rules: list[dict[str, Any]] = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchLifecycleConfiguration":
            return []
        raise
    return rules


def write_rules(bucket: Bucket, rules: Iterable[Mapping[str, Any]]) -> None:
    """Set rules beside those of others; S3 only takes all of them at once."""
    ours = {rule["ID"]: dict(rule) for rule in rules}
    others = [rule for rule in read_rules(bucket) if rule.get("ID") not in ours]
    bucket.client.put_bucket_lifecycle_configuration(
        Bucket=bucket.name, LifecycleConfiguration={"Rules": [*others, *ours.values()]}
    )


def _check_writable(bucket: Bucket) -> Finding:
    key, content = f"{bucket.prefix}flows-check-{secrets.token_hex(8)}", secrets.token_bytes(16)
    try:
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=content)
        same = bucket.read(key) == content
        bucket.client.delete_object(Bucket=bucket.name, Key=key)
    except S3_FAULTS as error:
        return Finding("writable", False, True, f"s3://{bucket.name}/{bucket.prefix} cannot be written: {error}")
    return Finding("writable", same, True, "takes, gives back and deletes" if same else "gives back something else")


def _check_versioned(bucket: Bucket) -> Finding:
    status = bucket.client.get_bucket_versioning(Bucket=bucket.name).get("Status", "never enabled")
    good = status == "Enabled"
    return Finding(
        "versioned", good, False, f"versioning is {status if good else f'{status}: what is deleted is gone'}"
    )


def _check_encrypted(bucket: Bucket) -> Finding:
    try:
        found = bucket.client.get_bucket_encryption(Bucket=bucket.name)["ServerSideEncryptionConfiguration"]["Rules"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ServerSideEncryptionConfigurationNotFoundError":
            raise
        found = []
    names = [rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] for rule in found]
    return Finding("encrypted", bool(names), False, f"encrypted by {', '.join(names)}" if names else "not encrypted")
