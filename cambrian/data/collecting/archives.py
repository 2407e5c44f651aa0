"""Members of archives that nobody vouches for: regular files inside the folder, within limits, or a reason why not."""

from __future__ import annotations

import gzip
import lzma
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cambrian.data.collecting.config import Limits

_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_CHUNK_BYTES = 1 << 20
_BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive: its data, or the fault for which it has none."""

    name: str
    data: bytes | None
    fault: RecordError | None


class ArchiveError(RecordError):
    """An archive of which no more can be read; the members before it are good."""


class _Joined:
    """Files read one after another as one, counting what was read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)
        self._file: BinaryIO | None = None

    def read(self, size: int = -1) -> bytes:
        parts: list[bytes] = []
        wanted = size
        while wanted != 0:
            if self._file is None:
                if not self._paths:
                    break
                self._file = self._paths.pop(0).open("rb")
            data = self._file.read(wanted if wanted > 0 else _CHUNK_BYTES)
            if not data:
                self._file.close()
                self._file = None
                continue
            parts.append(data)
            if wanted > 0:
                wanted -= len(data)
        return b"".join(parts)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._paths, self._file = [], None


class _Counted:
    """A stream that remembers how many bytes it gave."""

    def __init__(self, stream: _Joined | gzip.GzipFile) -> None:
        self._stream = stream
        self.num_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.num_bytes += len(data)
        return data


def iter_members(paths: Sequence[Path], limits: Limits) -> Iterator[Member]:
    """Yield the regular files of an archive in its order; what is refused is yielded with its reason.

    `paths` are the pieces of one archive in order. Nothing is written and no link is followed. Folders are passed
    over in silence. Refused are `link`, `special-file`, `unsafe-path` (by the reader of names), `member-too-large`,
    `encrypted-member`, `unknown-compression`.

    Raises:
        ArchiveError: `truncated-archive`, `not-an-archive`, `too-many-members`, `unpacked-too-large`.
    """
    with paths[0].open("rb") as file:
        magic = file.read(4)
    try:
        if magic in _ZIP_MAGICS:
            yield from _within_limits(_iter_zip(paths, limits), limits)
        else:
            yield from _within_limits(_iter_tar(paths, magic.startswith(_GZIP_MAGIC), limits), limits)
    except _BROKEN as error:
        raise ArchiveError("truncated-archive", f"{paths[0].name} cannot be read on: {error}") from error


def _within_limits(members: Iterator[Member], limits: Limits) -> Iterator[Member]:
    num_bytes = 0
    for number, member in enumerate(members, start=1):
        if number > limits.max_members:
            raise ArchiveError("too-many-members", f"more than limits.max_members ({limits.max_members}) members")
        num_bytes += len(member.data or b"")
        if num_bytes > limits.max_unpacked_bytes:
            raise ArchiveError(
                "unpacked-too-large",
                f"more than limits.max_unpacked_bytes ({limits.max_unpacked_bytes}) when unpacked, at {member.name!r}",
            )
        yield member


def _iter_tar(paths: Sequence[Path], is_packed: bool, limits: Limits) -> Iterator[Member]:
    joined = _Joined(paths)
    try:
        stream = _Counted(gzip.GzipFile(fileobj=cast("BinaryIO", joined)) if is_packed else joined)
        try:
            tar = tarfile.open(fileobj=cast("BinaryIO", stream), mode="r|")  # noqa: SIM115
        except tarfile.ReadError as error:
            raise ArchiveError("not-an-archive", f"{paths[0].name} is neither tar nor zip: {error}") from error
        with tar:
            for info in tar:
                if not info.isdir():
                    yield _read_tar_member(tar, info, limits)
                # It would remember all of them, for links, which are refused.
                tar.members.clear()  # type: ignore[attr-defined]
            end = tar.offset
        # tarfile takes the file's end for the archive's; a whole archive has a block of zeros there.
        while stream.read(_CHUNK_BYTES):
            pass
        if stream.num_bytes < end + tarfile.BLOCKSIZE:
            raise ArchiveError("truncated-archive", f"{paths[0].name} ends without an end-of-archive mark")
    finally:
        joined.close()


def _read_tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, limits: Limits) -> Member:
    if info.issym() or info.islnk():
        return _refuse(info.name, "link", f"is a link to {info.linkname!r}")
    if not info.isreg():
        return _refuse(info.name, "special-file", "is a device or a pipe")
    if info.size > limits.max_member_bytes:
        return _refuse_size(info.name, info.size, limits)
    file = tar.extractfile(info)
    assert file is not None
    data = file.read()
    if len(data) != info.size:
        raise ArchiveError("truncated-archive", f"ends within {info.name!r} ({len(data)} of {info.size} bytes)")
    return Member(info.name, data, None)


def _iter_zip(paths: Sequence[Path], limits: Limits) -> Iterator[Member]:
    if len(paths) > 1:
        raise ArchiveError("not-an-archive", f"{paths[0].name}: a zip in {len(paths)} pieces cannot be read")
    with zipfile.ZipFile(paths[0]) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            mode = info.external_attr >> 16
            if stat.S_IFMT(mode) == stat.S_IFLNK:
                yield _refuse(info.filename, "link", "is a link")
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                yield _refuse(info.filename, "special-file", "is a device or a pipe")
            elif info.flag_bits & 1:
                yield _refuse(info.filename, "encrypted-member", "is encrypted")
            elif info.file_size > limits.max_member_bytes:
                yield _refuse_size(info.filename, info.file_size, limits)
            else:
                yield _read_zip_member(archive, info)


def _read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    try:
        with archive.open(info) as file:  # never more than the directory says: a bomb's header lies
            return Member(info.filename, file.read(info.file_size), None)
    except NotImplementedError as error:  # as Deflate64, which Windows takes for large files
        return _refuse(info.filename, "unknown-compression", f"cannot be unpacked: {error}")


def _refuse(name: str, reason: str, what: str) -> Member:
    return Member(name, None, RecordError(reason, f"{name!r} {what}"))


def _refuse_size(name: str, size: int, limits: Limits) -> Member:
    return _refuse(
        name, "member-too-large", f"has {size} bytes, limits.max_member_bytes allows {limits.max_member_bytes}"
    )
