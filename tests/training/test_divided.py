from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.artifacts import write_folder
from tests.training import many, tiny

if TYPE_CHECKING:
    from pathlib import Path

NUM_PROCESSES = 2


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with an LLM of about 100 MiB, and what two processes found in it."""
    world = tmp_path_factory.mktemp("world")
    tiny.write_backbones(world / "backbones")
    with write_folder(world / "backbones" / "tongue") as partial:
        tiny.write_language_model(partial, len(tiny.TOKENS), num_positions=64, width=512, num_layers=10)
        tiny.write_tokenizer(partial)
    many.run_together(world, "tests.training.divided", str(world), num_processes=NUM_PROCESSES)
    return world


def found(world: Path) -> list[dict[str, Any]]:
    return [json.loads((world / f"found-{rank}.json").read_text()) for rank in range(NUM_PROCESSES)]


def test_an_llm_that_is_read_part_by_part_is_the_one_that_is_read_whole(world: Path) -> None:
    for process in found(world):
        assert process["outline_different"] == process["whole_different"] == []


def test_no_process_holds_the_whole_llm_where_it_is_read_part_by_part(world: Path) -> None:
    whole_mib = (world / "backbones" / "tongue" / "model.safetensors").stat().st_size / 2**20
    for rank, process in enumerate(found(world)):
        print(f"process {rank}: LLM {whole_mib:.0f} MiB, " + ", ".join(  # noqa: T201  # the figure is wanted
            f"{name} {process[f'{name}_mib']:.0f} MiB" for name in ("outline", "whole")
        ))  # fmt: skip
        # half of it is the share; beside it one parameter, buffers of gloo and a model without an LLM
        assert process["outline_mib"] < 0.8 * whole_mib
        assert process["whole_mib"] > whole_mib


def test_a_disk_that_is_full_for_one_process_fails_both_and_costs_nothing_that_was_saved(world: Path) -> None:
    for process in found(world):
        assert "step-00000002 could not be written: process 1: " in process["error"]
        assert "free space" in process["error"]
        assert process["goes_on_after"] == 1
    assert [path.name for path in (world / "checkpoints").iterdir()] == ["step-00000001"]
