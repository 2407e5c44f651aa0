"""`cambrian convert`: a checkpoint of the release becomes a run and a language model of this project."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `cambrian convert`."""
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FOLDER", help="as it was downloaded")
    parser.add_argument(
        "--backbones", type=Path, required=True, metavar="FOLDER", help="has the encoders; the LLM is added there"
    )
    parser.add_argument(
        "--encoders", metavar="NAMES", help="their folders there, separated by commas (default: by the released names)"
    )
    parser.add_argument("--template", required=True, metavar="NAME", help="llama_3, vicuna_v1, chatml_direct or phi3")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="the run's folder, which is made")


def run(arguments: argparse.Namespace) -> None:
    """Run `cambrian convert`.

    Raises:
        ArtifactError: the checkpoint or an encoder cannot be used, see `unpack_checkpoint`.
        ParamsError: a name is unknown.
    """
    from cambrian.release.unpacking import released_encoder_names, unpack_checkpoint

    encoders = arguments.encoders.split(",") if arguments.encoders else released_encoder_names(arguments.checkpoint)
    unpack_checkpoint(
        arguments.checkpoint,
        arguments.output,
        backbones=arguments.backbones,
        encoders=encoders,
        template=arguments.template,
    )
    sys.stdout.write(f"{arguments.output} and {arguments.backbones / arguments.output.name} are ready\n")
