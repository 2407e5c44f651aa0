"""A run's blocks of params.yaml and of the scale's file, read strictly."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from cambrian.interfaces import ParamsError

if TYPE_CHECKING:
    from collections.abc import Mapping

PARAMS_PATH = Path("params.yaml")
SCALES_DIR = Path("scales")


class Params(pydantic.BaseModel):
    """A block of params: unknown keys refused, types not converted, no change after reading."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


P = TypeVar("P", bound=pydantic.BaseModel)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file the way DVC does (YAML 1.2: `1.0e-3` is a number).

    Raises:
        ParamsError: the file is missing, is not YAML or is not a mapping.
    """
    try:
        value = YAML(typ="safe", pure=False).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ParamsError(f"{path} is missing: run from the project's root") from error
    except MarkedYAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error.problem} at {error.problem_mark}") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(value, dict):
        raise ParamsError(f"{path} holds {type(value).__name__}, expected a mapping of names to values")
    return value


def look_up(table: Mapping[str, Any], name: str, *, where: str) -> Any:
    """Return the entry of this name.

    Raises:
        ParamsError: there is none; the message names the nearest name.
    """
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(table))}"
    raise ParamsError(f"{where}: unknown name {name!r}; {hint}")


def parse_block(kind: type[P], value: Any, *, where: str) -> P:
    """Validate one block against its class.

    Raises:
        ParamsError: with the dotted path, what was found and what was expected, one line per fault.
    """
    try:
        return kind.model_validate(value)
    except pydantic.ValidationError as error:
        faults = "; ".join(_describe_fault(kind, fault, where) for fault in error.errors(include_url=False))
        raise ParamsError(faults) from error


def _describe_fault(kind: type[pydantic.BaseModel], fault: Any, where: str) -> str:
    path = ".".join([where, *map(str, fault["loc"])])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), kind.model_fields, n=1)
        return f"{path}: unknown field{f', did you mean {near[0]!r}?' if near else ''}"
    if fault["type"] == "missing":
        return f"{path}: missing, and it has no default because it changes the result"
    return f"{path}: found {fault['input']!r}, {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _parse_int(value: Any, *, where: str) -> int:
    if type(value) is not int or value < 0:
        raise ParamsError(f"{where}: found {value!r}, expected a whole number of at least 0")
    return value


class ParamsFiles:
    """params.yaml and the file of its scale, each read once.

    `scale` looks at another scale than the one that params.yaml names, as a rehearsal of all of them does.
    """

    def __init__(self, root: Path = Path(), scale: str | None = None) -> None:
        self.params = read_yaml(root / PARAMS_PATH)
        self.scale: str = scale or look_up(self.params, "scale", where=str(PARAMS_PATH))
        self.scale_path = SCALES_DIR / f"{self.scale}.yaml"
        known = sorted(path.stem for path in (root / SCALES_DIR).glob("*.yaml"))
        if self.scale not in known:
            raise ParamsError(f"{PARAMS_PATH}: scale is {self.scale!r}, expected one of {', '.join(known)}")
        self.meanings = read_yaml(root / self.scale_path)

    @property
    def seed(self) -> int:
        """`seed` of params.yaml, which every generator is derived from."""
        return _parse_int(look_up(self.params, "seed", where=str(PARAMS_PATH)), where=f"{PARAMS_PATH}: seed")

    def count(self, name: str) -> int:
        """A whole number at the top of scales/<scale>.yaml (`samples_per_record`)."""
        value = look_up(self.meanings, name, where=str(self.scale_path))
        return _parse_int(value, where=f"{self.scale_path}: {name}")

    def row(self, table: str, name: str, kind: type[P]) -> P:
        """One row of a table of params.yaml (`runs`, `adapters`, `mixes`)."""
        rows = look_up(self.params, table, where=str(PARAMS_PATH))
        return parse_block(kind, look_up(rows, name, where=f"{PARAMS_PATH}: {table}"), where=f"{table}.{name}")

    def rows(self, table: str) -> dict[str, Any]:
        """All rows of a table of params.yaml as they stand, for the stages that show or count them."""
        rows: dict[str, Any] = look_up(self.params, table, where=str(PARAMS_PATH))
        return rows

    def meaning(self, table: str, name: str, kind: type[P]) -> P:
        """What a name means at this scale: one entry of a table of scales/<scale>.yaml."""
        where = f"{self.scale_path}: {table}"
        rows = look_up(self.meanings, table, where=str(self.scale_path))
        return parse_block(kind, look_up(rows, name, where=where), where=f"{where}.{name}")

    def block(self, name: str, kind: type[P]) -> P:
        """A block of scales/<scale>.yaml that is not a table (`runtime`)."""
        value = look_up(self.meanings, name, where=str(self.scale_path))
        return parse_block(kind, value, where=f"{self.scale_path}: {name}")
