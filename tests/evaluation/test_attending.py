"""Shares of attention by benchmark: batches against one by one, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.evaluation.attending import measure_attention
from cambrian.evaluation.config import AttentionConfig
from cambrian.interfaces import ParamsError
from cambrian.runtime import RuntimeConfig
from tests.evaluation.tiny import PROMPT, write_tiny_benchmarks, write_tiny_model

if TYPE_CHECKING:
    from pathlib import Path


def measure(
    root: Path, connector: dict[str, Any] | None, *, batch_size: int = 4, benchmark: str = "GQA"
) -> dict[str, Any]:
    model, backbones = write_tiny_model(root, connector=connector, encoders=("eye", "lens"))
    measure_attention(
        AttentionConfig(benchmarks=[benchmark], batch_size=batch_size),
        {"GQA": PROMPT, "MME-P": PROMPT},
        model=model,
        backbones=backbones,
        benchmarks=write_tiny_benchmarks(root),
        runtime=RuntimeConfig(device="cpu", threads=1),
        run="a-run",
        scale="tiny",
        output=root / "attention.json",
    )
    found: dict[str, Any] = json.loads((root / "attention.json").read_text())
    return found


SVA: dict[str, Any] = {
    "kind": "sva", "side": 2, "depth": 2, "group_sides": [2], "dim": 8, "num_heads": 2, "max_window_side": 4,
    "in_llm": {"start": 0, "stride": 1, "count": 1}, "position_rms": None, "output_rms": 1.0, "newline": False,
    "hide_padding": True,
}  # fmt: skip


def test_shares_add_up_and_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    found = measure(tmp_path / "one", SVA)
    entry = found["benchmarks"]["GQA"]
    assert (found["run"], found["scale"], found["encoders"], entry["items"]) == ("a-run", "tiny", ["eye", "lens"], 3)
    assert sum(entry["shares"].values()) == pytest.approx(100)
    assert len(entry["layers"]) == 3  # two before the language model, one in it
    for name, share in entry["shares"].items():
        assert share == pytest.approx(sum(layer["shares"][name] for layer in entry["layers"]) / 3)
    alone = measure(tmp_path / "two", SVA, batch_size=1)["benchmarks"]["GQA"]
    assert alone["shares"] == pytest.approx(entry["shares"], abs=1e-4)  # float32, sums in another order
    # two shares with one sum vary alike, but for float32
    assert entry["standard_error"]["eye"] == pytest.approx(entry["standard_error"]["lens"], abs=1e-4)


def test_a_connector_without_aggregators_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"run a-run has a connector of kind 'mlp'.*take the run out of `analysed`"):
        measure(tmp_path, None)


def test_an_unknown_benchmark_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"attention.benchmarks: unknown name 'GQB'; did you mean 'GQA'"):
        measure(tmp_path, SVA, benchmark="GQB")
