"""The fused attention against the plain form: in Triton's interpreter on any machine, and on a GPU where one is."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cambrian.models.aggregator import Aggregator, AggregatorLayer, Evidence

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: `make setup-gpu` installs it"
)
ROOT = Path(__file__).parents[2]
CASES = {
    "the release's windows": {"window_sides": [1, 1, 1, 4], "dim": 256, "num_heads": 16},
    "a window alone": {"window_sides": [3], "dim": 24, "num_heads": 3},
    "a width that is no multiple of the step": {"window_sides": [1, 2], "dim": 144, "num_heads": 2},
    "more features than the smallest block": {"window_sides": [5, 1, 1], "dim": 32, "num_heads": 2},
}


def compare(case: str, *, is_masked: bool, dtype: torch.dtype, device: str) -> None:
    """Run a stack with and without the kernel; outputs and all gradients are to agree.

    float32 sums in another order differ by some 1e-7 of the largest value; bfloat16 keeps 8 bits, and two layers round
    about ten times each.
    """
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 6e-2}[dtype]
    torch.manual_seed(0)
    sizes = CASES[case]
    stack = Aggregator(depth=2, query_dim=20, context_dim=8, **sizes).to(device, dtype)
    rows, num_features, dim = 7, sum(side**2 for side in sizes["window_sides"]), sizes["dim"]
    mask = torch.rand(rows, num_features) < 0.6
    mask[:, 0] = True
    tensors = [torch.randn(rows, 20), torch.randn(rows, num_features, dim), torch.randn(rows, 8)]
    results = []
    for is_fused in (False, True):
        for layer in stack.layers:
            assert isinstance(layer, AggregatorLayer)
            layer.is_fused = is_fused
        queries, features, context = (tensor.to(device, dtype).requires_grad_() for tensor in tensors)
        output = stack(queries, Evidence(features, mask.to(device) if is_masked else None, context))
        parameters = dict(stack.named_parameters())
        leaves = [queries, features, context, *parameters.values()]
        gradients = torch.autograd.grad((output * torch.arange(20, device=device)).sum(), leaves)
        names = ["queries", "features", "context", *parameters]
        results.append({"output": output, **dict(zip(names, gradients, strict=True))})
    for name, expected in results[0].items():
        scale = float(expected.detach().abs().max())
        if (
            name.startswith("layers")
            and ".keys." in name
            and name.endswith(".0.bias")
            and len(sizes["window_sides"]) == 1
        ):
            scale = max(scale, 1.0)  # truly zero with one encoder: a shift of all scores changes no share
        difference = float((results[1][name] - expected).detach().abs().max())
        assert difference <= tolerance * scale, f"{case}: {name} differs by {difference}, its largest value is {scale}"


def compare_all(dtype: torch.dtype) -> None:
    for case in CASES:
        for is_masked in (False, True):
            compare(case, is_masked=is_masked, dtype=dtype, device="cpu")


@needs_triton
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_kernel_gives_the_plain_form_s_outputs_and_gradients_in_the_interpreter(dtype: str) -> None:
    call = f"compare_all(torch.{dtype})"
    run(f"import torch; from tests.models.test_aggregator_kernel import compare_all; {call}", {"TRITON_INTERPRET": "1"})


@needs_triton
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("is_masked", [False, True], ids=["unmasked", "masked"])
@pytest.mark.parametrize("case", CASES)
def test_the_kernel_gives_the_plain_form_s_outputs_and_gradients_on_a_gpu(
    case: str, is_masked: bool, dtype: torch.dtype
) -> None:
    compare(case, is_masked=is_masked, dtype=dtype, device="cuda")


@needs_triton
def test_without_a_gpu_the_kernel_says_what_to_do() -> None:
    layer = AggregatorLayer(query_dim=4, dim=4, context_dim=4, window_sides=[1, 2], num_heads=1)
    layer.is_fused = True
    evidence = Evidence(torch.randn(1, 5, 4), None, torch.randn(1, 4)).standardise([1, 4])
    with pytest.raises(ValueError, match="got tensors on cpu, expected a CUDA device: leave `is_fused`"):
        layer(torch.randn(1, 4), evidence, None)


@needs_triton
def test_several_windows_are_refused_by_number() -> None:
    layer = AggregatorLayer(query_dim=4, dim=4, context_dim=4, window_sides=[2, 2], num_heads=1)
    layer.is_fused = True
    evidence = Evidence(torch.randn(1, 8, 4), None, torch.randn(1, 4)).standardise([4, 4])
    with pytest.raises(ValueError, match=r"found 2 in windows of \[4, 4\] features: leave `is_fused` False"):
        layer(torch.randn(1, 4), evidence, None)


def test_importing_the_aggregator_does_not_import_triton() -> None:
    run("import sys; import cambrian.models.aggregator; assert 'triton' not in sys.modules", {})


def run(code: str, environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
