"""Linear probes: the solution against scikit-learn's, one pass against all at once, and what is refused."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from cambrian.artifacts import write_folder
from cambrian.backbones import published_encoders
from cambrian.backbones.config import FolderSource, PublishedEncoder
from cambrian.backbones.published_encoders import convert_published_encoder
from cambrian.data.analysis_sets import AnalysisSet, write_analysis_set
from cambrian.evaluation.probing import ProbeConfig, no_sums, probe_encoder, solve
from cambrian.interfaces import ArtifactError
from cambrian.models.tensor_files import write_tensors
from cambrian.models.torchvision_shim import declare_missing_operators
from cambrian.params import parse_block
from cambrian.runtime import RuntimeConfig
from tests.backbones.diffusion import DIFFUSION, write_diffusion
from tests.backbones.published import HIDDEN, VIT, timm_tensors, tiny, write_beit, write_clip
from tests.evaluation.tiny import picture, write_tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.release.encoders import EncoderRow

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


def encode_picture(colour: tuple[int, int, int], *, form: str, mode: str) -> bytes:
    """A picture as a published set holds it: JPEG or PNG, in colour, grey or with a palette, of any side."""
    file = io.BytesIO()
    Image.new("RGB", (31, 23), colour).convert(mode, palette=Image.Palette.ADAPTIVE).save(file, form)
    return file.getvalue()


def write_published_split(folder: Path, split: str, labels: list[int]) -> dict[str, Any]:
    """A clone of the hub's folder of a labelled image set, and how a scale's file names one of its splits."""
    kinds = (("JPEG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"))
    rows = [
        {
            "image": {"bytes": encode_picture(COLOURS[label], form=kinds[n % 3][0], mode=kinds[n % 3][1]), "path": ""},
            "label": label,
        }
        for n, label in enumerate(labels)
    ]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["tench", "shark", "cock"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    folder.mkdir(exist_ok=True)
    for part in range(2):
        table = pyarrow.Table.from_pylist(rows[part::2]).replace_schema_metadata(metadata)
        pyarrow.parquet.write_table(table, folder / f"{split}-0000{part}-of-00002.parquet")
    return {
        "source": {"kind": "folder", "path": str(folder)},
        "layout": {"kind": "table", "configurations": ["default"], "split": split},
        "fields": ["image", "label"],
    }


def write_convnext(folder: Path) -> None:
    row = tiny("convnext-xxl-1024-stages", side=64, **CONVNEXT)
    tensors = timm_tensors(row)
    named = {f"visual.trunk.{key}": value for key, value in tensors.items() if not key.startswith(("head.p", "head.f"))}
    named["visual.head.proj.weight"] = tensors["head.fc.weight"]
    folder.mkdir()
    write_tensors(folder / "open_clip_model.safetensors", named)


def tiny_diffusion() -> EncoderRow:
    row = tiny("sd21-512", side=64)
    features = row.spec.features.model_copy(update={"layers": (1,)})  # of its two up blocks, the last
    return row.model_copy(update={"model_args": DIFFUSION, "spec": row.spec.model_copy(update={"features": features})})


CONVNEXT = {"depths": [1, 1, 1, 1], "dims": [4, 6, 8, 10]}
MIDAS = {**HIDDEN, "image_size": 32, "patch_size": 16}
PUBLISHED = {
    "clip": (lambda: tiny("clip-l-336", **VIT), write_clip, 16),
    "midas": (lambda: tiny("midas31-l-512", side=32, **MIDAS), write_beit, 16),
    "convnext": (lambda: tiny("convnext-xxl-1024-stages", side=64, **CONVNEXT), write_convnext, 28),
    "diffusion": (lambda: tiny_diffusion(), write_diffusion, 8),
}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_a_published_encoder_is_probed_on_a_published_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """As scales gpu and paper do it: the publisher's files, half precision on disk, and the set's own splits."""
    make_row, write, channels = PUBLISHED[kind]
    declare_missing_operators()
    write(tmp_path / "source")
    monkeypatch.setattr(published_encoders, "find_encoder_row", lambda name, side: make_row())
    source = FolderSource(kind="folder", path=str(tmp_path / "source"))
    config = PublishedEncoder(kind="published-encoder", row="tiny", side=None, source=source, dtype="bfloat16")
    with write_folder(tmp_path / "encoder") as folder:
        convert_published_encoder(config, seed=0, name="tiny", folder=folder)
    parts = {
        part: write_published_split(tmp_path / "imagenet", split, labels)
        for part, split, labels in (("train", "train", [0, 1, 2] * 8), ("test", "validation", [2, 0, 1, 1]))
    }
    values = {"kind": "published-labels", **parts}
    write_analysis_set(
        parse_block(AnalysisSet, values, where="set"), name="labelled", seed=0, output=tmp_path / "labelled"
    )
    probe_encoder(
        ProbeConfig(batch_size=8, ridges=[1e-6, 0.1]),
        backbone=tmp_path / "encoder",
        images=tmp_path / "labelled",
        runtime=RUNTIME,
        encoder=kind,
        scale="tiny",
        output=tmp_path / "found.json",
    )
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["top1"] == 100
    assert (found["classes"], found["train_images"], found["test_images"]) == (3, 24, 4)
    assert found["feature_dim"] == channels
