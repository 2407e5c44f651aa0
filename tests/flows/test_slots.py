from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import pytest

from flows.settings import Needs
from flows.slots import Capacity, Slots, count_cpus, measure_capacity

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def own_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the leases of other runs on this machine out."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def need(cpus: int = 1, memory_gib: float = 0, gpus: int | None = None) -> Needs:
    return Needs(cpus=cpus, memory_gib=memory_gib, gpus=gpus, limit_s=None)


def make(cpus: int = 2, memory_gib: float = 8, gpus: tuple[str, ...] = ()) -> Slots:
    return Slots(Capacity(cpus=cpus, memory_gib=memory_gib, gpus=gpus))


def test_processors_are_taken_until_none_is_left() -> None:
    slots = make(cpus=3)
    large = slots.take("a", need(cpus=2))
    assert large is not None
    assert slots.take("b", need(cpus=2)) is None
    assert slots.take("c", need(cpus=1)) is not None
    slots.give_back(large)
    assert slots.take("b", need(cpus=2)) is not None


def test_a_stage_that_wants_more_processors_than_there_are_runs_alone() -> None:
    slots = make(cpus=2)
    alone = slots.take("a", need(cpus=8))
    assert alone is not None
    assert slots.take("b", need()) is None
    slots.give_back(alone)
    assert slots.take("b", need()) is not None
    assert slots.take("a", need(cpus=8)) is None


def test_memory_comes_back_whole_after_fractions_of_it_were_taken() -> None:
    slots = make(cpus=9, memory_gib=0.3)
    for holding in [slots.take(name, need(memory_gib=0.1)) for name in "ab"]:
        assert holding is not None
        slots.give_back(holding)
    assert slots.take("c", need(memory_gib=0.3)) is not None
    assert slots.take("d", need(memory_gib=0.1)) is None


def test_a_stage_sees_the_gpus_that_it_has_and_no_other_stage_has_them() -> None:
    slots = make(gpus=("4", "7"))
    first = slots.take("a", need(gpus=1))
    second = slots.take("b", need(gpus=1))
    assert first is not None
    assert second is not None
    assert first.build_environment() == {"CUDA_VISIBLE_DEVICES": "4"}
    assert second.build_environment() == {"CUDA_VISIBLE_DEVICES": "7"}
    slots.give_back(first)
    assert slots.take("c", need(gpus=2)) is None
    slots.give_back(second)
    both = slots.take("c", need(gpus=2))
    assert both is not None
    assert both.build_environment() == {"CUDA_VISIBLE_DEVICES": "4,7"}


def test_who_says_that_it_needs_no_gpu_sees_none_and_who_says_nothing_is_left_alone() -> None:
    slots = make(gpus=("0",))
    none, silent = slots.take("a", need(gpus=0)), slots.take("b", need())
    assert none is not None
    assert silent is not None
    assert none.build_environment() == {"CUDA_VISIBLE_DEVICES": ""}
    assert silent.build_environment() == {}


def test_another_run_on_this_machine_has_its_gpus_for_itself() -> None:
    theirs, ours = make(gpus=("0",)), make(gpus=("0",))
    held = theirs.take("a", need(gpus=1))
    assert held is not None
    assert ours.take("b", need(gpus=1)) is None
    theirs.give_back(held)
    assert ours.take("b", need(gpus=1)) is not None


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        (need(memory_gib=9), "needs 9 GiB of memory, and there are 8"),
        (need(gpus=1), "needs 1 gpus, and there are 0"),
        (need(cpus=3, memory_gib=8, gpus=0), None),
    ],
)
def test_what_there_never_will_be_is_named(needs: Needs, message: str | None) -> None:
    assert make().capacity.find_lack(needs) == message


def test_gpus_that_this_process_may_not_use_are_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, 3")
    assert measure_capacity().gpus == ("1", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert measure_capacity().gpus == ()
    assert measure_capacity(cpus=8, memory_gib=1, gpus=("5",)) == Capacity(8, 1, ("5",))


def test_gpus_are_listed_by_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '0\\n1\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert measure_capacity().gpus == ("0", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert measure_capacity().gpus == ()


def test_where_the_system_does_not_say_what_a_process_may_use_all_processors_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert count_cpus() == 6
