from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cambrian.evaluation.replies import write_replies
from cambrian.interfaces import Item, Reply
from tests.evaluation.endpoint import Endpoint, serve_judge
from tests.evaluation.tiny import PROMPT, write_tiny_benchmarks, write_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_benchmarks(tmp_path_factory.mktemp("world"))


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A judge's endpoint, which the environment names."""
    with serve_judge() as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.address)
        monkeypatch.setenv("OPENAI_API_KEY", "sesame")
        yield served


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with tiny benchmarks and the replies of two runs: one right everywhere, one that says yes to all."""
    (tmp_path / "scales").mkdir()
    (tmp_path / "params.yaml").write_text("scale: tiny\nseed: 0\n")
    prompt = json.dumps(PROMPT.model_dump())
    (tmp_path / "scales" / "tiny.yaml").write_text(
        "evaluation: {batch_size: 4, processes: 1, replies_folder: replies, "
        f"prompts: {{MME-P: {prompt}, GQA: {prompt}}}}}\n"
    )
    write_tiny_benchmarks(tmp_path / "data" / "tiny")
    monkeypatch.chdir(tmp_path)
    right = {"MME-P": ["yes", "no", "no", "yes"], "GQA": ["red", "blue", "red"]}
    blind = {"MME-P": ["yes"] * 4, "GQA": ["red"] * 3}
    write_run("right", {True: right, False: blind})
    write_run("blind", {False: blind})
    return tmp_path


def write_run(name: str, texts: dict[bool, dict[str, list[str]]]) -> None:
    items = {
        benchmark: [
            Item(f"{benchmark}/{number}", benchmark, "?", (), ("?",), "", str(number), None) for number in range(count)
        ]
        for benchmark, count in (("MME-P", 4), ("GQA", 3))
    }
    replies = {
        benchmark: [
            Reply(item.id, text, with_image)
            for with_image, said in texts.items()
            for item, text in zip(members, said[benchmark], strict=True)
        ]
        for benchmark, members in items.items()
    }
    write_replies(Path("results/tiny/runs") / name / "replies.parquet", items, replies)
