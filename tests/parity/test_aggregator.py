from pathlib import Path

import pytest
import torch
from torch import Tensor

from cambrian.models.aggregator import Aggregator, Evidence
from tests.parity.files import golden_files, official_aggregator_name, part_of, read_golden

# float32 sums in another order than the official modules: the largest difference seen is 1e-6 for outputs
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}
# float64 against the official modules in float64
EXACT = {"atol": 1e-10, "rtol": 1e-10}
# the same, where the file keeps the value rounded to float32: half a unit in its last place is 6e-8
ROUNDED = {"atol": 1e-10, "rtol": 1e-7}

SVA_FILES = golden_files("sva_joint_")


@pytest.mark.parametrize("path", SVA_FILES, ids=lambda path: path.stem)
def test_the_aggregator_gives_the_official_outputs_and_gradients(path: Path) -> None:
    _, tensors = read_golden(path)
    model, inputs, output = run(path, torch.float32, masked=True)
    torch.testing.assert_close(output, tensors["output"][:, 0], **TOLERANCE)
    for name, tensor in inputs.items():
        torch.testing.assert_close(tensor.grad, tensors[f"grad.{name}"].reshape(tensor.shape), **TOLERANCE)
    assert_parameter_gradients(model, part_of(tensors, "grad.param."), torch.float32, TOLERANCE)


@pytest.mark.parametrize("path", SVA_FILES, ids=lambda path: path.stem)
def test_the_aggregator_without_a_mask_sees_everything(path: Path) -> None:
    _, tensors = read_golden(path)
    _, _, output = run(path, torch.float32, masked=False)
    torch.testing.assert_close(output, tensors["output_unmasked"][:, 0], **TOLERANCE)


@pytest.mark.parametrize("path", SVA_FILES, ids=lambda path: path.stem)
def test_the_aggregator_agrees_to_ten_digits_in_double_precision(path: Path) -> None:
    _, tensors = read_golden(path)
    model, inputs, output = run(path, torch.float64, masked=True)
    torch.testing.assert_close(output, tensors["f64.output"][:, 0], **EXACT)
    for name, tensor in inputs.items():
        if f"f64.grad.{name}" in tensors:
            torch.testing.assert_close(tensor.grad, tensors[f"f64.grad.{name}"].reshape(tensor.shape), **EXACT)
    if stored := part_of(tensors, "f64.grad.param."):
        is_rounded = any(tensor.dtype == torch.float32 for tensor in stored.values())
        assert_parameter_gradients(model, stored, torch.float64, ROUNDED if is_rounded else EXACT)


def run(path: Path, dtype: torch.dtype, *, masked: bool) -> tuple[Aggregator, dict[str, Tensor], Tensor]:
    config, tensors = read_golden(path)
    model = Aggregator(
        depth=config["depth"],
        query_dim=config["q_dim"],
        dim=config["hidden"],
        context_dim=config["context_dim"],
        window_sides=config["windows"],
        num_heads=config["num_heads"],
    ).to(dtype)
    parameters = part_of(tensors, "param.")
    ours = dict(model.named_parameters())
    assert {official_aggregator_name(name) for name in ours} == set(parameters)
    with torch.no_grad():
        for name, parameter in ours.items():
            parameter.copy_(parameters[official_aggregator_name(name)])
    encoders = range(len(config["windows"]))
    names = ["queries", "context", *(f"latent_{index}" for index in encoders)]
    inputs = {name: tensors[f"input.{name}"].to(dtype).requires_grad_() for name in names}
    evidence = Evidence(
        features=torch.cat([inputs[f"latent_{index}"] for index in encoders], dim=1),
        mask=torch.cat([tensors[f"input.mask_{index}"] for index in encoders], dim=1) if masked else None,
        context=inputs["context"][:, 0],
    )
    output = model(inputs["queries"][:, 0], evidence)
    (output * tensors["loss_weight"][:, 0].to(dtype)).sum().backward()
    return model, inputs, output


def assert_parameter_gradients(
    model: Aggregator, stored: dict[str, Tensor], dtype: torch.dtype, tolerance: dict[str, float]
) -> None:
    assert len(stored) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        expected = stored[official_aggregator_name(name)].to(dtype)
        torch.testing.assert_close(parameter.grad, expected, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
