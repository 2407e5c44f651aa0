"""`cambrian forecast`: what every training of a scale will take, before anything runs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from cambrian.params import ParamsFiles

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--scale", help="default: the one that params.yaml names")
    parser.add_argument("--devices", type=int, metavar="N", help="instead of the scale's")
    parser.add_argument("--zero-stage", type=int, choices=range(4), help="instead of the scale's")
    parser.add_argument("--micro-batch-size", type=int, metavar="N", help="instead of the recipes'")
    parser.add_argument("--json", action="store_true", help="the whole forecast instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Print the forecast, with a warning for every phase that does not fit and for a budget that would not hold.

    Raises:
        ParamsError: a name, a value or a model in the params does not hold.
    """
    from cambrian.planning.experiment import read_experiment
    from cambrian.planning.forecast import Change, make_forecast
    from cambrian.planning.report import forecast_to_json, print_forecast

    experiment = read_experiment(ParamsFiles(scale=arguments.scale))
    change = Change(arguments.devices, arguments.zero_stage, arguments.micro_batch_size)
    forecast = make_forecast(experiment, change)
    if arguments.json:
        sys.stdout.write(json.dumps(forecast_to_json(forecast), indent=1) + "\n")
    else:
        print_forecast(forecast)
