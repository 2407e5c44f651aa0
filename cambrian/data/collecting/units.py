"""The files of an origin as units of work: a file of records, an archive with its pieces, the single pictures."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from cambrian.data.collecting.readers import GoneError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.collecting.config import Origin
    from cambrian.data.collecting.readers import RemoteFile

_WILD = re.compile(r"[*?\[]")
UnitKind = Literal["records", "archive", "images"]

_PIECE = re.compile(r"^(?P<whole>.+\.(?:tar|tar\.gz|tgz))[._]?part[_-]?(?P<piece>\d+|[a-z]+)$")


@dataclass(frozen=True, slots=True)
class Unit:
    """What is fetched and converted at once; a run that was killed goes on after the last finished one."""

    origin_name: str
    origin: Origin
    kind: UnitKind
    name: str
    files: tuple[RemoteFile, ...]

    @property
    def where(self) -> str:
        """What an error message calls it."""
        return f"{self.origin_name}: {self.name}"

    @property
    def checksums(self) -> list[str | None]:
        """What each file must be: by the origin's own row first, by the place's account otherwise."""
        return [self.origin.sha256.get(file.name, file.sha256) for file in self.files]

    @property
    def key(self) -> str:
        """A name for its folder; another one when a file's size or checksum is another."""
        facts = [(file.name, file.size, sha256) for file, sha256 in zip(self.files, self.checksums, strict=True)]
        text = repr((self.origin_name, self.origin.model_dump_json(), self.kind, self.name, facts))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plan_units(origin_name: str, origin: Origin, files: Sequence[RemoteFile]) -> tuple[list[Unit], list[GoneError]]:
    """The units of an origin, records first; and what is gone.

    A file that is named without wildcards must be there, and of each kind that has patterns at least one file.
    """
    units: list[Unit] = []
    gone: list[GoneError] = []
    chosen: dict[UnitKind, list[RemoteFile]] = {}
    patterns: dict[UnitKind, Sequence[str]] = {
        "records": origin.records,
        "archive": origin.archives,
        "images": origin.images,
    }
    for kind, names in patterns.items():
        chosen[kind] = [file for file in files if any(fnmatchcase(file.name, name) for name in names)]
        unmet = [name for name in names if not _WILD.search(name) and name not in {file.name for file in files}]
        if names and not chosen[kind]:
            unmet = list(names)
        gone += [GoneError(f"{origin_name} has no file {name!r} among its {len(files)}") for name in unmet]
    units += [Unit(origin_name, origin, "records", file.name, (file,)) for file in chosen["records"]]
    for name, pieces in _group_pieces(chosen["archive"]).items():
        gone += [GoneError(f"{origin_name}: piece {number} of {name} is not there") for number in _missing(pieces)]
        units.append(Unit(origin_name, origin, "archive", name, tuple(pieces)))
    if chosen["images"]:
        units.append(Unit(origin_name, origin, "images", "single pictures", tuple(chosen["images"])))
    return units, gone


def _group_pieces(files: Sequence[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Pieces of one archive in order: by number, or by letters as `split` gives them."""
    groups: dict[str, list[tuple[tuple[int, str], RemoteFile]]] = {}
    for file in files:
        match = _PIECE.match(file.name)
        piece = match["piece"] if match else ""
        groups.setdefault(match["whole"] if match else file.name, []).append(((len(piece), piece), file))
    return {name: [file for _, file in sorted(pieces, key=lambda pair: pair[0])] for name, pieces in groups.items()}


def _missing(pieces: Sequence[RemoteFile]) -> list[int]:
    """Numbers that are left out between the pieces; letters are not checked."""
    found = [match["piece"] for file in pieces if (match := _PIECE.match(file.name)) is not None]
    numbers = {int(piece) for piece in found if piece.isdecimal()}
    return sorted(set(range(min(numbers), max(numbers))) - numbers) if numbers else []
