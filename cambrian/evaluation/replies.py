"""replies.parquet: every raw reply with its credit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cambrian.evaluation.scoring import grade_replies
from cambrian.interfaces import ArtifactError, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.interfaces import Item

COLUMNS = ("item_id", "benchmark", "with_image", "reply", "correct")


def write_replies(path: Path, items: Mapping[str, Sequence[Item]], replies: Mapping[str, Sequence[Reply]]) -> None:
    """Write one row per reply: benchmark by benchmark, with the image first, in the items' order.

    `correct` is the credit, 0 to 1. The file appears whole or not at all.

    Raises:
        ArtifactError: an item has no reply or two, or the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    rows = [
        (item.id, name, with_image, text, credit)
        for name, members in items.items()
        for with_image in sorted({reply.with_image for reply in replies[name]}, reverse=True)
        for item, text, credit in zip(
            members,
            _texts(members, replies[name], with_image),
            grade_replies(members, replies[name], with_image=with_image),
            strict=True,
        )
    ]
    schema = pyarrow.schema(
        list(
            zip(
                COLUMNS,
                (pyarrow.string(), pyarrow.string(), pyarrow.bool_(), pyarrow.string(), pyarrow.float64()),
                strict=True,
            )
        )
    )
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in COLUMNS]
    table = pyarrow.table(dict(zip(COLUMNS, columns, strict=True)), schema=schema)
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, partial)
        os.replace(partial, path)
    except OSError as error:
        raise ArtifactError(f"{path} could not be written: {error}. Free space and run `dvc repro` again") from error
    finally:
        partial.unlink(missing_ok=True)


def read_replies(path: Path) -> dict[str, list[Reply]]:
    """The replies of each benchmark, without their credits, ready to be scored again.

    Raises:
        ArtifactError: the file is missing, or is not one of replies.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path).read()
        columns = {name: table.column(name).to_pylist() for name in COLUMNS}
    except (OSError, KeyError, pyarrow.ArrowInvalid) as error:
        raise ArtifactError(f"{path} is not a file of replies ({error}): run `dvc repro`") from error
    replies: dict[str, list[Reply]] = {}
    rows = zip(columns["benchmark"], columns["item_id"], columns["reply"], columns["with_image"], strict=True)
    for benchmark, item_id, text, with_image in rows:
        replies.setdefault(benchmark, []).append(Reply(item_id, text, with_image))
    return replies


def _texts(items: Sequence[Item], replies: Sequence[Reply], with_image: bool) -> list[str]:
    texts = {reply.item_id: reply.text for reply in replies if reply.with_image == with_image}
    return [texts[item.id] for item in items if item.id in texts]
