"""Collect: make or fetch one pool of raw data."""

from pathlib import Path

from cambrian.data.sources import PoolConfig, collect_pool
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Read params and collect one pool."""
    args = parse_arguments(__doc__, pool=str, output=Path)
    files = ParamsFiles()
    collect_pool(
        args.pool,
        files.meaning("pools", args.pool, PoolConfig),
        samples_per_record=files.count("samples_per_record"),
        seed=files.seed,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
