"""replies.parquet: every raw reply with its credit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from cambrian.evaluation.scoring import find_texts, grade_replies
from cambrian.interfaces import ArtifactError, Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow

    from cambrian.interfaces import Item

COLUMNS = ("item_id", "benchmark", "with_image", "reply", "correct")


def write_replies(path: Path, items: Mapping[str, Sequence[Item]], replies: Mapping[str, Sequence[Reply]]) -> None:
    """Write one row per reply: benchmark by benchmark, with the image first, in the items' order.

    `correct` is the credit, 0 to 1. The file appears whole or not at all.

    Raises:
        ArtifactError: an item has no reply or two, or the file cannot be written.
    """
    import pyarrow.parquet

    rows = [
        (item.id, name, with_image, text, credit)
        for name, members in items.items()
        for with_image in sorted({reply.with_image for reply in replies[name]}, reverse=True)
        for item, text, credit in zip(
            members,
            find_texts(members, replies[name], with_image=with_image),
            grade_replies(members, replies[name], with_image=with_image),
            strict=True,
        )
    ]
    table = _make_table(rows)
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


def _make_table(rows: Sequence[tuple[str, str, bool, str, float]]) -> pyarrow.Table:
    """The rows under the names of COLUMNS.

    The columns are made from their bytes: `pyarrow.array` imports pandas to ask whether a list is one of its series,
    which costs an evaluation 0.3 CPU-seconds.
    """
    import pyarrow

    item_ids, benchmarks, with_image, texts, credits_ = zip(*rows, strict=True) if rows else ((),) * len(COLUMNS)
    bits = np.packbits(np.array(with_image, np.bool_), bitorder="little")
    columns = [
        _make_text_column(item_ids),
        _make_text_column(benchmarks),
        pyarrow.Array.from_buffers(pyarrow.bool_(), len(rows), [None, pyarrow.py_buffer(bits)]),
        _make_text_column(texts),
        pyarrow.Array.from_buffers(
            pyarrow.float64(), len(rows), [None, pyarrow.py_buffer(np.array(credits_, np.float64))]
        ),
    ]
    return pyarrow.Table.from_arrays(columns, names=list(COLUMNS))


def _make_text_column(texts: Sequence[str]) -> pyarrow.StringArray:
    import pyarrow

    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pyarrow.StringArray.from_buffers(len(encoded), pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(encoded)))
