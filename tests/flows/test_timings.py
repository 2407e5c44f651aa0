from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from flows.timings import group_timings, read_timings, write_table
from tests.flows.conftest import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def write_log(path: Path, *records: tuple[str, float, float, float]) -> Path:
    names = ("stage", "wall_s", "cpu_s", "peak_mib")
    path.write_text("".join(json.dumps(dict(zip(names, record, strict=True))) + "\n" for record in records))
    return path


def test_the_last_record_of_a_stage_counts(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log", ("collect", 60, 1, 1), ("train@a", 1, 1, 1), ("collect", 30, 2, 3))
    assert [(timing.stage, timing.wall_s) for timing in read_timings(path)] == [("train@a", 1), ("collect", 30)]


def test_instances_add_up_and_memory_is_the_largest(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log", ("train@a", 60, 50, 300), ("report", 6, 5, 100), ("train@b", 30, 20, 400))
    train, report = group_timings(read_timings(path))
    assert (train.stage, train.instances, train.wall_s, train.longest_s, train.cpu_s, train.peak_mib) == (
        "train", 2, 90, 60, 70, 400,
    )  # fmt: skip
    assert (report.stage, report.instances) == ("report", 1)


def test_a_torn_line_is_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_log(tmp_path / "log", ("train@a", 60, 50, 300))
    with path.open("a") as file:
        file.write('{"stage": "rep\n[1]\n{"stage": "no numbers"}\n')
    assert [timing.stage for timing in read_timings(path)] == ["train@a"]
    assert [record.message.split(" left out")[0] for record in caplog.records] == [
        f"{path}:{line}" for line in (2, 3, 4)
    ]


def test_the_table_is_plain_text_with_a_total(tmp_path: Path) -> None:
    path = write_log(tmp_path / "log", ("train@a", 60, 30, 300), ("train@b", 30, 30, 200), ("report", 12, 6, 100))
    output = io.StringIO()
    write_table(group_timings(read_timings(path)), Console(file=output, width=100))
    assert [line.split() for line in output.getvalue().splitlines()[1:]] == [
        ["train", "2", "1.50", "1.00", "1.00", "300"],
        ["report", "1", "0.20", "0.20", "0.10", "100"],
        ["total", "3", "1.70", "1.00", "1.10", "300"],
    ]


def test_without_a_log_it_says_so_and_succeeds(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.timings", str(tmp_path / "none")],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "no timings" in done.stderr
