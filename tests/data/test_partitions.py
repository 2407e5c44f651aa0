from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from cambrian.data.cleaning import CleaningConfig, clean_pool
from cambrian.data.curation import curate_mix
from cambrian.data.format_prompts import FormatPromptsConfig
from cambrian.data.mixes import MixRow
from cambrian.data.partitions import PartitionsConfig
from cambrian.data.scanning import Scanner
from cambrian.interfaces import ParamsError
from cambrian.params import parse_block
from tests.data.pools import line, picture, write_pool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLEANING = CleaningConfig(
    max_line_bytes=10_000, min_image_side=16, hash_side=8, max_duplicate_distance=2, fatal_reasons=[],
    max_lost_share=1.0,
)  # fmt: skip
SELECT = {"kind": "ratio", "total": 60, "percent": {"General": 50.0, "OCR": 30.0, "Math": 20.0}, "max_per_source": 25}
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (make setup-ray)")


def make_pool(folder: Path) -> Path:
    """Three sources, copies in other places, broken lines, a picture that is gone."""
    lines: list[Any] = []
    for number in range(120):
        source = ("LLaVA150K", "ChartQA", "MathInstruct")[number % 3]
        image = f"{number % 5}.png" if number % 2 else None
        lines.append(line(f"r{number * 37 % 120:03d}", source=source, image=image, question=f"what is {number % 90} ?"))
    lines += ["{", line("x", image="gone.png"), line("y", source="LAION"), line("r007")]
    return write_pool(folder, lines, {f"{number}.png": picture(number) for number in range(5)})


def curate(pool: Path, folder: Path, partitions: PartitionsConfig) -> dict[str, bytes]:
    """Clean the pool and select a mix; every file that both wrote."""
    clean_pool(CLEANING, partitions, pool=pool, output=folder / "clean")
    row = parse_block(MixRow, {"pool": "p", "select": SELECT, "format_prompts": False}, where="mixes.trial")
    curate_mix(
        row, partitions, name="trial", samples_per_record=1, seed=3, pool=folder / "clean", output=folder / "mix",
        format_prompts=FormatPromptsConfig(texts={}, choices_marker="( a )"),
    )  # fmt: skip
    assert pq.read_metadata(folder / "mix/records.parquet").num_rows > 40
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def make_partitions(kind: str, num_processes: int) -> PartitionsConfig:
    return PartitionsConfig(kind=kind, num_processes=num_processes, chunk_bytes=2000, bucket_bytes=6000)  # type: ignore[arg-type]


@pytest.fixture
def _cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Ray cluster of a head that takes no work and two machines of one worker each, all of them here."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("kind", ["processes", "threads"])
def test_two_workers_write_what_the_stages_own_process_writes(tmp_path: Path, kind: str) -> None:
    pool = make_pool(tmp_path / "pool")
    alone = curate(pool, tmp_path / "alone", make_partitions("processes", 1))
    assert curate(pool, tmp_path / "two", make_partitions(kind, 2)) == alone
    assert len(alone) == 9


def test_a_single_bucket_has_the_records_of_many(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    many = make_partitions("processes", 1)
    assert many.num_buckets((pool / "records.jsonl").stat().st_size) > 1
    single = many.model_copy(update={"bucket_bytes": 2**30})
    assert curate(pool, tmp_path / "single", single) == curate(pool, tmp_path / "many", many)


def test_a_fault_in_a_thread_ends_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool(tmp_path / "pool")
    monkeypatch.setattr(Scanner, "scan", fail)
    with pytest.raises(RuntimeError, match="in a thread"):
        curate(pool, tmp_path / "two", make_partitions("threads", 2))
    assert not list(tmp_path.glob("two/.*"))


def fail(*_arguments: object) -> None:
    raise RuntimeError("in a thread")


@needs_ray
@pytest.mark.filterwarnings("default")  # Ray's own
@pytest.mark.usefixtures("_cluster")
def test_two_workers_of_a_ray_cluster_write_what_the_stages_own_process_writes(tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool")
    alone = curate(pool, tmp_path / "alone", make_partitions("processes", 1))
    assert curate(pool, tmp_path / "ray", make_partitions("ray", 2)) == alone
    with pytest.raises(ParamsError, match=r"num_processes is 3, expected at most the 2 CPUs of the Ray cluster"):
        curate(pool, tmp_path / "more", make_partitions("ray", 3))


def test_a_cluster_without_ray_is_an_error_that_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ParamsError, match=r"partitions\.kind is ray, .*run `make setup-ray`, or take kind: processes"):
        curate(make_pool(tmp_path / "pool"), tmp_path / "ray", make_partitions("ray", 2))
