"""Validate a pool: the gate between cleaning and curation."""

from pathlib import Path

from cambrian.data.expectations import ValidationConfig
from cambrian.data.pool_validation import validate_pool
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Read params and check one clean pool."""
    args = parse_arguments(__doc__, name=str, pool=Path, clean=Path, benchmarks=Path, verdict=Path, report=Path)
    files = ParamsFiles()
    validate_pool(
        files.block("validation", ValidationConfig),
        name=args.name,
        samples_per_record=files.count("samples_per_record"),
        pool=args.pool,
        clean=args.clean,
        benchmarks=args.benchmarks,
        verdict=args.verdict,
        report=args.report,
    )


if __name__ == "__main__":
    run_stage(main)
