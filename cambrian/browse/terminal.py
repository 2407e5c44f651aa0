"""`cambrian data browse`: the records of a pool or a mix on a page of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.interfaces import ArtifactError, ParamsError

if TYPE_CHECKING:
    import argparse

    from cambrian.browse.tokens import TrainingView
    from cambrian.params import ParamsFiles

_KINDS = ("mixes", "clean", "pools")


@dataclass(frozen=True, slots=True)
class Place:
    """Where records lie, and whose they are."""

    folder: Path
    mix: str | None
    pool: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cambrian data`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    browse = actions.add_parser("browse", help="open a page: filter, look at pictures, conversations and tokens")
    browse.add_argument(
        "name",
        nargs="?",
        default="instruction",
        metavar="POOL_OR_MIX",
        help="a mix, a pool (its clean form, if there is one) or a folder (default: %(default)s)",
    )
    browse.add_argument("--data", type=Path, metavar="FOLDER", help="the scale's data (default: data/SCALE)")
    browse.add_argument("--pool", type=Path, metavar="FOLDER", help="where its pictures are (default: its pool)")
    browse.add_argument("--run", metavar="NAME", help="a run or adapter whose tokens are shown (default: the first)")
    browse.add_argument("--backbones", type=Path, metavar="FOLDER", help="default: models/SCALE/backbones")
    browse.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="of the page (default: %(default)s)")
    browse.add_argument("--port", type=int, default=8001, metavar="N", help="of the page (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Run `cambrian data browse` until Ctrl-C.

    Raises:
        ArtifactError: there are no such records.
        ParamsError: params.yaml is not here or has no such name.
    """
    from cambrian.browse.records import RecordBrowser
    from cambrian.browse.server import serve
    from cambrian.params import ParamsFiles

    files = ParamsFiles()
    data = arguments.data or Path("data") / files.scale
    place = find_place(files, data, arguments.name)
    pool = arguments.pool or data / "pools" / place.pool
    records = RecordBrowser(place.folder, pool if pool.is_dir() else None)
    view, fault = _try_view(files, place, arguments)
    serve(records, view, fault=fault, name=str(place.folder), host=arguments.host, port=arguments.port)


def find_place(files: ParamsFiles, data: Path, name: str) -> Place:
    """The folder of this name: a path, a mix, or a pool, clean rather than raw.

    Raises:
        ArtifactError: there is none.
    """
    mixes = files.rows("mixes")
    folders = [Path(name)] if Path(name).is_dir() else [data / kind / name for kind in _KINDS]
    for folder in folders:
        if folder.is_dir():
            mix = folder.name if folder.parent.name == "mixes" and folder.name in mixes else None
            return Place(folder, mix, mixes[mix]["pool"] if mix is not None else folder.name)
    raise ArtifactError(
        f"{name!r} is no folder, and {data} has no mix and no pool of this name: run `dvc repro`, or name one of "
        f"{', '.join(sorted(path.name for kind in _KINDS for path in (data / kind).glob('*') if path.is_dir())) or '-'}"
    )


def _try_view(files: ParamsFiles, place: Place, arguments: argparse.Namespace) -> tuple[TrainingView | None, str]:
    """How training encodes these records; without it, why the page shows no tokens."""
    from cambrian.browse.tokens import read_view

    backbones = arguments.backbones or Path("models") / files.scale / "backbones"
    try:
        return read_view(files, mix=place.mix, pool=place.pool, run=arguments.run, backbones=backbones), ""
    except (ArtifactError, ParamsError) as error:
        if arguments.run is not None:
            raise
        return None, str(error)
