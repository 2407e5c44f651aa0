import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from cambrian.models import window_products
from cambrian.models.window_products import project_normalised, read_windows, score_windows, standardise_windows

ROWS, HEADS, HEAD_DIM, WINDOW, DIM = 5, 2, 3, 4, 6


@pytest.fixture(autouse=True, params=[1, 2 * HEADS * DIM * 8, 2**20], ids=["row by row", "two rows", "all at once"])
def buffer_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(window_products.BUFFER_BYTES, "cpu", request.param)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def test_scores_are_products_of_projected_queries_with_features() -> None:
    queries, weight, windows, table = draws()
    scores, products = score_windows(queries, weight, windows, table)
    torch.testing.assert_close(scores, torch.einsum("rhx,hxd,rtd->rht", queries, weight, windows))
    torch.testing.assert_close(products, torch.einsum("rtd,td->rt", windows, table))
    assert gradcheck(score_windows, (queries, weight, windows, table))


def test_reading_projects_attended_sums() -> None:
    _, weight, windows, _ = draws()
    attention = draw(ROWS, HEADS, WINDOW)
    expected = torch.einsum("rht,rtd,hxd->rhx", attention, windows, weight)
    torch.testing.assert_close(read_windows(attention, windows, weight), expected)
    assert gradcheck(read_windows, (attention, windows, weight))


def test_normalised_features_are_projected_with_scale_and_shift() -> None:
    features, scale, shift, weight = draw(ROWS, DIM), draw(DIM), draw(DIM), draw(HEAD_DIM, DIM)
    expected = (features * scale + shift) @ weight.T
    torch.testing.assert_close(project_normalised(features, scale, shift, weight), expected)
    assert gradcheck(project_normalised, (features, scale, shift, weight))


def test_standardised_windows_and_deviations_give_the_features_back() -> None:
    torch.manual_seed(0)
    features = draw(ROWS, 1 + WINDOW, DIM)
    windows, deviations = standardise_windows(features, [1, WINDOW])
    assert [window.shape[1] for window in windows] == [1, WINDOW]
    joined, divisors = torch.cat(windows, dim=1), torch.cat(deviations, dim=1)[..., None]
    torch.testing.assert_close(joined * divisors + features.mean(dim=2, keepdim=True), features)
    variance = features.var(dim=2, correction=0, keepdim=True)
    torch.testing.assert_close(divisors, (variance + window_products.NORM_EPSILON).sqrt())

    def parts(given: Tensor) -> tuple[Tensor, ...]:
        windows, deviations = standardise_windows(given, [1, WINDOW])
        return *windows, *deviations

    assert gradcheck(parts, (features,))


def draws() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return draw(ROWS, HEADS, HEAD_DIM), draw(HEADS, HEAD_DIM, DIM), draw(ROWS, WINDOW, DIM), draw(WINDOW, DIM)
