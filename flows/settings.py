"""The block [tool.flows] of pyproject.toml: what the graph itself does not say."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LISTS = ("table_artifacts", "image_artifacts", "link_artifacts")
_NEEDS = ("cpus", "memory_gib", "gpus", "limit_s")


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
        elif key == "noise_metric":
            if not isinstance(value, str):
                raise SettingsError(f"{pyproject}: tool.flows.noise_metric is {value!r}; expected a name")
        elif key != "needs":
            known = ", ".join((*_LISTS, "noise_metric"))
            raise SettingsError(f"{pyproject}: tool.flows.{key} is unknown; expected {known} or needs")
    needs = block.get("needs", {})
    if not isinstance(needs, dict):
        raise SettingsError(f"{pyproject}: tool.flows.needs is {needs!r}; expected a table of stage = needs")
    return Settings(
        table_artifacts=tuple(block.get("table_artifacts", ())),
        image_artifacts=tuple(block.get("image_artifacts", ())),
        link_artifacts=tuple(block.get("link_artifacts", ())),
        noise_metric=block.get("noise_metric", "standard_error"),
        needs=tuple(
            (pattern, _check_needs(value, where=f"{pyproject}: tool.flows.needs.{pattern}"))
            for pattern, value in needs.items()
        ),
    )


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
