"""Forecast: what every training will take, and whether the budget allows it, before anything is trained."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import ParamsFiles
from cambrian.planning.experiment import read_experiment
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Write the forecast, and the verdict that training waits for."""
    args = parse_arguments(__doc__, output=Path, verdict=Path)
    experiment = read_experiment(ParamsFiles())

    from cambrian.planning.forecast import Change, make_forecast  # after the params: importing torch takes seconds
    from cambrian.planning.report import write_forecast

    write_forecast(make_forecast(experiment, Change()), args.output, args.verdict)


if __name__ == "__main__":
    run_stage(main)
