import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cambrian.models.joined_maps import JoinedLinear, is_projected_first, join_maps

CONVNEXT = [(24, 16), (48, 8), (96, 4), (192, 2)]
"""Channels and grids of four stages, in the released encoder's proportions (384 at 256 to 3072 at 32)."""
SIDE = 6
# sums of 360 products and their interpolation in another order: the largest difference seen is 1e-14
EXACT = {"atol": 1e-10, "rtol": 0.0}


def make_maps(shapes: list[tuple[int, int]], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, channels, grid, grid, dtype=dtype, generator=generator, requires_grad=True)
        for channels, grid in shapes
    ]


def make_layer(in_features: int, dtype: torch.dtype = torch.float64, *, bias: bool = True) -> JoinedLinear:
    torch.manual_seed(1)
    return JoinedLinear(in_features, 32, bias=bias, dtype=dtype)


def project_after(layer: JoinedLinear, maps: list[Tensor], side: int) -> Tensor:
    """The plain form: every map resized, then the layer on each place."""
    return nn.functional.linear(join_maps(maps, side).flatten(2).transpose(1, 2), layer.weight, layer.bias)


def gradients(output: Tensor, layer: JoinedLinear, maps: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return list(torch.autograd.grad((output * weights).sum(), [*layer.parameters(), *maps]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "shapes",
    [CONVNEXT, CONVNEXT[2:], CONVNEXT[:2], [(5, SIDE)], [(5, SIDE), (7, 1), (9, 50)]],
    ids=["some-first", "all-first", "none-first", "same-grid", "mixed"],
)
def test_projecting_first_gives_the_same_output_and_gradients(shapes: list[tuple[int, int]], bias: bool) -> None:
    maps, layer = make_maps(shapes), make_layer(sum(channels for channels, _ in shapes), bias=bias)
    found, expected = layer(maps, SIDE), project_after(layer, maps, SIDE)
    torch.testing.assert_close(found, expected, **EXACT)
    for one, other in zip(gradients(found, layer, maps), gradients(expected, layer, maps), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize(
    ("channels", "grid", "is_first"),
    [(384, 256, False), (768, 128, False), (1536, 64, True), (3072, 32, True), (1536, 96, False)],
)
def test_of_the_released_encoder_s_stages_the_two_coarser_ones_are_projected_first(
    channels: int, grid: int, is_first: bool
) -> None:
    assert is_projected_first(channels=channels, grid=grid, dim=1024, side=96) is is_first


def test_a_layer_that_widens_a_map_much_is_not_applied_first_though_the_map_is_coarser() -> None:
    """Resizing 1000 values costs more than projecting 1 on fewer places saves."""
    assert is_projected_first(channels=1, grid=8, dim=1000, side=9) is False


def test_the_matrix_products_that_run_are_those_of_the_cheaper_order() -> None:
    maps, layer = make_maps(CONVNEXT), make_layer(360)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(maps, SIDE)
    images, dim = 2, 32
    assert counter.get_total_flops() == 2 * images * dim * ((24 + 48) * SIDE**2 + 96 * 4**2 + 192 * 2**2)


def test_its_weights_are_drawn_and_named_as_a_linear_layer_s() -> None:
    torch.manual_seed(1)
    plain = nn.Linear(7, 32, dtype=torch.float64)
    ours = make_layer(7)
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(ours.state_dict()[name], tensor) for name, tensor in plain.state_dict().items())


def test_maps_of_other_encoders_are_refused_with_both_widths() -> None:
    with pytest.raises(ValueError, match=r"maps of 24 \+ 48 channels, the layer takes 71: build it for these encoders"):
        make_layer(71)(make_maps(CONVNEXT[:2]), SIDE)
