"""The `cambrian` command: what a person runs by hand, beside the pipeline."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from cambrian.interfaces import ArtifactError, ParamsError, RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand; its module has `add_arguments(parser)` and `run(arguments)`, and is imported when asked for."""

    module: str
    summary: str


COMMANDS = {
    "chat": Command("cambrian.chat.terminal", "ask a model about a picture, in the terminal or on a page"),
    "cvbench": Command("cambrian.data.cvbench.terminal", "CV-Bench from annotations, with a review between two steps"),
    "compare": Command("cambrian.evaluation.compare", "what changed between two runs beyond noise, and on which items"),
    "forecast": Command(
        "cambrian.planning.forecast_command", "what every training of a scale will take, before it runs"
    ),
    "plan": Command("cambrian.planning.plan_command", "rehearse every run of every scale without its hardware"),
    "data": Command("cambrian.browse.terminal", "look at the records of a pool or a mix, kept and dropped"),
    "evaluate": Command("cambrian.evaluation.foreign", "a model of transformers on the benchmarks, beside the runs"),
    "export": Command("cambrian.evaluation.export", "a run's replies in the formats of other evaluation programs"),
    "regrade": Command("cambrian.evaluation.regrade", "stored replies by the paper's rules, strict ones and a judge"),
    "convert": Command("cambrian.release.terminal", "bring a checkpoint of the release into this project's folders"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand.

    A foreseen fault (a missing file, a broken checkpoint or picture, a question that the model cannot be asked) ends
    the process with status 2 and one line, as a wrong argument does; Ctrl-C ends it with 130; anything else is a bug
    and keeps its traceback.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(prog="cambrian", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name, help=command.summary, description=f"{command.summary[0].upper()}{command.summary[1:]}."
        )
        if argv[:1] == [name]:
            chosen = import_module(command.module)
            chosen.add_arguments(subparser)
    arguments = parser.parse_args(argv)
    try:
        chosen.run(arguments)
    except (ParamsError, ArtifactError, RecordError) as error:
        raise SystemExit(_report(error)) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _report(error: Exception) -> int:
    line = " ".join(str(error).split())
    sys.stderr.write(f"cambrian: {line}\n")
    return 2


if __name__ == "__main__":
    main()
