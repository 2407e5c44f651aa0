"""What a rehearsal found, as lines of one fact each, compared with the lines that were found before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.planning.rehearsal import PhaseFacts

_NUM_SHOWN = 12
_PLACES = 6
"""Significant digits of what is estimated; parameters, records and steps are exact."""


def list_facts(facts: PhaseFacts) -> dict[str, str]:
    """Name everything about a phase that must not change by accident."""
    found: dict[str, str] = {}
    for part, count in facts.model.parameters.items():
        found[f"parameters {part}"] = str(count)
    for part, count in facts.trained.items():
        found[f"trained {part}"] = str(count)
    for group in facts.groups:
        found[f"group {group.optimizer} {group.name}"] = (
            f"{group.parameters} rate {group.rate:g} decay {group.weight_decay:g}"
        )
    found["image positions"] = str(facts.model.num_image_positions)
    found["records"] = str(facts.plan.num_records)
    found["steps"] = str(facts.steps)
    found["batch"] = f"{facts.plan.recipe.global_batch_size} in parts of {facts.plan.recipe.micro_batch_size}"
    found["engine"] = facts.engine
    found["tokens"] = f"{facts.amount.tokens:.{_PLACES}g}"
    found["flops"] = f"{facts.flops:.{_PLACES}g}"
    return {f"{facts.plan.key} {name}": value for name, value in found.items()}


def write_expected(path: Path, facts: Mapping[str, str]) -> None:
    """Write one fact a line, by name.

    Raises:
        ArtifactError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}: {value}\n" for name, value in facts.items()), encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{path} could not be written: {error}") from error


def read_expected(path: Path) -> dict[str, str]:
    """Read what `write_expected` wrote.

    Raises:
        ArtifactError: the file is missing, or a line of it is no fact.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path} is missing: `cambrian plan --write` makes it; look at it, then commit it"
        ) from error
    wrong = [line for line in lines if ": " not in line]
    if wrong:
        raise ArtifactError(
            f"{path}: {wrong[0]!r} is no fact, expected `name: value`: make it with `cambrian plan --write`"
        )
    return dict(line.split(": ", 1) for line in lines)


def compare(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Say what differs, one line each."""
    names = [*expected, *(name for name in found if name not in expected)]
    return [
        f"{name}: expected {expected.get(name, 'nothing')}, found {found.get(name, 'nothing')}"
        for name in names
        if expected.get(name) != found.get(name)
    ]


def check_expected(found: Mapping[str, str], path: Path) -> None:
    """Compare with a committed file.

    Raises:
        ArtifactError: names what differs and how the file is made again.
    """
    differences = compare(found, read_expected(path))
    if differences:
        more = f"; and {len(differences) - _NUM_SHOWN} more" if len(differences) > _NUM_SHOWN else ""
        raise ArtifactError(
            f"{len(differences)} facts are not those of {path}: {_join(differences)}{more}. If they are meant to "
            "change, make the file again with `cambrian plan --write` and look at its difference"
        )


def _join(differences: Sequence[str]) -> str:
    return "; ".join(differences[:_NUM_SHOWN])
