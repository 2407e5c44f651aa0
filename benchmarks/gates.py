"""The gate of a mix by Great Expectations, shard by shard, against the same checks in pandas over the whole mix.

    python -m benchmarks.gates [--records 1000000] [--output benchmarks/results/gates.json]

Each runs in a process of its own on one mix; both must reach the same verdict on every expectation. Ours also runs on a
quarter of the records, so that it shows whether memory grows with the data. Needs 3 GB of disk for a million records.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.curation import NUM_PROCESSES, measure_command
from benchmarks.pools import draw_picture, write_pool

GOALS = {"peak_mib": 4096, "memory_growth": 1.5}
"""At most; growth is the memory for all records over that for a quarter of them."""
NUM_TEST_PICTURES, NUM_LEAKED = 200, 50
SIDE = 16
MET_NAME = "met.json"


def make_mix(folder: Path, num_records: int) -> None:
    """A pool, the mix of all its usable records, and a benchmark some of whose pictures are in the pool."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cambrian.data.cleaning import CleaningConfig, clean_pool
    from cambrian.data.curation import curate_mix
    from cambrian.data.format_prompts import FormatPromptsConfig
    from cambrian.data.partitions import PartitionsConfig

    write_pool(folder / "pool", num_records, num_processes=NUM_PROCESSES)
    partitions = PartitionsConfig(kind="processes", num_processes=NUM_PROCESSES, chunk_bytes=2**25, bucket_bytes=2**28)
    cleaning = CleaningConfig(
        max_line_bytes=1_000_000, min_image_side=SIDE, hash_side=SIDE, max_duplicate_distance=0,
        fatal_reasons=[], max_lost_share=0.2,
    )  # fmt: skip
    clean_pool(cleaning, partitions, pool=folder / "pool", output=folder / "clean")
    curate_mix(
        make_row(), partitions, name="benchmark", samples_per_record=1, seed=0,
        format_prompts=FormatPromptsConfig(texts={}, choices_marker="( a )"), pool=folder / "clean",
        output=folder / "mix",
    )  # fmt: skip
    first = 10**6 - NUM_LEAKED  # beyond the pool's pictures
    numbers = [number if number < NUM_LEAKED else first + number for number in range(NUM_TEST_PICTURES)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": draw_picture(number), "path": ""} for number in numbers], kind)
    (folder / "benchmarks/GQA").mkdir(parents=True)
    pq.write_table(pa.table({"image": images}), folder / "benchmarks/GQA/test.parquet")


def make_row() -> Any:
    """The mix of everything."""
    from cambrian.data.mixes import MixRow, SelectEverything

    return MixRow(pool="instruction", select=SelectEverything(kind="everything"), format_prompts=False)


def make_config() -> Any:
    """What the mix must be; a pool of sentences by chance has answers that contradict each other."""
    from cambrian.data.expectations import ValidationConfig

    return ValidationConfig(
        max_turns=6, max_turn_characters=1000, min_image_side=SIDE, hash_side=SIDE, max_hash_distance=0,
        max_near_duplicate_share=0.0, max_contradicted_share=1.0, max_shortfall_share=0.0, max_missing_share=0.0,
        max_category_deviation=0.0, max_leaked_share=0.5,
    )  # fmt: skip


def run_ours(folder: Path) -> dict[str, bool]:
    """Validate the mix as the stage does; which expectations are met."""
    from cambrian.data.validation import validate_mix

    validate_mix(
        make_config(), make_row(), name="benchmark", samples_per_record=1, data=folder / "mix", pool=folder / "pool",
        benchmarks=folder / "benchmarks", verdict=folder / "verdict.json", leaked=folder / "leaked.parquet",
        report=folder / "report",
    )  # fmt: skip
    verdict = json.loads((folder / "verdict.json").read_text(encoding="utf-8"))
    return {outcome["name"]: outcome["success"] for outcome in verdict["expectations"]}


def run_plain(folder: Path) -> dict[str, bool]:
    """Which expectations are met by pandas, with the whole mix in memory."""
    from benchmarks.plain_gates import check

    return check(make_config(), folder)


def measure(what: str, folder: Path) -> dict[str, Any]:
    """Run one of the two in a new process; its seconds and memory, and which expectations it found met."""
    found = measure_command([sys.executable, "-m", "benchmarks.gates", "--run", what, "--folder", str(folder)])
    return found | {"met": json.loads((folder / MET_NAME).read_text(encoding="utf-8"))}


def run_and_report(what: str, folder: Path) -> None:
    """What the new process does: run, then write down what was found."""
    met = {"ours": run_ours, "plain": run_plain}[what](folder)
    (folder / MET_NAME).write_text(json.dumps(met), encoding="utf-8")


def compare(folder: Path, num_records: int) -> dict[str, Any]:
    """Time both on one mix, and ours on a quarter of it."""
    import pyarrow.parquet as pq

    make_mix(folder / "whole", num_records)
    make_mix(folder / "quarter", num_records // 4)
    samples = {what: measure(what, folder / "whole") for what in ("ours", "plain")}
    quarter = measure("ours", folder / "quarter")
    met = {what: sample.pop("met") for what, sample in samples.items()}
    assert met["ours"] == met["plain"], f"the verdicts differ: {met}"
    quarter.pop("met")
    num_checked = pq.ParquetFile(folder / "whole/mix/records.parquet").metadata.num_rows
    growth = samples["ours"]["peak_mib"] / quarter["peak_mib"]
    return {
        "name": "gates",
        "ratio": round(growth, 2),
        "goal": GOALS["memory_growth"],
        "records": num_checked,
        "cpu_s_per_million": round(samples["ours"]["cpu_s"] / num_checked * 1e6, 1),
        "peak_mib": samples["ours"]["peak_mib"],
        "time_over_pandas": round(samples["ours"]["cpu_s"] / samples["plain"]["cpu_s"], 2),
        "memory_over_pandas": round(samples["ours"]["peak_mib"] / samples["plain"]["peak_mib"], 2),
        "expectations": len(met["ours"]),
        "meets": growth <= GOALS["memory_growth"] and samples["ours"]["peak_mib"] <= GOALS["peak_mib"],
        "samples": samples | {"ours, a quarter": quarter},
    }


def main() -> None:
    """Measure, print one JSON object, and write it where `--output` says."""
    parser = argparse.ArgumentParser(description="The gate of a mix.", allow_abbrev=False)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the mixes are made for a while")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--run", choices=["ours", "plain"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_and_report(args.run, args.folder)
        return
    from benchmarks.machine import describe_machine

    with tempfile.TemporaryDirectory(prefix="gates-", dir=args.folder) as name:
        result = compare(Path(name), args.records)
    command = " ".join(["python -m benchmarks.gates", *sys.argv[1:]])
    result |= {"goals": GOALS, "machine": describe_machine("cpu"), "command": command}
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
