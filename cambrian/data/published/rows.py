"""Rows of a published data set, with every picture as its encoded file."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.data.published.config import UNKNOWN, FilesLayout, HubDataSet, JoinedLayout, TableLayout
from cambrian.interfaces import ArtifactError, ParamsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cambrian.data.published.config import FolderDataSet, PublishedSet

Row = dict[str, Any]


def iter_rows(chosen: PublishedSet, *, where: str) -> Iterator[Row]:
    """Yield a data set's rows in its own order, each with exactly the columns of `chosen.fields`.

    A picture is a mapping of `bytes` and `path`, as Parquet files of the hub hold it, and is not decoded.

    Raises:
        ParamsError: the revision is not known.
        ArtifactError: the data set cannot be fetched or read, has other columns, or lacks a picture that it names.
    """
    if isinstance(chosen.source, HubDataSet) and chosen.source.revision == UNKNOWN:
        repository = chosen.source.repository
        raise ParamsError(
            f"{where}.source.revision is {UNKNOWN}: look up the commit to evaluate on at "
            f"https://huggingface.co/datasets/{repository}/commits/main and write its id there, or name a folder"
        )
    match chosen.layout:
        case TableLayout(configurations=names, split=split):
            for name in names:
                yield from _iter_table(chosen, name, split, chosen.fields)
        case JoinedLayout() as layout:
            yield from _iter_joined(chosen, layout)
        case FilesLayout() as layout:
            yield from _iter_files(chosen, layout)


def _iter_table(chosen: PublishedSet, name: str, split: str, columns: list[str]) -> Iterator[Row]:
    """Stream one configuration: only the files of the split are read, and only the columns asked for."""
    import datasets
    from huggingface_hub.errors import HfHubHTTPError

    source = chosen.source
    what = _describe(source)
    try:
        if isinstance(source, HubDataSet):
            table = datasets.load_dataset(
                source.repository, name, split=split, revision=source.revision, streaming=True
            )
        else:
            table = datasets.load_dataset(source.path, name, split=split, streaming=True)
        table = table if table.column_names else table._resolve_features()
        _check_columns(columns, table.column_names, f"{what}, {name}, {split}")
        table = table.select_columns(columns).decode(False)
        for row in table:
            yield {column: _with_bytes(value) for column, value in row.items()}
    except (HfHubHTTPError, OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ArtifactError(
            f"{what}, {name}, {split} cannot be read ({error}): check the name, the revision and the network, or put "
            "the data set into a folder and name that"
        ) from error


def _iter_joined(chosen: PublishedSet, layout: JoinedLayout) -> Iterator[Row]:
    pictures = {
        row[layout.picture_key]: row["image"]
        for row in _iter_table(chosen, layout.pictures, layout.split, [layout.picture_key, "image"])
    }
    columns = list(dict.fromkeys([*(field for field in chosen.fields if field != "image"), layout.row_key]))
    for row in _iter_table(chosen, layout.rows, layout.split, columns):
        key = row[layout.row_key]
        if key not in pictures:
            raise ArtifactError(f"{_describe(chosen.source)}: a row names the picture {key!r}, which is not there")
        joined = {**row, "image": pictures[key]}
        yield {field: joined[field] for field in chosen.fields}


def _iter_files(chosen: PublishedSet, layout: FilesLayout) -> Iterator[Row]:
    folder = _fetch(chosen, layout)
    rows = [
        {layout.renamed.get(name, name): value for name, value in row.items()}
        for row in _read_table(folder / layout.table)
    ]
    what = f"{_describe(chosen.source)}, {layout.table}"
    packed = _read_archive(folder / layout.archive) if layout.archive is not None else None
    for number, row in enumerate(rows):
        _check_columns([field for field in chosen.fields if field != layout.picture_column], list(row), what)
        try:
            name = layout.picture.format(**row)
        except KeyError as error:
            raise ArtifactError(f"{what}, row {number}: no column {error} to find its picture by") from error
        if packed is not None:
            data = packed.get(name)
        else:
            path = folder / name
            data = path.read_bytes() if path.is_file() else None
        if data is None:
            raise ArtifactError(
                f"{what}, row {number}: no picture {name} in {layout.archive or folder}: fetch it again"
            )
        complete = {**row, layout.picture_column: {"bytes": data, "path": name}}
        yield {field: complete[field] for field in chosen.fields}


def _fetch(chosen: PublishedSet, layout: FilesLayout) -> Path:
    """A local folder with the layout's files; a hub's files are downloaded once into its cache."""
    source = chosen.source
    if not isinstance(source, HubDataSet):
        if not Path(source.path).is_dir():
            raise ArtifactError(f"{source.path} is not a folder: put the data set there or name another source")
        return Path(source.path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    pictures = layout.archive or _glob(layout.picture)
    try:
        return Path(
            snapshot_download(
                source.repository,
                repo_type="dataset",
                revision=source.revision,
                allow_patterns=[layout.table, pictures],
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ArtifactError(
            f"{_describe(source)} cannot be fetched ({error}): check the network, the name and the revision"
        ) from error


def _glob(layout: str) -> str:
    """The pattern of every file that a layout can name."""
    from string import Formatter

    return "".join(text + ("*" if field is not None else "") for text, field, _, _ in Formatter().parse(layout))


def _read_table(path: Path) -> list[Row]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        match path.suffix:
            case ".csv":
                rows: Any = list(csv.DictReader(io.StringIO(text, newline="")))  # a quoted field may have lines
            case ".jsonl":
                rows = [json.loads(line) for line in text.split("\n") if line.strip()]
            case _:
                rows = json.loads(text)
    except (OSError, ValueError, csv.Error) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): fetch the data set again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ArtifactError(f"{path} holds no list of rows: it is not the file that the layout describes")
    return rows


def _read_archive(path: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(path) as archive:
            files = [(member.name.removeprefix("./"), archive.extractfile(member)) for member in archive]
            return {name: file.read() for name, file in files if file is not None}
    except (OSError, tarfile.TarError) as error:
        raise ArtifactError(f"{path} is no whole tar file ({error}): fetch the data set again") from error


def _check_columns(wanted: list[str], found: list[str], what: str) -> None:
    missing = [column for column in wanted if column not in found]
    if missing:
        raise ArtifactError(
            f"{what} has no column {', '.join(missing)} (it has {', '.join(found)}): the data set changed its fields; "
            "name the revision that has them, or change `fields` and the benchmark's reader together"
        )


def _with_bytes(value: Any) -> Any:
    """The value with its picture's file read in, where it only has a path; lists likewise."""
    if isinstance(value, list):
        return [_with_bytes(entry) for entry in value]
    if isinstance(value, dict) and set(value) == {"bytes", "path"}:
        if value["bytes"] is None and value["path"]:
            import fsspec

            with fsspec.open(value["path"], "rb") as file:
                value = {**value, "bytes": file.read()}
        name = value["path"]
        return {"bytes": value["bytes"], "path": name.rsplit("/", 1)[-1] if name else None}
    return value


def _describe(source: HubDataSet | FolderDataSet) -> str:
    return f"{source.repository} at {source.revision[:12]}" if isinstance(source, HubDataSet) else source.path
