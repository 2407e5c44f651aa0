from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.artifacts import find_damage, read_json
from cambrian.data import sources
from cambrian.data.collecting import collect as collecting
from cambrian.data.collecting.converting import convert_unit
from cambrian.data.records import read_records
from cambrian.data.shards import ImageStore
from cambrian.interfaces import ArtifactError, ParamsError
from tests.data.collecting.pools import (
    LENIENT,
    LIMITS,
    STRICT,
    clean,
    collect,
    jsonl,
    named,
    origin,
    packed,
    pool,
    read_dropped,
    read_lines,
    read_step,
    tar,
)
from tests.data.collecting.servers import REVISION, Site, serve
from tests.data.pools import line, picture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site()) as serving:
        yield serving


def hub(site: Site) -> dict[str, Any]:
    return {"kind": "hub", "endpoint": site.url, "repository": site.repository, "revision": REVISION}


def http(site: Site, *names: str) -> dict[str, Any]:
    return {"kind": "http", "urls": [f"{site.url}/{name}" for name in names]}


def fill(site: Site) -> None:
    """Five records; three of their pictures in a packed tar, two in a zip."""
    site.add_to_hub("charts.jsonl", named(5))
    site.add_to_hub("a.tar.gz", tar({f"pictures/{n}.png": picture(n) for n in range(3)}, mode="w:gz"))
    site.add_to_hub("b.zip", packed({f"pictures/{n}.png": picture(n) for n in range(3, 5)}))


def test_a_pool_of_the_hub_has_the_format_of_every_other_pool(site: Site, tmp_path: Path) -> None:
    fill(site)
    folder = collect(pool(tmp_path, {"charts": origin(hub(site))}), tmp_path / "pool")
    assert find_damage(folder) is None
    records = read_lines(folder)
    assert [record["id"] for record in records] == [f"charts/charts/{n:08d}" for n in range(1, 6)]
    with ImageStore(folder) as store:
        assert [store.read(record["image"]) for record in records] == [picture(n) for n in range(5)]
    clean(folder, tmp_path / "clean", max_lost_share=0.0)
    assert len(read_records(tmp_path / "clean" / "records.parquet")) == 5


def test_what_was_fetched_is_written_down_with_its_checksum_and_then_removed(site: Site, tmp_path: Path) -> None:
    fill(site)
    folder = collect(pool(tmp_path, {"charts": origin(hub(site))}), tmp_path / "pool")
    files = {row["name"]: row for row in read_json(folder / "files.json")}
    archive = site.files[f"datasets/{site.repository}/resolve/{REVISION}/a.tar.gz"]
    assert files["a.tar.gz"]["sha256"] == hashlib.sha256(archive).hexdigest()
    assert files["a.tar.gz"]["checked"] == "against the place's own checksum"
    assert files["a.tar.gz"]["licence"] == "CC0-1.0"
    assert len(files) == 3
    assert list((tmp_path / "work").iterdir()) == []


def test_a_mirror_is_taken_instead_of_the_hub(site: Site, tmp_path: Path) -> None:
    fill(site)
    place = {**hub(site), "endpoint": "http://127.0.0.1:9"}
    folder = collect(pool(tmp_path, {"charts": origin(place)}, hub_endpoint=site.url), tmp_path / "pool")
    assert len(read_lines(folder)) == 5


def test_the_environment_may_name_the_mirror(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(site)
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    place = {**hub(site), "endpoint": "http://127.0.0.1:9"}
    folder = collect(pool(tmp_path, {"charts": origin(place)}), tmp_path / "pool")
    assert len(read_lines(folder)) == 5


def test_a_hub_that_is_busy_when_it_is_asked_for_its_files_is_asked_again(site: Site, tmp_path: Path) -> None:
    fill(site)
    site.refuse[f"api/datasets/{site.repository}/tree/{REVISION}"] = [(400, {}), (400, {})]
    folder = collect(pool(tmp_path, {"charts": origin(hub(site))}), tmp_path / "pool")
    assert len(read_lines(folder)) == 5


def test_two_addresses_of_one_name_are_refused(site: Site, tmp_path: Path) -> None:
    row = origin(http(site, "a/charts.jsonl", "b/charts.jsonl"), archives=[])
    with pytest.raises(ParamsError, match=r"two of an origin's addresses end in 'charts\.jsonl'"):
        collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")


def test_a_piece_that_is_not_there_is_named(site: Site, tmp_path: Path) -> None:
    for number in (0, 1, 3):
        site.add_to_hub(f"all.tar_part{number}", b"x")
    site.add_to_hub("charts.jsonl", named(1))
    with pytest.raises(ArtifactError, match=r"gone: charts: piece 2 of all\.tar is not there"):
        collect(pool(tmp_path, {"charts": origin(hub(site))}), tmp_path / "pool")


def test_pools_are_the_same_bytes_however_many_workers_fetch(site: Site, tmp_path: Path) -> None:
    fill(site)
    digests = []
    for workers in (1, 4):
        limits = {**LIMITS, "num_workers": workers}
        folder = collect(pool(tmp_path, {"charts": origin(hub(site))}, limits=limits), tmp_path / f"{workers}")
        digests.append({name: row["sha256"] for name, row in read_json(folder / "manifest.json")["files"].items()})
    assert digests[0] == digests[1]
    assert len(digests[0]) >= 5


def test_an_archive_in_pieces_is_read_as_one(site: Site, tmp_path: Path) -> None:
    whole = tar({f"pictures/{n}.png": picture(n) for n in range(12)})
    third = len(whole) // 11
    for number in range(11):  # piece 10 comes after piece 9, not after piece 1
        end = None if number == 10 else third * (number + 1)
        site.add_to_hub(f"all.tar_part{number}", whole[third * number : end])
    site.add_to_hub("charts.jsonl", named(12))
    folder = collect(pool(tmp_path, {"charts": origin(hub(site))}, policies=STRICT), tmp_path / "pool")
    assert read_step(folder, "pictures")["out"] == 12


def test_a_transfer_that_broke_off_goes_on_where_it_ended(site: Site, tmp_path: Path) -> None:
    site.files["charts.jsonl"] = named(20)
    site.break_off["charts.jsonl"] = 700
    row = origin(http(site, "charts.jsonl"), archives=[])
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert len(read_lines(folder)) == 20
    assert site.requests["charts.jsonl"] == 2
    assert site.sent["charts.jsonl"] == len(site.files["charts.jsonl"])


def test_a_file_that_changes_while_it_is_fetched_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    site.files["charts.jsonl"] = named(20)
    site.break_off["charts.jsonl"] = 700
    row = origin(http(site, "charts.jsonl"), archives=[])
    config = pool(tmp_path, {"charts": row}, limits={**LIMITS, "num_attempts": 1})
    with pytest.raises(ArtifactError, match="unanswered"):
        collect(config, tmp_path / "pool")
    site.files["charts.jsonl"] = named(21, image="other/{}.png")
    config["limits"] = {**LIMITS, "num_attempts": 2}
    folder = collect(config, tmp_path / "pool")
    assert [record["image"] for record in read_lines(folder)] == [f"other/{n}.png" for n in range(21)]


def test_a_stage_that_was_stopped_goes_on_after_its_last_finished_unit(site: Site, tmp_path: Path) -> None:
    fill(site)
    archive = f"datasets/{site.repository}/resolve/{REVISION}/b.zip"
    site.refuse[archive] = [(404, {})]
    config = pool(tmp_path, {"charts": origin(hub(site))})
    with pytest.raises(ArtifactError, match=r"b\.zip: gone"):
        collect(config, tmp_path / "pool")
    folder = collect(config, tmp_path / "pool")
    assert read_step(folder, "pictures")["out"] == 5
    fetched = {path.rpartition("/")[2]: count for path, count in site.requests.items() if "resolve" in path}
    assert fetched == {"charts.jsonl": 1, "a.tar.gz": 1, "b.zip": 2}


def end_at_once(*_arguments: Any, **_keywords: Any) -> None:
    raise KeyboardInterrupt


def convert_and_end(*arguments: Any, **keywords: Any) -> None:
    convert_unit(*arguments, **keywords)
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("module", "name", "end"),
    [(collecting, "convert_unit", convert_and_end), (sources, "write_json", end_at_once)],
    ids=["just after a unit", "just before the end"],
)
def test_a_stage_that_ends_at_any_moment_fetches_nothing_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, end: Any
) -> None:
    site.files["charts.jsonl"] = named(2)
    config = pool(tmp_path, {"charts": origin(http(site, "charts.jsonl"), archives=[])})
    with monkeypatch.context() as patch:
        patch.setattr(module, name, end)
        with pytest.raises(KeyboardInterrupt):
            collect(config, tmp_path / "pool")
    assert len(read_lines(collect(config, tmp_path / "pool"))) == 2
    assert site.requests["charts.jsonl"] == 1
    assert not any((tmp_path / "work").iterdir())


def test_who_raises_a_bound_fetches_nothing_again(site: Site, tmp_path: Path) -> None:
    site.files["charts.jsonl"] = named(2) + b"{"
    row = origin(http(site, "charts.jsonl"), archives=[])
    config = pool(tmp_path, {"charts": row}, policies={**LENIENT, "max_bad_share": 0.1})
    with pytest.raises(ArtifactError, match="1 of 3 rows are no records"):
        collect(config, tmp_path / "pool")
    config["policies"] = LENIENT
    config["limits"] = {**LIMITS, "num_workers": 1}
    assert len(read_lines(collect(config, tmp_path / "pool"))) == 2
    assert site.requests["charts.jsonl"] == 1
    assert not any((tmp_path / "work").iterdir())


def test_a_source_that_becomes_known_is_not_left_out_by_what_was_converted_before(site: Site, tmp_path: Path) -> None:
    site.files["charts.jsonl"] = named(2, source="elsewhere")
    row = origin(http(site, "charts.jsonl"), archives=[])
    config = pool(tmp_path, {"charts": row}, policies={**LENIENT, "max_bad_share": 0.1})
    with pytest.raises(ArtifactError, match=r"2 of 2 rows are no records.*unknown-source"):
        collect(config, tmp_path / "pool")
    config["labels"] = {"elsewhere": "charts"}
    assert len(read_lines(collect(config, tmp_path / "pool"))) == 2


def test_a_server_that_is_busy_is_asked_again_when_it_says(site: Site, tmp_path: Path) -> None:
    site.files["charts.jsonl"] = named(2)
    site.refuse["charts.jsonl"] = [(429, {"Retry-After": "0"}), (503, {})]
    folder = collect(pool(tmp_path, {"charts": origin(http(site, "charts.jsonl"), archives=[])}), tmp_path / "pool")
    assert len(read_lines(folder)) == 2
    assert site.requests["charts.jsonl"] == 3


@pytest.mark.parametrize("policy", ["fail", "skip-and-record"])
def test_an_address_that_hangs_stops_the_stage_or_is_written_down(site: Site, tmp_path: Path, policy: str) -> None:
    site.files["charts.jsonl"] = named(2)
    site.hang.add("never.tar")
    row = origin(http(site, "charts.jsonl", "never.tar"), when_gone=policy)
    limits = {**LIMITS, "read_timeout_s": 0.1, "num_attempts": 2}
    config = pool(tmp_path, {"charts": row}, limits=limits)
    if policy == "fail":
        with pytest.raises(ArtifactError, match=r"never\.tar: unanswered: .* hangs .*, after 2 attempts.*when_gone"):
            collect(config, tmp_path / "pool")
        assert not (tmp_path / "pool").exists()
        return
    folder = collect(config, tmp_path / "pool")
    assert read_dropped(folder) == [("never.tar", "charts", "unanswered")]
    assert read_step(folder, "files") | {"sources": None} == {
        "step": "files",
        "in": 2,
        "out": 1,
        "dropped": {"unanswered": 1},
        "sources": None,
    }


@pytest.mark.parametrize("policy", ["fail", "skip-and-record"])
def test_a_source_whose_checksum_changed_stops_the_stage_or_is_written_down(
    site: Site, tmp_path: Path, policy: str
) -> None:
    site.files |= {"charts.jsonl": named(2), "a.tar": tar({"pictures/0.png": picture(0)})}
    row = origin(http(site, "charts.jsonl", "a.tar"), sha256={"a.tar": "0" * 64})
    config = pool(tmp_path, {"charts": row}, policies={**STRICT, "checksum": policy})
    if policy == "fail":
        with pytest.raises(ArtifactError, match=r"a\.tar: checksum-changed: .* has SHA-256 .*, pinned is 000"):
            collect(config, tmp_path / "pool")
        return
    assert read_dropped(collect(config, tmp_path / "pool")) == [("a.tar", "charts", "checksum-changed")]


def test_no_more_than_the_limit_waits_on_the_disk(site: Site, tmp_path: Path) -> None:
    fill(site)
    site.add_to_hub("c.tar", tar({f"more/{n}.png": picture(n) for n in range(40)}))
    limits = {**LIMITS, "max_waiting_bytes": 20_000}
    config = pool(tmp_path, {"charts": origin(hub(site))}, limits=limits)
    with pytest.raises(ArtifactError, match=r"c\.tar: 51200 bytes, .*max_waiting_bytes allows 20000"):
        collect(config, tmp_path / "pool")


def test_a_source_of_unknown_place_is_written_down_with_the_reason(tmp_path: Path) -> None:
    row = origin({"kind": "unknown", "reason": "nobody has stated it"}, when_gone="skip-and-record")
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert read_dropped(folder) == [("(all files)", "charts", "gone")]


def test_labels_and_a_source_of_its_own_name_what_records_leave_open(site: Site, tmp_path: Path) -> None:
    site.files["a.jsonl"] = jsonl(line("x", source="charts_12k.json"), line("y", source="who knows"))
    site.files["b.jsonl"] = jsonl({**line("z"), "source": 7})
    rows = {
        "charts": origin(http(site, "a.jsonl"), archives=[]),
        "scans": origin(http(site, "b.jsonl"), archives=[], source="scans"),
    }
    folder = collect(pool(tmp_path, rows, labels={"charts_12k.json": "charts"}), tmp_path / "pool")
    assert [record["source"] for record in read_lines(folder)] == ["charts", "scans"]
    assert read_dropped(folder) == [("charts/a/00000002", "who knows", "unknown-source")]
    assert read_json(folder / "sources.json")["scans"] == {
        "category": "General",
        "published_thousands": 1,
        "in_7m": True,
        "generator": "collected",
        "licence": "CC0-1.0",
    }
