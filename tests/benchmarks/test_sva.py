import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.sva import (
    EXACT,
    Measured,
    Sizes,
    Stack,
    count_flops,
    count_kept_bytes,
    differences,
    forward,
    judge,
    make_inputs,
    measure,
    measure_peak,
)

ROOT = Path(__file__).parents[2]
TINY = Sizes(
    queries=4, images=2, dim=8, llm_dim=12, num_heads=2, window_sides=(1, 2), before_llm=1, inside_llm=2
)  # fmt: skip
GOOD = Measured(
    ratios={"checkpointed_to_ours": 2.5, "plain_to_ours": 2.1, "checkpointed_to_fused": 3.1, "plain_to_fused": 2.6},
    flops={},
    fraction_of_flop_ratio={},
    kept_mib={"ours": 24.0, "plain": 100.0},
    peak_mib={},
    samples={},
)


def test_the_forms_give_the_same_numbers_in_double_precision() -> None:
    assert 0 < differences(["ours", "checkpointed"]) <= EXACT


def test_a_form_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lie(form: str, stack: Stack, inputs: object) -> tuple[torch.Tensor, torch.Tensor]:
        visual, hidden = forward(form, stack, inputs)  # type: ignore[arg-type]
        return visual, hidden * (1 + 1e-8 * (form == "ours"))

    monkeypatch.setattr("benchmarks.sva.forward", lie)
    assert differences(["ours"]) > EXACT


def test_all_goals_together_are_met_only_if_each_is() -> None:
    assert judge(GOOD, 1e-14, device="cpu")["meets"] is True
    slow = replace(GOOD, ratios={**GOOD.ratios, "plain_to_ours": 1.9})
    large = replace(GOOD, kept_mib={"ours": 26.0, "plain": 100.0})
    for measured, difference, missed in [
        (slow, 1e-14, "plain_to_ours"),
        (large, 1e-14, "kept_of_plain"),
        (GOOD, 1e-9, "largest_difference_float64"),
    ]:
        judged = judge(measured, difference, device="cpu")
        assert judged["meets"] is False
        assert [name for name, is_met in judged["is_met"].items() if not is_met] == [missed]  # type: ignore[attr-defined]


def test_a_gpu_s_goals_are_its_own() -> None:
    judged = judge(GOOD, 1e-14, device="cuda")
    assert judged["name"] == "sva_cuda"
    assert judged["goals"]["checkpointed_to_fused"] == 3.0  # type: ignore[index]
    assert (
        judge(replace(GOOD, ratios={**GOOD.ratios, "checkpointed_to_fused": 2.9}), 0.0, device="cuda")["meets"] is False
    )


def test_operations_are_those_that_the_algebra_says() -> None:
    sizes = Sizes(images=1, queries=576, dim=1024, llm_dim=4096)
    flops = {form: count_flops(form, sizes) for form in ("ours", "plain", "checkpointed")}
    # keys and values of all 19 features, forward: two matrices of 1024 x 1024 for each, in 13 layers
    saved = 2 * 13 * 576 * (2 * 16 * 1024**2) * 3
    assert flops["plain"] - flops["ours"] > 0.8 * saved
    # under checkpointing the ten layers inside the LLM run forward once more
    assert flops["checkpointed"] / flops["plain"] == pytest.approx(1 + 10 / 13 / 3, rel=0.02)


def test_kept_bytes_leave_out_parameters_and_count_a_storage_once() -> None:
    torch.manual_seed(0)
    stack = Stack(TINY)
    inputs = make_inputs(TINY, is_masked=False, device="cpu", dtype=torch.float32)
    linear = torch.nn.Linear(8, 8, bias=False)

    def one_product(form: str, stack: object, inputs: object) -> tuple[torch.Tensor, torch.Tensor]:
        visual = inputs.visual  # type: ignore[attr-defined]
        return linear(visual), linear(visual)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.sva.forward", one_product)
        patch.setattr(stack, "parameters", linear.parameters)
        assert count_kept_bytes("ours", stack, inputs) == 2 * 4 * 8 * 4
    assert count_kept_bytes("ours", stack, inputs) > 2 * 4 * 8 * 4


def test_a_measurement_holds_every_number_of_the_report() -> None:
    measured = measure(["ours", "plain", "checkpointed"], TINY, device="cpu", dtype=torch.float32, rounds=2)
    assert set(measured.ratios) == {"checkpointed_to_ours", "plain_to_ours"}
    assert {form: len(samples) for form, samples in measured.samples.items()} == {
        "ours": 2,
        "plain": 2,
        "checkpointed": 2,
    }
    assert all(sample.forward_s > 0 and sample.backward_s > 0 for runs in measured.samples.values() for sample in runs)
    assert set(measured.peak_mib) == {"ours", "plain", "checkpointed"}
    assert 0 < measured.kept_mib["ours"] < 1
    assert set(measured.fraction_of_flop_ratio) == {"checkpointed", "plain"}


def test_memory_of_a_pass_is_seen() -> None:
    sizes = replace(TINY, queries=2048, dim=256, llm_dim=256)
    peak = measure_peak("plain", sizes, device="cpu", dtype=torch.float32)
    assert peak > 4096 * 5 * 256 * 4  # more than one layer's features


def test_a_pass_that_fails_ends_the_measurement(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="measures 'ours' ended with status 1"):
        measure_peak("ours", replace(TINY, num_heads=3), device="cpu", dtype=torch.float32)
    assert "Error" in capfd.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
@pytest.mark.parametrize("module", ["benchmarks.sva", "benchmarks.model_8b"])
def test_without_a_gpu_nothing_is_measured_on_one(module: str) -> None:
    command = [sys.executable, "-m", module, "--device", "cuda"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
    assert "torch finds no CUDA device here, so nothing was measured" in result.stderr
    assert not result.stdout


def test_the_committed_result_meets_its_goals_and_says_where_it_is_from() -> None:
    result = json.loads((ROOT / "benchmarks/results/sva.json").read_text())
    assert result["name"] == "sva"
    assert result["meets"] is all(result["is_met"].values()) is True
    assert result["sizes"] == {
        "queries": 576, "images": 1, "dim": 1024, "llm_dim": 4096, "num_heads": 16, "window_sides": [1, 1, 1, 4],
        "before_llm": 3, "inside_llm": 10,
    }  # fmt: skip
    assert result["command"].startswith("python -m benchmarks.sva")
    assert {"processor", "torch", "python", "load_average"} <= result["machine"].keys()
