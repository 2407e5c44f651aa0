"""Curate: select one mix from a clean pool (paper, sections on data balancing, data ratio and data curation)."""

from pathlib import Path

from cambrian.data.curation import curate_mix
from cambrian.data.format_prompts import FormatPromptsConfig
from cambrian.data.mixes import MixRow
from cambrian.data.partitions import PartitionsConfig
from cambrian.params import ParamsFiles
from cambrian.runtime import parse_arguments, run_stage


def main() -> None:
    """Read params and select one mix."""
    args = parse_arguments(__doc__, mix=str, pool=Path, output=Path)
    files = ParamsFiles()
    curate_mix(
        files.row("mixes", args.mix, MixRow),
        files.block("partitions", PartitionsConfig),
        name=args.mix,
        samples_per_record=files.count("samples_per_record"),
        seed=files.seed,
        format_prompts=files.block("format_prompts", FormatPromptsConfig),
        pool=args.pool,
        output=args.output,
    )


if __name__ == "__main__":
    run_stage(main)
