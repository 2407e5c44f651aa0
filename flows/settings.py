"""The block [tool.flows] of pyproject.toml: what the graph itself does not say."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Mapping

_LISTS = ("table_artifacts", "image_artifacts", "link_artifacts")
_NEEDS = ("cpus", "memory_gib", "gpus", "limit_s")
_PATHS = ("difference_file", "actual_file")
_COMPARED = ("title", "keys", "word", "number", "noise", "group", "source", "rows")


class SettingsError(ValueError):
    """A value of [tool.flows], or of a stage's `meta: flows:`, that cannot be used."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a stage takes of a machine while it runs."""

    cpus: int
    """Slots, of which a machine has as many as it has processors."""
    memory_gib: float
    gpus: int | None
    """Whole devices: with 0 it sees none. None when nobody said: it sees what the run sees, without a lease."""
    limit_s: float | None
    """The stage is ended when it runs longer."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Files of results of which two revisions are compared row by row, and what their columns mean."""

    pattern: str
    title: str
    keys: tuple[str, ...]
    """Columns that together name a row."""
    word: str
    """Column with what was found, in a word."""
    number: str = ""
    """Column with the number behind the word, and that with its standard error; empty where there is none."""
    noise: str = ""
    group: str = ""
    """Column by which changes are counted."""
    source: str = ""
    """The file that a row was made of, from the folder of this one, with a column in braces; empty for this file."""
    rows: str = ""
    """Name of the list of rows in a JSON file; empty where the file is the list."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The block as it was read."""

    table_artifacts: tuple[str, ...]
    """Glob patterns of the CSV files that the UI shows."""
    image_artifacts: tuple[str, ...]
    link_artifacts: tuple[str, ...]
    """Of the files to which the UI links, in the bucket of the DVC remote."""
    noise_metric: str
    """What metrics files call the standard error of the numbers beside it."""
    needs: tuple[tuple[str, dict[str, Any]], ...]
    """Patterns of stage addresses (`train@*`, with or without the `folder/dvc.yaml:` of another folder) with what these
    stages need, in the order of the file.
    """
    compare: tuple[Compared, ...] = ()
    """Result files, in the order in which a difference shows them."""
    difference_file: str = ""
    """Where `python -m flows diff --write` and `python -m flows.timings --write` write, for a report; names in braces
    are top-level values of params.yaml. Empty where nobody reads it.
    """
    actual_file: str = ""

    def find_needs(self, address: str, *, meta: Any, params: Mapping[str, Any]) -> Needs:
        """Join what a stage needs: the patterns that fit it, a later one over an earlier, and its own `meta: flows:`.

        A text instead of a number is the name of a value among `params`, those that the stage tracks. Without a word
        about it, a stage takes one processor and no memory to speak of, for as long as it likes.

        Raises:
            SettingsError: an unknown key, a value that is no number, or the name of a value that it does not track.
        """
        found: dict[str, Any] = {}
        for pattern, needs in self.needs:
            if fnmatchcase(address, pattern) or fnmatchcase(address.rpartition(":")[2], pattern):
                found |= needs
        if isinstance(meta, dict) and "flows" in meta:
            found |= _check_needs(meta["flows"], where=f"dvc.yaml: {address}: meta.flows")
        for name, value in found.items():
            if isinstance(value, str):
                read = _read_param(value, params, address)
                if isinstance(read, str):
                    raise SettingsError(f"{address}: {value}, as its {name}, is {read!r}; expected a number")
                found |= _check_needs({name: read}, where=f"{address}: {value} as")
        return Needs(
            cpus=found.get("cpus", 1),
            memory_gib=float(found.get("memory_gib", 0)),
            gpus=found.get("gpus"),
            limit_s=found.get("limit_s"),
        )


def read_settings(pyproject: Path) -> Settings:
    """Read [tool.flows]; nothing is set when the file or the block is missing.

    Raises:
        SettingsError: an unknown key or a value of the wrong kind, with its dotted name.
    """
    block = (
        tomllib.loads(pyproject.read_text(encoding="utf-8")).get("tool", {}).get("flows", {})
        if pyproject.exists()
        else {}
    )
    for key, value in block.items():
        if key in _LISTS:
            if not (isinstance(value, list) and all(isinstance(pattern, str) for pattern in value)):
                raise SettingsError(f"{pyproject}: tool.flows.{key} is {value!r}; expected a list of glob patterns")
        elif key in ("noise_metric", *_PATHS):
            if not isinstance(value, str):
                raise SettingsError(f"{pyproject}: tool.flows.{key} is {value!r}; expected a name")
        elif key not in ("needs", "compare"):
            known = ", ".join((*_LISTS, "noise_metric", *_PATHS, "compare"))
            raise SettingsError(f"{pyproject}: tool.flows.{key} is unknown; expected {known} or needs")
    compare = block.get("compare", {})
    if not isinstance(compare, dict):
        raise SettingsError(f"{pyproject}: tool.flows.compare is {compare!r}; expected a table of file patterns")
    needs = block.get("needs", {})
    if not isinstance(needs, dict):
        raise SettingsError(f"{pyproject}: tool.flows.needs is {needs!r}; expected a table of stage = needs")
    return Settings(
        table_artifacts=tuple(block.get("table_artifacts", ())),
        image_artifacts=tuple(block.get("image_artifacts", ())),
        link_artifacts=tuple(block.get("link_artifacts", ())),
        noise_metric=block.get("noise_metric", "standard_error"),
        compare=tuple(
            _read_compared(pattern, value, where=f"{pyproject}: tool.flows.compare.{pattern}")
            for pattern, value in compare.items()
        ),
        difference_file=block.get("difference_file", ""),
        actual_file=block.get("actual_file", ""),
        needs=tuple(
            (pattern, _check_needs(value, where=f"{pyproject}: tool.flows.needs.{pattern}"))
            for pattern, value in needs.items()
        ),
    )


def fill_path(template: str, params: Path) -> Path:
    """Put top-level values of params.yaml into `results/{scale}/actual.json`.

    Raises:
        SettingsError: the file has no such value.
    """
    values = YAML(typ="safe").load(params) or {} if params.exists() else {}
    try:
        return Path(template.format_map(values))
    except KeyError as error:
        raise SettingsError(
            f"{template} of [tool.flows] names {error}, which is no top-level value of {params}"
        ) from None
    except ValueError as error:
        raise SettingsError(f"{template} of [tool.flows] is no path with names in braces: {error}") from None


def _read_compared(pattern: str, value: Any, *, where: str) -> Compared:
    if not isinstance(value, dict) or not {"title", "keys", "word"} <= value.keys() <= set(_COMPARED):
        raise SettingsError(
            f"{where} is {value!r}; expected title, keys and word, and of {', '.join(_COMPARED)} what is there"
        )
    for name, part in value.items():
        is_good = isinstance(part, list) and all(isinstance(key, str) for key in part)
        if not (is_good if name == "keys" else isinstance(part, str)):
            raise SettingsError(
                f"{where}.{name} is {part!r}; expected {'a list of columns' if name == 'keys' else 'a text'}"
            )
    return Compared(pattern, **{**value, "keys": tuple(value["keys"])})


def _read_param(wanted: str, params: Mapping[str, Any], address: str) -> Any:
    """Find `runtime.threads` among tracked values, which may hold it as a part of `scales/mini.yaml:runtime`."""
    for key, value in params.items():
        name = key.rpartition(":")[2]
        if wanted == name:
            return value
        if wanted.startswith(f"{name}."):
            for part in wanted.removeprefix(f"{name}.").split("."):
                if not (isinstance(value, dict) and part in value):
                    break
                value = value[part]
            else:
                return value
    raise SettingsError(f"{address} is to need as much as its param {wanted!r} says, which it does not track")


def _check_needs(needs: Any, *, where: str) -> dict[str, Any]:
    if not isinstance(needs, dict):
        raise SettingsError(f"{where} is {needs!r}; expected a table of {', '.join(_NEEDS)}")
    for name, value in needs.items():
        if name not in _NEEDS:
            raise SettingsError(f"{where}.{name} is unknown; expected {', '.join(_NEEDS)}")
        if isinstance(value, str):
            continue  # the name of a param
        whole = name in ("cpus", "gpus")
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value < 0:
            raise SettingsError(f"{where}.{name} is {value!r}; expected a {'whole ' if whole else ''}number from 0 on")
    return dict(needs)
