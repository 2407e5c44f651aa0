"""Result files of words and numbers (verdicts, findings), and which of their rows changed between two revisions.

Which files these are, and what their columns mean, stands in [tool.flows.compare] of pyproject.toml.
"""

from __future__ import annotations

import csv
import json
import math
import posixpath
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from io import StringIO
from typing import TYPE_CHECKING, Any

from flows.causes import list_files, read_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flows.settings import Compared

NOISE_LIMIT = 2.0
"""A difference of so many standard errors is no longer called noise."""


class ResultFileError(ValueError):
    """A result file that lacks what pyproject.toml says that it has."""


@dataclass(frozen=True, slots=True)
class Result:
    """One row: what was found, in a word and, where there is one, by a number."""

    word: str
    number: float | None
    standard_error: float | None
    group: str
    sources: tuple[str, ...]
    """The files that it was made of."""


@dataclass(frozen=True, slots=True)
class ResultChange:
    """A row whose word or number is not what it was."""

    key: str
    old: Result
    new: Result

    @property
    def is_reversed(self) -> bool:
        """Whether the word is another one."""
        return self.old.word != self.new.word

    @property
    def num_errors(self) -> float | None:
        """By how many standard errors of the difference the number moved; None where that is not known."""
        return count_errors(self.old.number, self.new.number, (self.old.standard_error, self.new.standard_error))

    @property
    def is_noise(self) -> bool:
        """Whether the number moved by less than a difference that means something."""
        return self.num_errors is not None and self.num_errors < NOISE_LIMIT


@dataclass(frozen=True, slots=True)
class ResultFile:
    """A file at two revisions."""

    path: str
    title: str
    counts_before: Mapping[str, int]
    """How many rows had each word."""
    counts_after: Mapping[str, int]
    changes: tuple[ResultChange, ...]
    num_new: int
    """Rows that were not there, and rows that are gone."""
    num_gone: int
    group_sizes: Mapping[str, int]

    @property
    def reversed(self) -> list[ResultChange]:
        """The rows whose word is another one; those that moved most come first."""
        return sorted(
            (change for change in self.changes if change.is_reversed), key=lambda change: -(change.num_errors or 0.0)
        )

    @property
    def groups(self) -> dict[str, list[ResultChange]]:
        """The changes by the group of their rows, where rows have one."""
        found: dict[str, list[ResultChange]] = {}
        for change in self.changes:
            if change.new.group:
                found.setdefault(change.new.group, []).append(change)
        return found


def count_errors(old: float | None, new: float | None, errors: Sequence[float | None]) -> float | None:
    """By how many standard errors of the difference two numbers differ; None where an error is not known, or zero."""
    known = [error for error in errors if error is not None]
    if old is None or new is None or len(known) < len(errors) or not math.hypot(*known):
        return None
    return abs(new - old) / math.hypot(*known)


def compare_results(root: Path, before: str, after: str | None, compared: Sequence[Compared]) -> list[ResultFile]:
    """Compare the result files of two revisions that lie in both, or in one; `after` is None for the workspace.

    Raises:
        RevisionError: git does not know a revision.
        ResultFileError: as `read_results`.
    """
    there = {before: list_files(root, before), after: list_files(root, after)}
    files = []
    for kind in compared:
        paths = dict.fromkeys(path for paths in there.values() for path in paths if fnmatchcase(path, kind.pattern))
        for path in sorted(paths):
            old, new = (
                read_results(path, (path in there[revision] and read_file(root, revision, path)) or None, kind)
                for revision in (before, after)
            )
            files.append(_compare_file(path, kind.title, old, new))
    return files


def read_results(path: str, text: str | None, kind: Compared) -> dict[str, Result]:
    """Read the rows of a file by their keys; none where there is no file.

    Raises:
        ResultFileError: it is no list of rows, or has not the columns that it should have.
    """
    if text is None:
        return {}
    rows: dict[str, Result] = {}
    for number, row in enumerate(_list_rows(path, text, kind), start=1):
        if missing := [name for name in (*kind.keys, kind.word) if name not in row]:
            raise ResultFileError(
                f"{path}, row {number}: no {', '.join(missing)}; it has {', '.join(map(str, row))}. "
                "Mend [tool.flows.compare] of pyproject.toml, which says what there should be"
            )
        key = " / ".join(str(row[name]) for name in kind.keys)
        while key in rows:
            key += "'"  # the paper prints some rows twice
        rows[key] = Result(
            word=str(row[kind.word]),
            number=_read_number(row.get(kind.number)),
            standard_error=_read_number(row.get(kind.noise)),
            group=str(row.get(kind.group, "")),
            sources=_list_sources(path, row, kind.source),
        )
    return rows


def count_words(results: Mapping[str, Result]) -> dict[str, int]:
    """How many rows have each word, in the order of the words."""
    return dict(sorted(Counter(result.word for result in results.values()).items()))


def _compare_file(path: str, title: str, old: Mapping[str, Result], new: Mapping[str, Result]) -> ResultFile:
    changes = [
        ResultChange(key, old[key], result)
        for key, result in new.items()
        if key in old and (old[key].word, old[key].number) != (result.word, result.number)
    ]
    return ResultFile(
        path=path,
        title=title,
        counts_before=count_words(old),
        counts_after=count_words(new),
        changes=tuple(changes),
        num_new=len(new.keys() - old.keys()),
        num_gone=len(old.keys() - new.keys()),
        group_sizes=Counter(result.group for result in new.values()),
    )


def _list_rows(path: str, text: str, kind: Compared) -> list[dict[str, Any]]:
    if path.endswith(".csv"):
        return list(csv.DictReader(StringIO(text)))
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise ResultFileError(f"{path} is not JSON: {error}. Run the stage again that makes it") from error
    if kind.rows:
        rows = rows.get(kind.rows) if isinstance(rows, dict) else None
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise ResultFileError(
            f"{path}: {kind.rows or 'the file'} is no list of rows. Mend [tool.flows.compare] of pyproject.toml, which "
            "says where they are"
        )
    return rows


def _list_sources(path: str, row: Mapping[str, Any], template: str) -> tuple[str, ...]:
    """Fill `../runs/{run}/scores.json` with a row's values, once for each of them where a value is a list."""
    if not template:
        return (path,)
    name = template.partition("{")[2].partition("}")[0]
    values = row.get(name) or ()
    filled = [
        template.replace(f"{{{name}}}", str(value)) for value in ([values] if isinstance(values, str) else values)
    ]
    folder = posixpath.dirname(path)
    return tuple(posixpath.normpath(posixpath.join(folder, part)) for part in filled) or (path,)


def _read_number(value: Any) -> float | None:
    try:
        number = math.nan if value is None or isinstance(value, (bool, list, dict)) else float(value)
    except ValueError:  # a text, such as the name of a language model
        return None
    return None if math.isnan(number) else number  # which would differ from itself
