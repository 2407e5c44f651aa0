from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.parquet

from cambrian.evaluation.replies import COLUMNS, read_replies, write_replies
from cambrian.interfaces import Item, Reply

if TYPE_CHECKING:
    from pathlib import Path


def item(name: str) -> Item:
    return Item(
        id=f"GQA/{name}", benchmark="GQA", question="what colour ?", choices=(), answers=("red",), category="",
        group=name, image=None,
    )  # fmt: skip


ITEMS = {"GQA": [item("first"), item("zweites, größer"), item("third")]}
TEXTS = ["red", "", "赤い 🎈\nred", "Red.", "x" * 500, "blue"]
REPLIES = {
    "GQA": [
        Reply(one.id, text, with_image)
        for (with_image, one), text in zip(
            ((mode, one) for mode in (False, True) for one in ITEMS["GQA"]), TEXTS, strict=True
        )
    ]
}


def test_replies_in_every_alphabet_come_back_as_they_were(tmp_path: Path) -> None:
    write_replies(tmp_path / "replies.parquet", ITEMS, REPLIES)
    read = read_replies(tmp_path / "replies.parquet")["GQA"]
    assert sorted(read, key=lambda one: (one.item_id, one.with_image)) == sorted(
        REPLIES["GQA"], key=lambda one: (one.item_id, one.with_image)
    )


def test_the_file_is_what_pyarrow_writes_from_lists(tmp_path: Path) -> None:
    write_replies(tmp_path / "replies.parquet", ITEMS, REPLIES)
    texts = {(one.item_id, one.with_image): one.text for one in REPLIES["GQA"]}
    rows = [(one.id, "GQA", mode, texts[one.id, mode]) for mode in (True, False) for one in ITEMS["GQA"]]
    columns = [*(list(column) for column in zip(*rows, strict=True)), [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    kinds = (pyarrow.string(), pyarrow.string(), pyarrow.bool_(), pyarrow.string(), pyarrow.float64())
    arrays = [pyarrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(arrays, names=list(COLUMNS)), tmp_path / "expected.parquet")
    assert (tmp_path / "replies.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


def test_no_item_gives_a_file_without_rows(tmp_path: Path) -> None:
    write_replies(tmp_path / "replies.parquet", {}, {})
    assert read_replies(tmp_path / "replies.parquet") == {}


def test_writing_replies_imports_no_pandas(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.evaluation.test_replies import ITEMS, REPLIES; "
        f"from cambrian.evaluation.replies import write_replies; write_replies(Path({str(tmp_path / 'r')!r}), ITEMS, "
        "REPLIES); sys.exit('pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
