"""Describe: the data card of a clean pool."""

from pathlib import Path

from cambrian.data.card import CardConfig, describe_pool
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Read params and write the card of one pool."""
    args = parse_arguments(__doc__, pool=Path, clean=Path, output=Path)
    files = ParamsFiles()
    describe_pool(
        files.block("card", CardConfig),
        samples_per_record=files.count("samples_per_record"),
        pool=args.pool,
        clean=args.clean,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
