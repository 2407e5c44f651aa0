"""Run the targeted internet data engine (paper, section of that name), from a recording or with the network."""

from pathlib import Path

from cambrian.data.engine.config import EngineConfig
from cambrian.data.engine.run import run_engine
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Read params and run the engine."""
    args = parse_arguments(__doc__, recording=Path, output=Path)
    files = ParamsFiles()
    run_engine(files.block("engine", EngineConfig), recording=args.recording, output=args.output)


if __name__ == "__main__":
    run_stage(main)
