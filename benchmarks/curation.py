"""Curation of a generated pool against a plain json + dict script: from JSONL to a capped mix of given ratios.

    python -m benchmarks.curation [--records 1000000] [--output benchmarks/results/curation.json]
    python -m benchmarks.curation --growth 1000000,10000000

The first times both in turn, each in a process of its own, and holds that they select the same records in the same
order. The second times only ours, at both sizes: whether the time per record stays. Needs 3 GB of disk for each million
records. What counts is the processor's time of all processes; the clock's stands beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own

from benchmarks.pools import write_pool

if TYPE_CHECKING:
    from collections.abc import Sequence

NUM_PROCESSES = 2
REPEATS = 2
SAMPLING_S = 0.1
GOALS = {"ratio": 3.5, "records_per_core_s": 100_000, "peak_mib": 4096, "growth": 1.15}
"""The first two at least, the others at most; growth is the time per record at the larger size over the smaller."""
PERCENT = {
    "Language": 21.0,
    "General": 34.52,
    "OCR": 27.22,
    "Counting": 8.71,
    "Math": 7.2,
    "Code": 0.87,
    "Science": 0.88,
}
CAP_SHARE, TOTAL_SHARE = 0.035, 0.3
"""Of the pool's records: the cap of each source (350k of ten million) and the mix."""
SEED, HASH_SIDE, MIN_SIDE = 0, 16, 16


def run_ours(pool: Path, num_records: int, work: Path) -> None:
    """Clean the pool and select the mix, as the stages do."""
    from cambrian.data.cleaning import CleaningConfig, clean_pool
    from cambrian.data.curation import curate_mix
    from cambrian.data.format_prompts import FormatPromptsConfig
    from cambrian.data.mixes import MixRow
    from cambrian.data.partitions import PartitionsConfig

    partitions = PartitionsConfig(kind="threads", num_processes=NUM_PROCESSES, chunk_bytes=2**25, bucket_bytes=2**28)
    cleaning = CleaningConfig(
        max_line_bytes=1_000_000, min_image_side=MIN_SIDE, hash_side=HASH_SIDE, max_duplicate_distance=0,
        fatal_reasons=[], max_lost_share=0.2,
    )  # fmt: skip
    clean_pool(cleaning, partitions, pool=pool, output=work / "clean")
    row = MixRow(pool="instruction", select=make_select(num_records), format_prompts=False)
    curate_mix(
        row, partitions, name="benchmark", samples_per_record=1, seed=SEED,
        format_prompts=FormatPromptsConfig(texts={}, choices_marker="( a )"), pool=work / "clean", output=work / "mix",
    )  # fmt: skip


def run_plain(pool: Path, num_records: int, work: Path) -> None:
    """Do the same in dicts."""
    from benchmarks.plain_curation import curate

    work.mkdir(parents=True, exist_ok=True)
    curate(pool, work / "records.parquet", make_select(num_records), seed=SEED, hash_side=HASH_SIDE, min_side=MIN_SIDE)


def make_select(num_records: int) -> Any:
    """The rule of the mix."""
    from cambrian.data.mixes import SelectRatio

    return SelectRatio(
        kind="ratio", total=int(TOTAL_SHARE * num_records), percent=PERCENT,
        max_per_source=int(CAP_SHARE * num_records),
    )  # fmt: skip


def measure(what: str, pool: Path, num_records: int, work: Path) -> dict[str, float]:
    """Run one of the two in a new process; its seconds and memory."""
    arguments = ["--run", what, "--pool", str(pool), "--work", str(work), "--records", str(num_records)]
    return measure_command([sys.executable, "-m", "benchmarks.curation", *arguments])


def measure_command(command: Sequence[str]) -> dict[str, float]:
    """Run a command; its seconds, and the most memory that it and its processes had together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    peak = 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            peak = max(peak, count_resident(process.pid))
            time.sleep(SAMPLING_S)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall_s = time.perf_counter() - started
    return {"cpu_s": round(cpu_s, 2), "wall_s": round(wall_s, 2), "peak_mib": round(peak / 2**20)}


def count_resident(process_id: int) -> int:
    """Resident bytes of a process and its descendants now; what they share counts for each of them.

    Not `ru_maxrss` of children, which begins at what the parent had when it started them.
    """
    total = 0
    try:
        process = psutil.Process(process_id)
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += member.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


def compare(folder: Path, num_records: int) -> dict[str, Any]:
    """Time both in turn on one pool, and check that they give the same mix."""
    write_pool(folder / "pool", num_records, num_processes=NUM_PROCESSES)
    samples: dict[str, list[dict[str, float]]] = {"ours": [], "plain": []}
    for _ in range(REPEATS):
        for what, found in samples.items():
            found.append(measure(what, folder / "pool", num_records, folder / what))
    num_selected = check_equal(folder / "ours/mix/records.parquet", folder / "plain/records.parquet")
    check_ledgers(folder / "ours", num_records, num_selected)
    medians = {
        what: {name: statistics.median(sample[name] for sample in found) for name in found[0]}
        for what, found in samples.items()
    }
    ratio = medians["plain"]["cpu_s"] / medians["ours"]["cpu_s"]
    rate = num_records / medians["ours"]["cpu_s"]
    peak_mib = medians["ours"]["peak_mib"]
    return {
        "name": "curation",
        "ratio": round(ratio, 2),
        "goal": GOALS["ratio"],
        "records_per_core_s": round(rate),
        "wall_ratio": round(medians["plain"]["wall_s"] / medians["ours"]["wall_s"], 2),
        "peak_mib": peak_mib,
        "selected": num_selected,
        "meets": ratio >= GOALS["ratio"] and rate >= GOALS["records_per_core_s"] and peak_mib <= GOALS["peak_mib"],
        "samples": samples,
    }


def measure_growth(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Time ours at several sizes."""
    samples = {}
    for size in sizes:
        pool = folder / f"pool-{size}"
        num_bytes = write_pool(pool, size, num_processes=NUM_PROCESSES)
        samples[size] = measure("ours", pool, size, folder / f"work-{size}") | {"bytes_per_record": num_bytes / size}
        (pool / "records.jsonl").unlink()
    per_record = [samples[size]["cpu_s"] / size for size in sizes]
    growth = per_record[-1] / per_record[0]
    rate = 1 / per_record[-1]
    peak_mib = max(sample["peak_mib"] for sample in samples.values())
    return {
        "name": "curation-growth",
        "ratio": round(growth, 3),
        "goal": GOALS["growth"],
        "records_per_core_s": round(rate),
        "peak_mib": peak_mib,
        "meets": growth <= GOALS["growth"] and rate >= GOALS["records_per_core_s"] and peak_mib <= GOALS["peak_mib"],
        "samples": samples,
    }


def check_equal(ours: Path, plain: Path) -> int:
    """Hold that two files have the same records in the same order; how many those are."""
    import pyarrow.parquet as pq

    left, right = pq.read_table(ours), pq.read_table(plain)
    assert left.equals(right), f"{ours} and {plain} differ"
    return int(left.num_rows)


def check_ledgers(folder: Path, num_records: int, num_selected: int) -> None:
    """Hold that every line of the pool is accounted for."""
    steps = [
        step
        for part in ("clean", "mix")
        for step in json.loads((folder / part / "ledger.json").read_text(encoding="utf-8"))["steps"]
    ]
    assert steps[0]["in"] == num_records
    assert steps[-1]["out"] == num_selected
    for before, after in pairwise(steps):
        assert before["out"] == after["in"]


def main() -> None:
    """Measure, print one JSON object, and write it where `--output` says."""
    parser = argparse.ArgumentParser(description="Curation against a plain script.", allow_abbrev=False)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--growth", type=lambda text: [int(size) for size in text.split(",")])
    parser.add_argument("--folder", type=Path, help="where the pools are made for a while")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--run", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--pool", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        {"ours": run_ours, "plain": run_plain}[args.run](args.pool, args.records, args.work)
        return
    from benchmarks.machine import describe_machine  # imports torch, which no worker process is to do

    with tempfile.TemporaryDirectory(prefix="curation-", dir=args.folder) as name:
        folder = Path(name)
        result = measure_growth(folder, args.growth) if args.growth else compare(folder, args.records)
    command = " ".join(["python -m benchmarks.curation", *sys.argv[1:]])
    result |= {"goals": GOALS, "machine": describe_machine("cpu"), "command": command}
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
