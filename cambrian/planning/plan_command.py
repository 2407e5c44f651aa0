"""`cambrian plan`: every run of every scale rehearsed without its hardware, data or weights."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.interfaces import ParamsError
from cambrian.params import SCALES_DIR, ParamsFiles

if TYPE_CHECKING:
    import argparse

    from cambrian.planning.forecast import Forecast

EXPECTED_DIR = Path("tests/golden/plan")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("scales", nargs="*", metavar="SCALE", help="default: all of them")
    parser.add_argument("--expected", type=Path, default=EXPECTED_DIR, metavar="FOLDER", help="what was found before")
    parser.add_argument("--write", action="store_true", help="write what is found there instead of comparing with it")


def run(arguments: argparse.Namespace) -> None:
    """Rehearse every run: names, models on the meta device, optimizer groups, lengths, engines; compare with before.

    Raises:
        ParamsError: something in the params of a scale does not hold; all faults of its rows are named.
        ArtifactError: what is found is not what was expected.
    """
    scales: list[str] = arguments.scales or sorted(path.stem for path in SCALES_DIR.glob("*.yaml"))
    if not scales:
        raise ParamsError(f"{SCALES_DIR} holds no scale: run from the project's root")
    for scale in scales:
        _rehearse(scale, arguments.expected / f"{scale}.txt", write=arguments.write)


def _rehearse(scale: str, path: Path, *, write: bool) -> None:
    from cambrian.planning.expected import check_expected, list_facts, write_expected
    from cambrian.planning.experiment import read_experiment
    from cambrian.planning.forecast import Change, make_forecast

    started = time.monotonic()
    forecast = make_forecast(read_experiment(ParamsFiles(scale=scale)), Change())
    found = {name: value for phase in forecast.phases for name, value in list_facts(phase.facts).items()}
    if write:
        write_expected(path, found)
    else:
        check_expected(found, path)
    sys.stdout.write(_summarise(forecast, len(found), path, time.monotonic() - started, write=write))


def _summarise(forecast: Forecast, num_facts: int, path: Path, seconds: float, *, write: bool) -> str:
    models = {phase.facts.plan.model.model_dump_json() for phase in forecast.phases}
    largest = max(sum(phase.facts.model.parameters.values()) for phase in forecast.phases)
    tables = [phase.facts.plan.table for phase in forecast.phases]
    lines = [
        f"scale {forecast.scale}: {tables.count('adapters')} adapters, {tables.count('runs')} runs, {len(models)} "
        f"models up to {largest / 1e9:.3g} G parameters, {num_facts} facts "
        f"{'written to' if write else 'as in'} {path}, {seconds:.1f} s",
        *(f"warning: {warning}" for warning in [*forecast.warnings(), *forecast.excess()]),
    ]
    return "".join(f"{line}\n" for line in lines)
