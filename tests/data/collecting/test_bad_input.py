from __future__ import annotations

import gzip
import json
import os
import tarfile
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.artifacts import read_json
from cambrian.data.collecting.archives import iter_members
from cambrian.data.collecting.config import Limits
from cambrian.interfaces import ArtifactError
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
from tests.data.pools import line, picture

if TYPE_CHECKING:
    from pathlib import Path

HUGE = b"{" + b" " * 50_000 + b"}"


def here(tmp_path: Path, files: dict[str, bytes], **changes: Any) -> dict[str, Any]:
    """A source that is a folder of these files."""
    folder = tmp_path / "source"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return origin({"kind": "folder", "path": str(folder)}, **{"archives": [], **changes})


BAD_ROWS = {
    "malformed-json": json.dumps(line("x", source="charts")).encode()[:50],
    "wrong-encoding": jsonl(line("x", source="charts", answer="caf"))
    .rstrip()
    .replace(b"caf", "café".encode("latin-1")),
    "line-too-long": HUGE,
    "wrong-type": b"[1, 2]",
    "missing-field": jsonl({"source": "charts"}).rstrip(),
    "empty-conversation": jsonl({"source": "charts", "conversations": []}).rstrip(),
    "unsafe-path": jsonl(line("x", source="charts", image="a/../../etc/passwd")).rstrip(),
    "image-placeholder": jsonl({**line("x", source="charts"), "image": "a.png"}).rstrip(),
    "unknown-source": jsonl(line("x", source="elsewhere")).rstrip(),
}


def test_every_row_that_is_no_record_is_in_the_ledger_with_its_reason(tmp_path: Path) -> None:
    rows = jsonl(line("good", source="charts"), *BAD_ROWS.values(), line("better", source="charts"))
    folder = collect(pool(tmp_path, {"charts": here(tmp_path, {"all.jsonl": rows})}), tmp_path / "pool")
    assert [record["id"][-2:] for record in read_lines(folder)] == ["01", "11"]
    assert [reason for _, _, reason in read_dropped(folder)] == list(BAD_ROWS)
    step = read_step(folder, "records")
    assert (step["in"], step["out"], sum(step["dropped"].values())) == (11, 2, 9)
    assert step["sources"]["elsewhere"]["dropped"] == {"unknown-source": 1}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_row_that_is_no_record_stops_the_stage_where_the_policy_says_so(tmp_path: Path, reason: str) -> None:
    rows = jsonl(line("good", source="charts"), BAD_ROWS[reason])
    config = pool(tmp_path, {"charts": here(tmp_path, {"all.jsonl": rows})}, policies=STRICT)
    with pytest.raises(ArtifactError, match=rf"charts: all\.jsonl, row 2: {reason}: .*policies\.record"):
        collect(config, tmp_path / "pool")
    assert not (tmp_path / "pool").exists()


def test_a_line_of_a_hundred_megabytes_is_never_held(tmp_path: Path) -> None:
    path = tmp_path / "source" / "all.jsonl"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.seek(100_000_000)  # a hole: the file takes no room
        file.write(b"\n" + jsonl(line("after", source="charts")))
    row = origin({"kind": "folder", "path": str(path.parent)}, archives=[])
    import tracemalloc

    tracemalloc.start()
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert len(read_lines(folder)) == 1
    assert read_dropped(folder) == [("charts/all/00000001", "(unreadable)", "line-too-long")]


def test_conversations_out_of_order_are_records_that_the_next_stage_drops(tmp_path: Path) -> None:
    first = {**line("x", source="charts"), "conversations": [{"from": "gpt", "value": "yes"}]}
    unanswered = {**line("y", source="charts"), "conversations": [{"from": "human", "value": "is it ?"}]}
    rows = {"all.jsonl": jsonl(line("z", source="charts"), first, unanswered)}
    folder = collect(pool(tmp_path, {"charts": here(tmp_path, rows)}), tmp_path / "pool")
    clean(folder, tmp_path / "clean", max_lost_share=1.0)
    reasons = [reason for _, _, reason in read_dropped(tmp_path / "clean")]
    assert reasons == ["starts-with-answer", "no-answer"]


def test_too_many_bad_rows_stop_the_stage_whatever_the_policies_say(tmp_path: Path) -> None:
    rows = jsonl(*(line(str(n), source="charts") for n in range(3)), b"{")
    config = pool(tmp_path, {"charts": here(tmp_path, {"all.jsonl": rows})}, policies={**LENIENT, "max_bad_share": 0.2})
    with pytest.raises(ArtifactError, match=r"1 of 4 rows are no records.*charts/all/00000004 .*malformed-json"):
        collect(config, tmp_path / "pool")


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


BAD_MEMBERS = {
    "link": [special("pictures/link.png", tarfile.SYMTYPE, "/etc/passwd")],
    "special-file": [special("pictures/device.png", tarfile.CHRTYPE)],
}


def test_what_an_archive_should_not_have_is_left_out_with_its_reason(tmp_path: Path) -> None:
    members = {
        "pictures/0.png": picture(0),
        "../outside.png": picture(1),
        "/absolute.png": picture(2),
        "pictures/huge.png": bytes(LIMITS["max_member_bytes"] + 1),
        "pictures/notes.txt": b"no picture",
        "pictures/./0.png": picture(3),
    }
    extra = [*BAD_MEMBERS["link"], special("pictures/hard.png", tarfile.LNKTYPE, "0.png"), *BAD_MEMBERS["special-file"]]
    files = {"all.jsonl": named(1), "a.tar": tar(members, extra=extra)}
    row = here(tmp_path, files, archives=["a.tar"])
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert [(name, reason) for name, _, reason in read_dropped(folder)] == [
        ("../outside.png", "unsafe-path"),
        ("/absolute.png", "unsafe-path"),
        ("pictures/huge.png", "member-too-large"),
        ("pictures/notes.txt", "not-an-image"),
        ("pictures/./0.png", "duplicate-image"),
        ("pictures/link.png", "link"),
        ("pictures/hard.png", "link"),
        ("pictures/device.png", "special-file"),
    ]
    assert list(read_json(folder / "images.json")) == ["pictures/0.png"]
    assert not (tmp_path / "outside.png").exists()


def test_a_zip_member_that_nobody_can_unpack_is_left_out_with_its_reason(tmp_path: Path) -> None:
    data = bytearray(packed({"0.png": picture(0), "1.png": picture(1)}))
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # where a member's two headers name its method
        data[data.index(mark) + offset] = 9  # Deflate64
    row = here(tmp_path, {"all.jsonl": named(1), "a.zip": bytes(data)}, archives=["a.zip"])
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert read_dropped(folder) == [("0.png", "charts", "unknown-compression")]
    assert list(read_json(folder / "images.json")) == ["1.png"]


def test_memory_does_not_grow_with_the_members_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar({f"{number}.png": b"x" for number in range(4000)}))
    limits = Limits(**{**LIMITS, "max_members": 5000})
    tracemalloc.start()
    num_members = sum(1 for _ in iter_members([path], limits))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_members == 4000
    assert peak < 1_500_000  # the headers of 4,000 members are 2.8 MB


@pytest.mark.parametrize("reason", BAD_MEMBERS)
def test_a_bad_member_stops_the_stage_where_the_policy_says_so(tmp_path: Path, reason: str) -> None:
    files = {"all.jsonl": named(1), "a.tar": tar({}, extra=BAD_MEMBERS[reason])}
    config = pool(tmp_path, {"charts": here(tmp_path, files, archives=["a.tar"])}, policies=STRICT)
    with pytest.raises(ArtifactError, match=rf"charts: a\.tar: {reason}: .*policies\.image"):
        collect(config, tmp_path / "pool")


def test_links_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    row = here(tmp_path, {"all.jsonl": named(1), "pictures/0.png": picture(0)}, images=["*.png"])
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "1.png").write_bytes(picture(1))
    os.symlink(tmp_path / "secret" / "1.png", tmp_path / "source" / "pictures" / "1.png")
    os.symlink(tmp_path / "secret", tmp_path / "source" / "more")
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert list(read_json(folder / "images.json")) == ["pictures/0.png"]


WHOLE = {f"pictures/{n}.png": picture(n) for n in range(4)}


@pytest.mark.parametrize(
    ("name", "data", "num_kept"),
    [
        ("cut.tar", tar(WHOLE)[: 1024 + 512 + 20], 1),  # within the second picture
        ("cut.tar", tar(WHOLE)[: 2 * (512 + 512)], None),  # exactly between two members: no reader of tar complains
        ("cut.tar.gz", tar(WHOLE, mode="w:gz")[:-60], None),
        ("cut.tar.gz", tar(WHOLE, mode="w:gz")[:-8], 4),  # only the checksum is missing
        ("cut.zip", packed(WHOLE)[:-30], 0),
    ],
)
@pytest.mark.parametrize("policy", ["fail", "skip-and-record"])
def test_an_archive_cut_in_half_keeps_its_first_part_or_stops_the_stage(
    tmp_path: Path, name: str, data: bytes, num_kept: int | None, policy: str
) -> None:
    files = {"all.jsonl": named(4), name: data}
    config = pool(
        tmp_path, {"charts": here(tmp_path, files, archives=["cut.*"])}, policies={**STRICT, "archive": policy}
    )
    if policy == "fail":
        with pytest.raises(ArtifactError, match=rf"charts: {name}: truncated-archive: .*policies\.archive"):
            collect(config, tmp_path / "pool")
        return
    folder = collect(config, tmp_path / "pool")
    assert (name, "charts", "truncated-archive") in read_dropped(folder)
    if num_kept is not None:
        assert read_step(folder, "pictures")["out"] == num_kept


def test_an_archive_that_unpacks_without_end_is_given_up(tmp_path: Path) -> None:
    bomb = gzip.compress(tar({f"{n}.png": bytes(90_000) for n in range(10)}))
    assert len(bomb) < 5000
    row = here(tmp_path, {"all.jsonl": named(1), "bomb.tar.gz": bomb}, archives=["bomb.tar.gz"])
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert ("bomb.tar.gz", "charts", "unpacked-too-large") in read_dropped(folder)


def test_an_archive_of_too_many_members_is_given_up(tmp_path: Path) -> None:
    many = tar({f"{n}.png": b"" for n in range(LIMITS["max_members"] + 1)})
    row = here(tmp_path, {"all.jsonl": named(1), "many.tar": many}, archives=["many.tar"])
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert ("many.tar", "charts", "too-many-members") in read_dropped(folder)
    assert read_step(folder, "pictures")["out"] == LIMITS["max_members"]


def test_a_file_of_records_that_is_cut_says_where(tmp_path: Path) -> None:
    rows = jsonl(*(line(str(n), source="charts") for n in range(50)))
    files = {
        "a.jsonl.gz": gzip.compress(rows)[:-40],
        "b.json": json.dumps([line("x", source="charts")] * 3)[:-40].encode(),
    }
    row = here(tmp_path, files, records=["*.jsonl.gz", "*.json"])
    folder = collect(pool(tmp_path, {"charts": row}), tmp_path / "pool")
    assert [reason for _, _, reason in read_dropped(folder)] == ["truncated-file", "truncated-file"]
    assert [record["id"] for record in read_lines(folder)][-2:] == ["charts/b/00000001", "charts/b/00000002"]
