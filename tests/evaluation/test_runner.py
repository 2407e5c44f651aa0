from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.parquet
import pytest

from cambrian.interfaces import ArtifactError
from tests.evaluation.tiny import evaluate, write_tiny_benchmarks

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.interfaces import Batch


def read_rows(output: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.ParquetFile(output / "replies.parquet").read().to_pylist()
    return rows


def test_every_item_is_asked_with_and_without_its_image(
    model: tuple[Path, Path], benchmarks: Path, tmp_path: Path
) -> None:
    scores = evaluate(model, benchmarks, tmp_path)
    rows = read_rows(tmp_path)
    assert [(row["benchmark"], row["with_image"]) for row in rows] == [
        *[("MME-P", True)] * 4,
        *[("MME-P", False)] * 4,
        *[("GQA", True)] * 3,
        *[("GQA", False)] * 3,
    ]
    assert (scores["run"], scores["scale"]) == ("a-run", "tiny")
    assert list(scores["scores"]) == ["GQA", "MME-P"]
    assert set(scores["scores"]["GQA"]) == {"with_image", "without_image", "standard_error", "chance", "items"}
    assert list(scores["categories"]) == ["General"]


def test_the_image_reaches_the_model_and_only_where_it_is_shown(
    model: tuple[Path, Path], benchmarks: Path, tmp_path: Path
) -> None:
    evaluate(model, benchmarks, tmp_path)
    gqa = [row for row in read_rows(tmp_path) if row["benchmark"] == "GQA"]
    with_image = [row["reply"] for row in gqa if row["with_image"]]
    without_image = [row["reply"] for row in gqa if not row["with_image"]]
    assert len(set(without_image)) == 1  # one question, three times
    assert set(with_image) != set(without_image)
    assert with_image[0] == with_image[2]


def test_the_batch_size_changes_no_reply(model: tuple[Path, Path], benchmarks: Path, tmp_path: Path) -> None:
    files = []
    for batch_size in (1, 3, 64):
        evaluate(model, benchmarks, tmp_path / str(batch_size), batch_size=batch_size)
        files.append([(tmp_path / str(batch_size) / name).read_bytes() for name in ("replies.parquet", "scores.json")])
    assert files[0] == files[1] == files[2]


def test_equal_prompts_are_asked_once(
    model: tuple[Path, Path], benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cambrian.models import generation

    asked = []
    generate = generation.generate

    def count(model: Any, batch: Batch, **options: Any) -> list[list[int]]:
        asked.append((len(batch.input_ids), 0 if batch.images is None else len(batch.images.sizes)))
        return generate(model, batch, **options)

    monkeypatch.setattr(generation, "generate", count)
    evaluate(model, benchmarks, tmp_path)
    # MME: four questions, two of them the same without their pictures; GQA: the first and third are the same.
    assert asked == [(4, 4), (2, 0), (2, 2), (1, 0)]


def test_a_run_without_images_is_asked_without_them_only(
    model: tuple[Path, Path], benchmarks: Path, tmp_path: Path
) -> None:
    scores = evaluate(model, benchmarks, tmp_path, use_images=False)
    assert {row["with_image"] for row in read_rows(tmp_path)} == {False}
    assert scores["average"]["with_image"] is None
    assert scores["scores"]["MME-P"]["with_image"] is None


def test_an_unfinished_folder_of_benchmarks_is_refused(model: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "GQA").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="missing or was not finished"):
        evaluate(model, tmp_path / "benchmarks", tmp_path)


def test_a_question_outside_the_vocabulary_is_named(model: tuple[Path, Path], tmp_path: Path) -> None:
    benchmarks = write_tiny_benchmarks(tmp_path, question="what tint ?")
    with pytest.raises(ValueError, match="'tint' in 'what tint \\?'"):
        evaluate(model, benchmarks, tmp_path)
    assert not (tmp_path / "scores.json").exists()
    assert not (tmp_path / "replies.parquet").exists()


def test_a_truncated_picture_is_named(model: tuple[Path, Path], tmp_path: Path) -> None:
    benchmarks = write_tiny_benchmarks(tmp_path, cut_pictures_at=60)
    with pytest.raises(ArtifactError, match="a picture of MME-P with images: 60 bytes cannot be decoded"):
        evaluate(model, benchmarks, tmp_path)
    assert not (tmp_path / "scores.json").exists()
