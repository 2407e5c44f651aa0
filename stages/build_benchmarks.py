"""Build benchmarks: the test sets, drawn from the generated world or taken as published."""

from __future__ import annotations

from pathlib import Path

from cambrian.data.benchmark_sets import BenchmarksBlock, write_benchmarks
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Build all benchmarks."""
    args = parse_arguments(__doc__, output=Path)
    files = ParamsFiles()
    write_benchmarks(files.block("benchmarks", BenchmarksBlock), seed=files.seed, output=args.output)


if __name__ == "__main__":
    run_stage(main)
