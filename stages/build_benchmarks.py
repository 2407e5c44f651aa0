"""Build benchmarks: the sixteen test sets of the generated world."""

from __future__ import annotations

from pathlib import Path

from cambrian.data.world.benchmarks import BenchmarksConfig, build_benchmarks
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Build all benchmarks."""
    args = parse_arguments(__doc__, output=Path)
    files = ParamsFiles()
    build_benchmarks(
        files.block("benchmarks", BenchmarksConfig),
        seed=files.seed,
        split="test",
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
