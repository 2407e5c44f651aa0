from __future__ import annotations

import sys

import pytest

from benchmarks.curation import measure_command

MIB = 2**20
HOLD = "import time; held = b'x' * {num_bytes}; time.sleep({seconds})"


def test_the_memory_of_all_processes_counts_and_not_that_of_whoever_measures() -> None:
    """The kernel's own peak of a new process begins at what its parent had."""
    ours = b"x" * (300 * MIB)
    child = f"[sys.executable, '-c', {HOLD.format(num_bytes=80 * MIB, seconds=1)!r}]"
    parent = f"import subprocess, sys; started = subprocess.Popen({child}); "
    found = measure_command(
        [sys.executable, "-c", parent + HOLD.format(num_bytes=80 * MIB, seconds=0) + "; started.wait()"]
    )
    assert 160 < found["peak_mib"] < len(ours) / MIB
    assert found["wall_s"] > 1


def test_a_command_that_fails_measures_nothing() -> None:
    with pytest.raises(AssertionError, match="ended with 3"):
        measure_command([sys.executable, "-c", "raise SystemExit(3)"])
