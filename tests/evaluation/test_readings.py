"""The readings of one run as a file: the strict rules or a judge in the grader's place, and the clean part."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest

from cambrian.data.image_facts import digest_image
from cambrian.evaluation.benchmarks.registry import read_items
from cambrian.evaluation.readings import GradingBlock, write_readings
from cambrian.evaluation.replies import write_replies
from cambrian.interfaces import ArtifactError, Reply
from cambrian.params import parse_block
from tests.evaluation.tiny import PROMPT, evaluation_config, write_tiny_benchmarks

if TYPE_CHECKING:
    from pathlib import Path

    from tests.evaluation.endpoint import Endpoint

STRICT = {"kind": "strict-rules"}


def read(root: Path, grading: dict[str, Any], texts: tuple[str, ...]) -> dict[str, Any]:
    """Replies to the three GQA items (red, blue, red) and "yes" to all of MME; the first picture is leaked."""
    benchmarks = write_tiny_benchmarks(root)
    items = {name: read_items(benchmarks, name, PROMPT) for name in ("MME-P", "GQA")}
    replies = {
        "MME-P": [Reply(item.id, "yes", True) for item in items["MME-P"]],
        "GQA": [Reply(item.id, text, True) for item, text in zip(items["GQA"], texts, strict=True)],
    }
    write_replies(root / "replies.parquet", items, replies)
    pictures = sorted({item.image for members in items.values() for item in members if item.image is not None})
    first = items["GQA"][0].image
    rows = [{"digest": digest_image(data), "training_images": ["x.png"] if data == first else []} for data in pictures]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "gate.parquet")
    write_readings(
        parse_block(GradingBlock, grading, where="grading"),
        evaluation_config(root / "log", batch_size=2),
        replies=root / "replies.parquet",
        benchmarks=benchmarks,
        leakage=root / "gate.parquet",
        run="a-run",
        use_images=True,
        scale="tiny",
        output=root / "readings.json",
    )
    found: dict[str, Any] = json.loads((root / "readings.json").read_text())
    return found


def test_the_strict_rules_stand_in_the_graders_place_under_their_name(tmp_path: Path) -> None:
    found = read(tmp_path, STRICT, ("red", "a blue", "reds"))
    gqa = found["scores"]["GQA"]
    assert (found["run"], found["scale"], found["grader"]) == ("a-run", "tiny", "strict rules, no language model")
    assert (gqa["items"], gqa["leaked_items"]) == (3, 2)
    assert gqa["difference"] == pytest.approx(gqa["grader"] - gqa["rules"])
    assert gqa["grader"] == pytest.approx(200 / 3)  # "reds" is not red
    assert gqa["clean"] in (0, 100)  # one question is clean
    assert set(found["scores"]) == {"MME-P", "GQA"}


def test_a_judge_takes_the_graders_place_by_one_value_and_is_replayed_without_its_endpoint(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.message = lambda reply: "correct" if reply == "blue" else "incorrect"
    grading = {"kind": "language-model", "model": "a-judge", "recordings": str(tmp_path / "said.jsonl")}
    found = read(tmp_path / "first", grading, ("red", "blue", "red"))
    gqa = found["scores"]["GQA"]
    assert (found["grader"], gqa["rules"]) == ("a-judge", 100)
    assert gqa["grader"] == pytest.approx(100 / 3)
    assert gqa["difference"] == pytest.approx(-200 / 3)
    assert gqa["difference_error"] > 0
    assert found["scores"]["MME-P"]["grader"] == 0
    assert len(endpoint.asked) == 6  # four yes of MME, red and blue once each: what was asked is not asked again
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert read(tmp_path / "again", grading, ("red", "blue", "red")) == found
    assert len(endpoint.asked) == 6


def test_a_judge_without_endpoint_or_recordings_stops_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    grading = {"kind": "language-model", "model": "a-judge", "recordings": str(tmp_path / "said.jsonl")}
    with pytest.raises(ArtifactError, match=r"lacks \d judgements of a-judge: set OPENAI_BASE_URL"):
        read(tmp_path, grading, ("red", "blue", "red"))
    assert not (tmp_path / "readings.json").exists()
