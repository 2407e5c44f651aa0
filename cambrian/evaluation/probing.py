"""How well a linear classifier reads an encoder's frozen features (paper, NeurIPS table 7).

The paper prints no recipe. Ours: the mean over the feature map that connectors get, standardised, and least squares on
one-hot labels with a ridge; the ridge is chosen on every tenth training image. It is solved from sums, so that one pass
over the images is enough, and it has no steps, rates or seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from cambrian.artifacts import read_manifest, write_json
from cambrian.interfaces import ArtifactError, RecordError
from cambrian.params import Params
from cambrian.runtime import iter_progress, logged_step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jaxtyping import Float, Int
    from torch import Tensor

    from cambrian.models.encoders import VisionEncoder
    from cambrian.runtime import RuntimeConfig

HELD_OUT_EVERY = 10
"""Of the training images, which one in so many chooses the ridge."""


class ProbeConfig(Params):
    """The block `probe` of scales/<scale>.yaml."""

    batch_size: int = Field(gt=0)
    ridges: list[float] = Field(min_length=1)
    """Added to the diagonal of the features' correlation matrix; the best on held-out training images is taken."""


@dataclass(slots=True)
class Sums:
    """All that least squares need of some labelled features."""

    count: int
    features: Float[Tensor, " dim"]
    products: Float[Tensor, "dim dim"]
    by_class: Float[Tensor, "dim classes"]
    """Features summed over the images of each class."""
    classes: Float[Tensor, " classes"]
    """Images of each class."""

    def add(self, features: Float[Tensor, "images dim"], labels: Int[Tensor, " images"]) -> None:
        """Add a batch."""
        import torch

        hot = torch.nn.functional.one_hot(labels, len(self.classes)).to(features.dtype)
        self.count += len(features)
        self.features += features.sum(dim=0)
        self.products += features.T @ features
        self.by_class += features.T @ hot
        self.classes += hot.sum(dim=0)

    def __add__(self, other: Sums) -> Sums:
        """The sums over both sets of images."""
        return Sums(
            self.count + other.count,
            self.features + other.features,
            self.products + other.products,
            self.by_class + other.by_class,
            self.classes + other.classes,
        )


@dataclass(frozen=True, slots=True)
class LinearClassifier:
    """Scores of classes as a linear function of standardised features."""

    mean: Float[Tensor, " dim"]
    deviation: Float[Tensor, " dim"]
    weight: Float[Tensor, "dim classes"]
    bias: Float[Tensor, " classes"]

    def predict(self, features: Float[Tensor, "images dim"]) -> Int[Tensor, " images"]:
        """The class of each image; of equal scores the first."""
        found: Tensor = ((features - self.mean) / self.deviation @ self.weight + self.bias).argmax(dim=1)
        return found


def no_sums(dim: int, num_classes: int, device: str) -> Sums:
    """The sums over no image, in double precision."""
    import torch

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    return Sums(0, zeros(dim), zeros(dim, dim), zeros(dim, num_classes), zeros(num_classes))


def solve(sums: Sums, ridge: float) -> LinearClassifier:
    """The classifier of least squares with this ridge; a feature that never varies has no weight."""
    import torch

    mean = sums.features / sums.count
    covariance = sums.products / sums.count - torch.outer(mean, mean)
    variance = covariance.diagonal().clamp(min=0)
    varies = variance > 1e-12 * variance.max()
    deviation = torch.where(varies, variance.sqrt(), torch.ones_like(variance))
    shares = sums.classes / sums.count
    correlation = covariance / torch.outer(deviation, deviation) * torch.outer(varies, varies)
    correlation += ridge * torch.eye(len(mean), dtype=correlation.dtype, device=correlation.device)
    target = (sums.by_class / sums.count - torch.outer(mean, shares)) / deviation[:, None]
    weight = torch.linalg.solve(correlation, target) * varies[:, None]
    return LinearClassifier(mean, deviation, weight, shares)


def probe_encoder(
    config: ProbeConfig,
    *,
    backbone: Path,
    images: Path,
    runtime: RuntimeConfig,
    encoder: str,
    scale: str,
    output: Path,
) -> None:
    """Write the share of test images that a linear classifier on the encoder's features names rightly, in percent.

    Raises:
        ArtifactError: the encoder or the labelled images are missing or broken, or a test image has a label that no
            training image has.
    """
    import torch

    from cambrian.models.encoders import read_encoder

    read_manifest(images)
    torch.set_num_threads(runtime.threads)
    module = read_encoder(backbone).to(runtime.device).eval()
    num_classes = 1 + max(_read_labels(images / "train.parquet"))
    unknown = sorted(set(_read_labels(images / "test.parquet")) - set(range(num_classes)))
    if unknown:
        raise ArtifactError(
            f"{images}: test images have the label {unknown[0]}, training images have 0 to {num_classes - 1}: name "
            "splits of one set"
        )
    with logged_step(f"{encoder} probed") as facts:
        fitted, held = (no_sums(module.channels, num_classes, runtime.device) for _ in range(2))
        held_batches = []
        start = 0
        for features, labels in _iter_features(module, images / "train.parquet", config.batch_size, runtime.device):
            is_held = torch.arange(start, start + len(labels), device=labels.device) % HELD_OUT_EVERY == 0
            start += len(labels)
            fitted.add(features[~is_held], labels[~is_held])
            held.add(features[is_held], labels[is_held])
            held_batches.append((features[is_held], labels[is_held]))
        chosen = [sum(_count_right(solve(fitted, ridge), *batch) for batch in held_batches) for ridge in config.ridges]
        ridge = config.ridges[chosen.index(max(chosen))]
        classifier = solve(fitted + held, ridge)
        right = total = 0
        counts = torch.zeros(num_classes, dtype=torch.int64)
        for features, labels in _iter_features(module, images / "test.parquet", config.batch_size, runtime.device):
            right += _count_right(classifier, features, labels)
            total += len(labels)
            counts += torch.bincount(labels.cpu(), minlength=num_classes)
        share = right / total
        facts["top1"] = f"{100 * share:.1f}"
    write_json(
        output,
        {
            "encoder": encoder,
            "scale": scale,
            "top1": 100 * share,
            "standard_error": 100 * math.sqrt(share * (1 - share) / total),
            "most_frequent_class": 100 * int(counts.max()) / total,
            "classes": num_classes,
            "train_images": fitted.count + held.count,
            "test_images": total,
            "feature_dim": module.channels,
            "ridge": ridge,
        },
    )


def _count_right(classifier: LinearClassifier, features: Tensor, labels: Tensor) -> int:
    return int((classifier.predict(features) == labels).sum())


def _read_labels(path: Path) -> list[int]:
    import pyarrow.parquet

    labels: list[int] = pyarrow.parquet.ParquetFile(path).read(columns=["label"]).column("label").to_pylist()
    return labels


def _iter_features(
    encoder: VisionEncoder, path: Path, batch_size: int, device: str
) -> Iterator[tuple[Float[Tensor, "images dim"], Int[Tensor, " images"]]]:
    """Batches of features in double precision, with labels, in the order of the file."""
    import numpy as np
    import pyarrow.parquet
    import torch

    from cambrian.data.images import preprocess

    file = pyarrow.parquet.ParquetFile(path)
    total = -(-file.metadata.num_rows // batch_size)
    for batch in iter_progress(file.iter_batches(batch_size=batch_size), total=total, what=path.name):
        rows = batch.to_pylist()
        try:
            views = [preprocess(row["image"]["bytes"], [encoder.image_spec])[0] for row in rows]
        except RecordError as error:
            raise ArtifactError(f"{path}: {error}: build the analysis sets again") from error
        pixels = torch.from_numpy(np.stack(views)).to(device)
        with torch.inference_mode():
            features = encoder(pixels).double().mean(dim=(2, 3))
        yield features, torch.tensor([row["label"] for row in rows], device=device)
