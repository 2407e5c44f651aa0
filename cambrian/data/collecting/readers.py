"""What a place has: its files, with all that is known of each, and a way to read each from any byte on."""

from __future__ import annotations

from collections import Counter
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_never
from urllib.parse import unquote, urlsplit

from cambrian.data.collecting.config import FolderPlace, HttpPlace, HubPlace, S3Place, UnknownPlace
from cambrian.interfaces import ParamsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    import httpx2

    from cambrian.data.collecting.config import Limits, Place

_CHUNK_BYTES = 1 << 20
_NOT_THERE = (401, 403, 404, 410)
_RANGE_NOT_SATISFIABLE = 416


class GoneError(Exception):
    """A file or a place that is not there, or not for us: asking again does not help."""


class UnansweredError(Exception):
    """A server that hangs, breaks off, is busy or fails: asking again may help."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoSuchRangeError(UnansweredError):
    """A server that has no bytes from where we want to go on."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that is being read."""

    start: int
    """The byte that comes first: 0 where the server does not go on from the middle."""
    version: str
    """What the server calls this state of the file (its ETag); empty where it says nothing."""
    chunks: Iterator[bytes]


class Opener(Protocol):
    """Opens a file at a byte."""

    def __call__(self, start: int) -> AbstractContextManager[Opened]:
        """Read from `start` on, if the server can."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a place."""

    name: str
    size: int | None
    """Bytes; None where the place does not say."""
    sha256: str | None
    """By the place's own account."""
    where: str
    """What an error message calls it."""
    open: Opener | None
    path: Path | None
    """The file itself where it lies on this machine; such a file is read where it is and never removed."""


def list_files(place: Place, limits: Limits, *, hub_endpoint: str | None) -> list[RemoteFile]:
    """All files of a place, in the order of their names.

    Raises:
        GoneError: the place is not there.
        UnansweredError: it does not answer.
        ParamsError: two addresses end in the same name.
    """
    match place:
        case HubPlace():
            found = _list_hub(place, limits, hub_endpoint or place.endpoint)
        case HttpPlace():
            found = [_describe_url(url, limits) for url in place.urls]
        case S3Place():
            found = _list_s3(place, limits)
        case FolderPlace():
            found = _list_folder(Path(place.path))
        case UnknownPlace():
            raise GoneError(f"where it is, is not known: {place.reason}")
        case _:
            assert_never(place)
    names = Counter(file.name for file in found)
    if twice := [name for name, count in names.items() if count > 1]:
        raise ParamsError(f"two of an origin's addresses end in {twice[0]!r}: give each an origin of its own")
    return sorted(found, key=lambda file: file.name)


def _list_hub(place: HubPlace, limits: Limits, endpoint: str) -> list[RemoteFile]:
    import httpx2
    from huggingface_hub import HfApi, get_token, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import RepoFile

    where = f"{endpoint}/datasets/{place.repository}@{place.revision}"
    try:
        entries = list(
            HfApi(endpoint=endpoint).list_repo_tree(
                place.repository, recursive=True, revision=place.revision, repo_type="dataset"
            )
        )
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in _NOT_THERE:
            raise GoneError(f"{where}: {str(error).splitlines()[0]}") from error
        raise UnansweredError(f"{where}: {str(error).splitlines()[0]}") from error
    except httpx2.HTTPError as error:
        raise UnansweredError(f"{where}: {type(error).__name__} {error}") from error
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    files = []
    for entry in entries:
        if isinstance(entry, RepoFile):
            url = hf_hub_url(
                place.repository, entry.path, repo_type="dataset", revision=place.revision, endpoint=endpoint
            )
            sha256 = entry.lfs.sha256 if entry.lfs is not None else None
            opener = http_opener(url, limits, headers)
            files.append(RemoteFile(entry.path, entry.size, sha256, f"{where}/{entry.path}", opener, None))
    return files


def _describe_url(url: str, limits: Limits) -> RemoteFile:
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2] or "index"
    return RemoteFile(name, None, None, url, http_opener(url, limits, {}), None)


def http_opener(url: str, limits: Limits, headers: Mapping[str, str]) -> Opener:
    """Opens an address; a redirect to another host does not get the `Authorization` header."""
    import httpx2

    timeout = httpx2.Timeout(limits.read_timeout_s, connect=limits.connect_timeout_s)
    client = _http_client()

    @contextmanager
    def open_at(start: int) -> Iterator[Opened]:
        # A packed transfer would have other bytes than the file, and no ranges.
        wanted = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
        try:
            with client.stream("GET", url, headers=wanted, timeout=timeout, follow_redirects=True) as response:
                _check_status(url, response.status_code, response.headers)
                begins = start if response.status_code == httpx2.codes.PARTIAL_CONTENT else 0
                yield Opened(begins, response.headers.get("etag", ""), response.iter_raw())
        except httpx2.TimeoutException as error:
            raise UnansweredError(f"{url} hangs ({type(error).__name__})") from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UnansweredError(f"{url}: {type(error).__name__} {error}") from error

    return open_at


@cache
def _http_client() -> httpx2.Client:
    """One for the process: reading the certificates takes longer than a small file. Threads may share it."""
    import httpx2

    return httpx2.Client()


def _check_status(url: str, status: int, headers: Mapping[str, str]) -> None:
    if status in _NOT_THERE:
        raise GoneError(f"{url}: the server answers {status}")
    if status == _RANGE_NOT_SATISFIABLE:
        raise NoSuchRangeError(f"{url}: the file is no longer than what was fetched of it")
    if not 200 <= status < 300:
        retry_after = headers.get("retry-after", "")
        seconds = float(retry_after) if retry_after.isdecimal() else None
        raise UnansweredError(f"{url}: the server answers {status}", seconds)


def _list_s3(place: S3Place, limits: Limits) -> list[RemoteFile]:
    client = s3_client(place.endpoint, limits)
    where = f"s3://{place.bucket}/{place.prefix}"
    with _s3_errors(where):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.bucket, Prefix=place.prefix)
        objects = [entry for page in pages for entry in page.get("Contents", [])]
    if not objects:
        raise GoneError(f"{where} has no objects")
    return [
        RemoteFile(
            entry["Key"][len(place.prefix) :].lstrip("/"),
            entry["Size"],
            None,
            f"s3://{place.bucket}/{entry['Key']}",
            _s3_opener(client, place.bucket, entry["Key"]),
            None,
        )
        for entry in objects
        if not entry["Key"].endswith("/")
    ]


def s3_client(endpoint: str | None, limits: Limits) -> Any:
    """A client that hangs no longer than the limits say."""
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=limits.connect_timeout_s,
        read_timeout=limits.read_timeout_s,
        retries={"total_max_attempts": 1},
    )
    return boto3.client("s3", endpoint_url=endpoint, config=config)


def _s3_opener(client: Any, bucket: str, key: str) -> Opener:
    @contextmanager
    def open_at(start: int) -> Iterator[Opened]:
        with _s3_errors(f"s3://{bucket}/{key}"):
            extra = {"Range": f"bytes={start}-"} if start else {}
            answer = client.get_object(Bucket=bucket, Key=key, **extra)
            with closing(answer["Body"]) as body:
                yield Opened(start, answer["ETag"], body.iter_chunks(_CHUNK_BYTES))

    return open_at


@contextmanager
def _s3_errors(where: str) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status in _NOT_THERE:
            raise GoneError(f"{where}: {error}") from error
        if status == _RANGE_NOT_SATISFIABLE:
            raise NoSuchRangeError(f"{where}: {error}") from error
        raise UnansweredError(f"{where}: {error}") from error
    except BotoCoreError as error:
        raise UnansweredError(f"{where}: {error}") from error


def _list_folder(folder: Path) -> list[RemoteFile]:
    if not folder.is_dir():
        raise GoneError(f"{folder} is not a folder of this machine")
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    root = folder.resolve()
    return [
        RemoteFile(path.relative_to(folder).as_posix(), path.stat().st_size, None, str(path), None, path)
        for path in paths
        if path.resolve().is_relative_to(root)  # not through a linked folder
    ]
