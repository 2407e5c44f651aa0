"""Clean: drop what cannot be used from a pool, with the reason for every record."""

from pathlib import Path

from cambrian.data.cleaning import CleaningConfig, clean_pool
from cambrian.data.partitions import PartitionsConfig
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Read params and clean one pool."""
    args = parse_arguments(__doc__, pool=Path, output=Path)
    files = ParamsFiles()
    clean_pool(
        files.block("cleaning", CleaningConfig),
        files.block("partitions", PartitionsConfig),
        pool=args.pool,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
