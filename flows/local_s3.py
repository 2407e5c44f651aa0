"""An S3 server on this machine, for trying things out: it takes any credentials, and forgets everything at its end."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3

_HOST = "127.0.0.1"
_START_S = 60.0
_POLL_S = 0.1


def serve(port: int, bucket: str) -> None:
    """Start it with one versioned and encrypted bucket, say how to use it, and stay until Ctrl-C."""
    address = f"http://{_HOST}:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "--host", _HOST, "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(server, address)
        make_bucket(address, bucket)
        sys.stdout.write(
            f"an S3 server with the bucket {bucket} listens at {address}, until Ctrl-C. In another terminal:\n"
            "  export AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any\n"
            f"  dvc remote add --local --default try s3://{bucket}/dvc\n"
            f"  dvc remote modify --local try endpointurl {address}\n"
            "  dvc push\n"
        )
        sys.stdout.flush()
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()


def make_bucket(address: str, name: str) -> None:
    """Make a bucket as it should be, versioned and encrypted, on a server that takes any credentials."""
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="any", aws_secret_access_key="any"
    )
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    client.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )


def _wait(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit(f"the S3 server ended with status {server.returncode}; is {address} taken? --port chooses another")
        try:
            with urllib.request.urlopen(f"{address}/moto-api/", timeout=_START_S):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    sys.exit(f"the S3 server at {address} did not answer in {_START_S:.0f} s")
