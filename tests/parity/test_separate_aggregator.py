"""The release's separate aggregator, against the official module."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cambrian.models.aggregator import Evidence
from cambrian.release.separate_aggregator import SeparateAggregatorLayer
from tests.parity.files import golden_files, part_of, read_golden

# float32 sums in another order than the official modules
TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}
# float64 against the official modules in float64
EXACT = {"atol": 1e-10, "rtol": 1e-10}

SVA_FILES = golden_files("sva_sep_")


@pytest.mark.parametrize("path", SVA_FILES, ids=lambda path: path.stem)
def test_the_separate_form_gives_the_official_outputs_and_gradients(path: Path) -> None:
    _, tensors = read_golden(path)
    layers, inputs, output = run(path, torch.float32, masked=True)
    torch.testing.assert_close(output, tensors["output"][:, 0], **TOLERANCE)
    for name, tensor in inputs.items():
        torch.testing.assert_close(tensor.grad, tensors[f"grad.{name}"].reshape(tensor.shape), **TOLERANCE)
    stored = part_of(tensors, "grad.param.layers.")
    found = dict(layers.named_parameters())
    assert found.keys() == stored.keys()
    for name, parameter in found.items():
        torch.testing.assert_close(
            parameter.grad, stored[name].float(), **TOLERANCE, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("path", SVA_FILES, ids=lambda path: path.stem)
def test_the_separate_form_without_a_mask_sees_everything(path: Path) -> None:
    _, tensors = read_golden(path)
    _, _, output = run(path, torch.float32, masked=False)
    torch.testing.assert_close(output, tensors["output_unmasked"][:, 0], **TOLERANCE)


@pytest.mark.parametrize("path", SVA_FILES, ids=lambda path: path.stem)
def test_the_separate_form_agrees_to_ten_digits_in_double_precision(path: Path) -> None:
    _, tensors = read_golden(path)
    _, inputs, output = run(path, torch.float64, masked=True)
    torch.testing.assert_close(output, tensors["f64.output"][:, 0], **EXACT)
    for name, tensor in inputs.items():
        if f"f64.grad.{name}" in tensors:
            torch.testing.assert_close(tensor.grad, tensors[f"f64.grad.{name}"].reshape(tensor.shape), **EXACT)


def run(path: Path, dtype: torch.dtype, *, masked: bool) -> tuple[nn.ModuleList, dict[str, Tensor], Tensor]:
    config, tensors = read_golden(path)
    layers = nn.ModuleList(
        SeparateAggregatorLayer(
            query_dim=config["q_dim"],
            dim=config["hidden"],
            context_dim=config["context_dim"],
            window_sides=config["windows"],
            num_heads=config["num_heads"],
        )
        for _ in range(config["depth"])
    )
    layers.load_state_dict(part_of(tensors, "param.layers."))
    layers.to(dtype)
    encoders = range(len(config["windows"]))
    names = ["queries", "context", *(f"latent_{index}" for index in encoders)]
    inputs = {name: tensors[f"input.{name}"].to(dtype).requires_grad_() for name in names}
    evidence = Evidence(
        features=torch.cat([inputs[f"latent_{index}"] for index in encoders], dim=1),
        mask=torch.cat([tensors[f"input.mask_{index}"] for index in encoders], dim=1) if masked else None,
        context=inputs["context"][:, 0],
    )
    output = inputs["queries"][:, 0]
    for layer in layers:
        output = layer(output, evidence)
    (output * tensors["loss_weight"][:, 0].to(dtype)).sum().backward()
    return layers, inputs, output
