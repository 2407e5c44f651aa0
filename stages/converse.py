"""Converse: hold the dialogues of an analysis set with a run's model, and keep what it says."""

from __future__ import annotations

from pathlib import Path

from cambrian.chat.recorded import DialoguesConfig, hold_dialogues
from cambrian.params import ParamsFiles
from cambrian.runtime import RuntimeConfig, parse_arguments, run_stage


def main() -> None:
    """Hold the dialogues with one run's model."""
    args = parse_arguments(__doc__, run=str, model=Path, backbones=Path, dialogues=Path, output=Path)
    files = ParamsFiles()
    hold_dialogues(
        files.block("dialogues", DialoguesConfig),
        model=args.model,
        backbones=args.backbones,
        dialogues=args.dialogues,
        runtime=files.block("runtime", RuntimeConfig),
        run=args.run,
        scale=files.scale,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
