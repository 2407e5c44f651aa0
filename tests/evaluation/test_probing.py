"""Linear probes: the solution against scikit-learn's, one pass against all at once, and what is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from cambrian.artifacts import write_folder
from cambrian.evaluation.probing import ProbeConfig, no_sums, probe_encoder, solve
from cambrian.interfaces import ArtifactError
from cambrian.runtime import RuntimeConfig
from tests.evaluation.tiny import picture, write_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = ((250, 10, 10), (10, 250, 10), (10, 10, 250))
RUNTIME = RuntimeConfig(device="cpu", threads=1)


def draw(count: int, dim: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (count,), generator=generator)
    features = torch.randn(count, dim, generator=generator).double() * 3 + 5
    features[:, 0] += 4 * labels
    return features, labels


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_the_solution_is_ridge_regression_on_one_hot_labels(ridge: float) -> None:
    from sklearn.linear_model import Ridge

    features, labels = draw(200, 7, 4)
    sums = no_sums(7, 4, "cpu")
    for start in range(0, 200, 64):  # batches of another size than the whole
        sums.add(features[start : start + 64], labels[start : start + 64])
    found = solve(sums, ridge)
    mean, deviation = features.numpy().mean(axis=0), features.numpy().std(axis=0)
    model = Ridge(alpha=ridge * 200).fit((features.numpy() - mean) / deviation, np.eye(4)[labels.numpy()])
    np.testing.assert_allclose(found.weight.numpy(), model.coef_.T, atol=1e-10)
    np.testing.assert_allclose(found.bias.numpy(), model.intercept_, atol=1e-10)


def test_sums_of_two_parts_are_those_of_the_whole_and_a_constant_feature_has_no_weight() -> None:
    features, labels = draw(60, 5, 3)
    features[:, 2] = 7.0
    parts = [no_sums(5, 3, "cpu") for _ in range(3)]
    parts[0].add(features[:25], labels[:25])
    parts[1].add(features[25:], labels[25:])
    parts[2].add(features, labels)
    joined, whole = solve(parts[0] + parts[1], 0.1), solve(parts[2], 0.1)
    torch.testing.assert_close(joined.weight, whole.weight)
    assert torch.equal(whole.weight[2], torch.zeros(3, dtype=torch.float64))


def write_images(folder: Path, train: list[int], test: list[int], *, broken: bool = False) -> Path:
    with write_folder(folder) as output:
        for part, labels in (("train", train), ("test", test)):
            rows = [
                {"image": {"bytes": picture(COLOURS[label % 3])[: 20 if broken else None], "path": ""}, "label": label}
                for label in labels
            ]
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), output / f"{part}.parquet")
    return folder


def probe(tmp_path: Path, images: Path) -> dict[str, float]:
    _, backbones = write_tiny_model(tmp_path)
    output = tmp_path / "eye.json"
    config = ProbeConfig(batch_size=8, ridges=[0.001, 0.1])
    probe_encoder(
        config, backbone=backbones / "eye", images=images, runtime=RUNTIME, encoder="eye", scale="tiny", output=output
    )
    found: dict[str, float] = json.loads(output.read_text())
    return found


def test_an_encoder_is_probed_on_images_that_it_was_not_fitted_on(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [0, 1, 2] * 10, [0, 1, 2, 0])
    found = probe(tmp_path, images)
    assert found["top1"] == 100
    assert (found["standard_error"], found["most_frequent_class"], found["classes"]) == (0, 50, 3)
    assert (found["train_images"], found["test_images"], found["feature_dim"]) == (30, 4, 8)


def test_labels_that_no_feature_tells_apart_give_a_binomial_error(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [0, 3] * 12, [0, 3] * 8)  # 0 and 3 have one colour
    found = probe(tmp_path, images)
    assert found["top1"] == 50
    assert found["standard_error"] == pytest.approx(100 * (0.25 / 16) ** 0.5)


def test_splits_of_two_sets_are_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [0, 1] * 5, [0, 7])
    with pytest.raises(ArtifactError, match="test images have the label 7, training images have 0 to 1"):
        probe(tmp_path, images)


def test_a_broken_picture_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", [0, 1], [0], broken=True)
    with pytest.raises(ArtifactError, match=r"train.parquet: .*build the analysis sets again"):
        probe(tmp_path, images)
