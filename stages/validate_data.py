"""Validate: the gate between a curated mix and training."""

from pathlib import Path

from cambrian.data.expectations import ValidationConfig
from cambrian.data.mixes import MixRow
from cambrian.data.validation import validate_mix
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Read params and check one mix."""
    args = parse_arguments(
        __doc__, mix=str, data=Path, pool=Path, benchmarks=Path, verdict=Path, leaked=Path, report=Path
    )
    files = ParamsFiles()
    validate_mix(
        files.block("validation", ValidationConfig),
        files.row("mixes", args.mix, MixRow),
        name=args.mix,
        samples_per_record=files.count("samples_per_record"),
        data=args.data,
        pool=args.pool,
        benchmarks=args.benchmarks,
        verdict=args.verdict,
        leaked=args.leaked,
        report=args.report,
    )


if __name__ == "__main__":
    run_stage(main)
