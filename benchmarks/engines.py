"""Curation by this project's passes against DuckDB and Daft on one pool: checks, duplicates, cap, ratio, order.

    make setup-engines    # the two are in no set-up: Daft asks for an older tqdm than the lock has
    python -m benchmarks.engines [--records 1000000] [--output benchmarks/results/engines.json]

Times all in turn, each in a process of its own, and holds that they select the same records in the same order. What
counts is the processor's time; the clock's and the memory stand beside it. Needs 3 GB of disk for each million records.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.curation import HASH_SIDE, MIN_SIDE, NUM_PROCESSES, SEED, make_select, measure_command, run_ours
from benchmarks.other_engines import curate_with_daft, curate_with_duckdb, read_mix
from benchmarks.pools import write_pool

REPEATS = 2
ENGINES = {"duckdb": curate_with_duckdb, "daft": curate_with_daft}
GOAL = 1.0
"""The fastest other engine's seconds over ours: an engine that serves better is one to use."""
SETTINGS = {"num_processes": NUM_PROCESSES, "seed": SEED, "hash_side": HASH_SIDE, "min_side": MIN_SIDE}


def run(what: str, pool: Path, num_records: int, work: Path) -> None:
    """Curate the pool with one of them."""
    work.mkdir(parents=True, exist_ok=True)
    if what == "ours":
        run_ours(pool, num_records, work)
    else:
        ENGINES[what](pool, work / "mix.parquet", make_select(num_records), SETTINGS)


def compare(folder: Path, num_records: int) -> dict[str, Any]:
    """Time all in turn on one pool, and check that they give the same mix."""
    pool = folder / "pool"
    write_pool(pool, num_records, num_processes=NUM_PROCESSES)
    samples: dict[str, list[dict[str, float]]] = {what: [] for what in ("ours", *ENGINES)}
    for _ in range(REPEATS):
        for what, found in samples.items():
            arguments = ["--run", what, "--folder", str(folder), "--records", str(num_records)]
            found.append(measure_command([sys.executable, "-m", "benchmarks.engines", *arguments]))
    ours = read_mix(folder / "ours/mix/records.parquet")
    for what in ENGINES:
        assert read_mix(folder / what / "mix.parquet").equals(ours), f"{what} selects other records"
    medians = {
        what: {name: statistics.median(sample[name] for sample in found) for name in found[0]}
        for what, found in samples.items()
    }
    ratios = {what: medians[what]["cpu_s"] / medians["ours"]["cpu_s"] for what in ENGINES}
    return {
        "name": "engines",
        "ratio": round(min(ratios.values()), 2),
        "goal": GOAL,
        "meets": min(ratios.values()) >= GOAL,
        "ratios": {what: round(ratio, 2) for what, ratio in ratios.items()},
        "wall_ratios": {what: round(medians[what]["wall_s"] / medians["ours"]["wall_s"], 2) for what in ENGINES},
        "peak_mib": {what: medians[what]["peak_mib"] for what in medians},
        "records": num_records,
        "selected": ours.num_rows,
        "samples": samples,
    }


def main() -> None:
    """Measure, print one JSON object, and write it where `--output` says."""
    parser = argparse.ArgumentParser(description="Curation against other engines.", allow_abbrev=False)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the pool is made for a while")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--run", choices=["ours", *ENGINES], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run(args.run, args.folder / "pool", args.records, args.folder / args.run)
        return
    from benchmarks.machine import describe_machine  # imports torch, which no measured process is to do

    with tempfile.TemporaryDirectory(prefix="engines-", dir=args.folder) as name:
        result = compare(Path(name), args.records)
    versions = {name: importlib.metadata.version(name) for name in (*ENGINES, "pyarrow")}
    command = f"python -m benchmarks.engines --records {args.records}"
    result |= {"machine": describe_machine("cpu") | versions, "command": command}
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
