"""Where a collected pool comes from, and what happens when a part of it is broken or gone: values of params."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from cambrian.params import Params

Policy = Literal["fail", "skip-and-record"]
"""Stop the stage with an error that names the fault, or leave the part out and write down why."""

Patterns = Annotated[tuple[str, ...], Field(strict=False)]
"""Shell patterns of file names; `*` also matches a slash."""


class HubPlace(Params):
    """Files of a dataset repository of the hub, or of a mirror that speaks its protocol."""

    kind: Literal["hub"]
    endpoint: str
    """Base address: https://huggingface.co or a mirror's."""
    repository: str
    revision: str
    """A commit, so that the same files come again: the hub's SHA-256 of each large file belongs to it."""


class HttpPlace(Params):
    """Files by their addresses."""

    kind: Literal["http"]
    urls: Annotated[tuple[str, ...], Field(strict=False)]
    """A file is named by the last part of its address's path."""


class S3Place(Params):
    """Objects of a bucket; credentials come from the environment, as boto3 finds them."""

    kind: Literal["s3"]
    bucket: str
    prefix: str
    """A file is named by what its key has beyond this."""
    endpoint: str | None
    """None for AWS."""


class FolderPlace(Params):
    """A folder of this machine; links in it are not followed."""

    kind: Literal["folder"]
    path: str


class UnknownPlace(Params):
    """A source whose location nobody has stated."""

    kind: Literal["unknown"]
    reason: str


Place = Annotated[HubPlace | HttpPlace | S3Place | FolderPlace | UnknownPlace, Field(discriminator="kind")]


class Columns(Params):
    """Which columns of a Parquet file hold a record, where they have other names than the record format's."""

    image: str | None
    """A column of encoded bytes, or of structs with `bytes`, as `datasets` writes images; None without pictures."""
    conversations: str | None
    """A column of lists of structs `from`, `value`; None where question and answer stand in columns of their own."""
    question: str | None
    answer: str | None


class Origin(Params):
    """Files that are fetched together: records, and the pictures that they name."""

    place: Place
    records: Patterns
    """Files of records: `.jsonl`, `.json` (one list) or `.parquet`, packed by gzip or not."""
    archives: Patterns
    """Archives of pictures: tar, tar.gz or zip, also in pieces NAME_part0, NAME_part1, ..."""
    images: Patterns
    """Pictures that lie there as single files."""
    image_prefix: str
    """Stands before the name of every picture of an archive or file, so that it is what the records call it."""
    source: str | None
    """Whose records these are; None where each record says it."""
    columns: Columns | None
    """None where no file is Parquet."""
    sha256: dict[str, str]
    """Checksums by file name; a file without an entry is checked against the hub's own, if it states one."""
    sha256_unknown: str
    """Why the other files have no checksum here; empty where every file has one."""
    licence: str
    when_gone: Policy
    """What to do when a file is not there any more or does not answer."""


class OwnSource(Params):
    """A source that the paper did not have."""

    category: str
    thousands: float
    """Thousands of samples, as `thousands` of the catalogue: what caps and ratios count with."""
    in_7m: bool
    """Whether mixes of the kept sources have it."""
    licence: str
    origin: Origin


class Limits(Params):
    """How much one collection may take of the machine and of a server's patience."""

    num_workers: PositiveInt
    """Files that are fetched at once."""
    max_waiting_bytes: PositiveInt
    """Fetched files that are not converted yet, and those on their way; a unit of work larger than this fails."""
    connect_timeout_s: PositiveFloat
    read_timeout_s: PositiveFloat
    """A server that sends nothing for so long has hung."""
    num_attempts: PositiveInt
    retry_wait_s: PositiveFloat
    """Before the second attempt; doubled before each further one. A server's Retry-After counts more."""
    max_line_bytes: PositiveInt
    max_members: PositiveInt
    """Of one archive."""
    max_member_bytes: PositiveInt
    max_unpacked_bytes: PositiveInt
    """Of one archive."""


class Policies(Params):
    """What happens to what is broken."""

    record: Policy
    """A line that is no record."""
    image: Policy
    """A member of an archive that is no picture's file: a link, a device, a path out of the folder, too large."""
    archive: Policy
    """An archive that ends in its middle or exceeds its limits; what was read before stays."""
    checksum: Policy
    """A file that is not the one that was pinned."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)]
    """Of all lines: beyond it the stage fails, whatever the policies say."""


class Target(Params):
    """Where a finished pool is also put."""

    bucket: str
    prefix: str
    endpoint: str | None


class CollectedPool(Params):
    """A pool that is fetched from where it is published."""

    kind: Literal["collected"]
    origins: Annotated[tuple[str, ...], Field(strict=False)]
    """Names of `origins` in the catalogue."""
    hub_endpoint: str | None
    """A mirror to take instead of the hub that an origin names."""
    own: dict[str, OwnSource]
    labels: dict[str, str]
    """What records call a source, where it is not the catalogue's name for it."""
    image_suffixes: Annotated[tuple[str, ...], Field(strict=False)]
    """Of members that are pictures, in lower case; others are left out by name."""
    shard_max_bytes: PositiveInt
    work_dir: str
    """Where fetched files wait: outside DVC's outputs, so that a killed run goes on from them."""
    limits: Limits
    policies: Policies
    copy_to: Target | None
