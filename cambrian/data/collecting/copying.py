"""A finished pool, also in a bucket: what lies there already is not sent again, and the manifest comes last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian.artifacts import MANIFEST_NAME, read_manifest
from cambrian.data.collecting.readers import s3_client
from cambrian.interfaces import ArtifactError
from cambrian.runtime import iter_progress

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.data.collecting.config import Limits, Target


def copy_folder(folder: Path, target: Target, limits: Limits) -> int:
    """Put a finished folder's files under the prefix; returns how many were sent.

    A reader that finds the manifest there finds every file that it names.

    Raises:
        ArtifactError: the bucket cannot be written.
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(target.endpoint, limits)
    files = {name: facts["sha256"] for name, facts in read_manifest(folder)["files"].items()}
    num_sent = 0
    try:
        for name, sha256 in iter_progress(files.items(), total=len(files), what="copying to the bucket"):
            key = f"{target.prefix}/{name}"
            if _stored_sha256(client, target.bucket, key) != sha256:
                client.upload_file(str(folder / name), target.bucket, key, ExtraArgs={"Metadata": {"sha256": sha256}})
                num_sent += 1
        client.upload_file(str(folder / MANIFEST_NAME), target.bucket, f"{target.prefix}/{MANIFEST_NAME}")
    except (ClientError, BotoCoreError, S3UploadFailedError) as error:
        raise ArtifactError(
            f"s3://{target.bucket}/{target.prefix} cannot be written: {error}. Mend copy_to or the credentials and run "
            "again; what was sent stays"
        ) from error
    return num_sent


def _stored_sha256(client: Any, bucket: str, key: str) -> str | None:
    """The checksum with which an object was stored; None where there is no such object."""
    from botocore.exceptions import ClientError

    try:
        sha256: str | None = client.head_object(Bucket=bucket, Key=key)["Metadata"].get("sha256")
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        raise
    return sha256
