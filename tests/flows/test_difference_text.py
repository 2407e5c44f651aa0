from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flows.difference import Difference, MetricChange, compare_revisions
from flows.difference_text import MAX_CHARACTERS, write_markdown
from flows.result_files import Result, ResultChange, ResultFile
from flows.settings import read_settings
from tests.flows.test_difference import commit

if TYPE_CHECKING:
    from tests.flows.conftest import DemoProject


@pytest.fixture
def nothing(project: DemoProject) -> Difference:
    """A commit against itself."""
    (project.root / "readme").write_text("x")
    commit(project.root)
    return compare_revisions(project.root, "HEAD", "HEAD", read_settings(project.root / "pyproject.toml"))


def reverse(nothing: Difference, keys: list[str], *, num_files: int = 1) -> Difference:
    """Give rows of these keys another word, in so many files."""
    old, new = (Result(word, 1.0, 0.1, group="", sources=()) for word in ("agrees", "differs"))
    changes = tuple(ResultChange(key, old, new) for key in keys)
    names = [f"{number}.csv" for number in range(num_files)]
    files = (ResultFile(name, name, {"agrees": 9}, {"agrees": 8}, changes, 0, 0, {}) for name in names)
    causes = {f"{name}: {key}": () for name in names for key in keys}
    return replace(nothing, results=tuple(files), causes=causes)


def test_a_long_text_of_several_lines_is_one_short_cell(nothing: Difference) -> None:
    key = f"one\ntwo | {'x' * 70_000} | three"
    (row,) = [line for line in write_markdown(reverse(nothing, [key]), {}).splitlines() if "agrees -> differs" in line]
    assert row.startswith("| one two \\| xxx")
    assert " ... xxx" in row
    assert "xxx \\| three | agrees -> differs |" in row
    assert len(row) < 300


def test_a_table_shows_fifty_rows_and_counts_the_others(nothing: Difference) -> None:
    text = write_markdown(reverse(nothing, [f"row {number}" for number in range(70)]), {})
    assert text.count("agrees -> differs") == 50
    assert "\nand 20 more\n" in text


def test_much_that_changed_still_goes_into_a_pull_request(nothing: Difference) -> None:
    keys = [f"{number} {'x' * 100}" for number in range(50)]
    few, many = (write_markdown(reverse(nothing, keys, num_files=number), {}) for number in (1, 20))
    assert "more lines" not in few
    assert MAX_CHARACTERS - 300 < len(many) < MAX_CHARACTERS + 100
    assert many.endswith(" more lines\n")


def test_a_new_run_does_not_hide_what_changed_in_others(nothing: Difference) -> None:
    moved = MetricChange("old/scores.json: average", 40.0, 30.0, 1.0)
    single = MetricChange("other/scores.json: added", None, 5.0, None)
    new = [MetricChange(f"new/scores.json: score {number}", None, 50.0, None) for number in range(6)]
    gone = [MetricChange(f"gone/scores.json: score {number}", 50.0, None, None) for number in range(7)]
    scores = (*new, *gone, moved, single)
    text = write_markdown(replace(nothing, scores=scores, causes={change.name: () for change in scores}), {})
    assert "`old/scores.json: average`" in text
    assert "`other/scores.json: added`" in text
    assert "score 3" not in text
    assert "Numbers that are new: 6 of `new/scores.json`\n" in text
    assert "Numbers that are gone: 7 of `gone/scores.json`\n" in text
