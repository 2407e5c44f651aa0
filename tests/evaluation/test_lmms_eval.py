"""lmms-eval itself, on one task with local data: its replies and its score are those of this project's own runner."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from cambrian.artifacts import write_folder
from cambrian.evaluation.replies import read_replies
from cambrian.evaluation.runner import evaluate_run
from cambrian.evaluation.subjects import OwnModel
from cambrian.runtime import RuntimeConfig
from tests.evaluation.tiny import PROMPT, evaluation_config, picture

TASK = "gqa_here"
TASKS_FOLDER = Path(__file__).parent / "lmms_task"
COLOURS = ((255, 0, 0), (0, 0, 255), (0, 255, 0), (90, 90, 90))
QUESTIONS = ("what colour ?", "is it red ?", "where is it ?")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lmms_eval") is None,
    reason="lmms-eval needs an environment of its own, in which DVC is not: make test-lmms",
)


def write_questions(benchmarks: Path, answers: list[str]) -> Path:
    """The folder of benchmarks with GQA alone: three questions on each of four pictures."""
    asked = [(question, colour) for colour in COLOURS for question in QUESTIONS]
    rows = [
        {"id": str(number), "question": question, "answer": answer, "image": {"bytes": picture(colour), "path": None}}
        for number, ((question, colour), answer) in enumerate(zip(asked, answers, strict=True))
    ]
    with write_folder(benchmarks) as folder:
        (folder / "GQA").mkdir()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "GQA" / "test.parquet")
    return benchmarks


def evaluate_ourselves(model: tuple[Path, Path], benchmarks: Path, output: Path) -> tuple[list[str], float]:
    config = evaluation_config(output / "log", batch_size=4).model_copy(update={"prompts": {"GQA": PROMPT}})
    evaluate_run(
        OwnModel(*model),
        benchmarks=benchmarks,
        config=config,
        runtime=RuntimeConfig(device="cpu", threads=1),
        use_images=True,
        replies_path=output / "replies.parquet",
        scores_path=output / "scores.json",
        run="a-run",
        scale="tiny",
    )
    texts = [reply.text for reply in read_replies(output / "replies.parquet")["GQA"] if reply.with_image]
    return texts, json.loads((output / "scores.json").read_text())["scores"]["GQA"]["with_image"]


def evaluate_by_lmms_eval(model: tuple[Path, Path], folder: Path) -> tuple[list[str], float]:
    """Run the command in `folder`, where the task finds its data."""
    arguments = {
        "--model": "cambrian_regenerated",
        "--model_args": f"model={model[0]},backbones={model[1]}",
        "--device": "cpu",
        "--batch_size": "4",
        "--tasks": TASK,
        "--include_path": str(TASKS_FOLDER),
        "--gen_kwargs": f"max_new_tokens={PROMPT.max_new_tokens}",
        "--output_path": str(folder / "found"),
    }
    command = [sys.executable, "-m", "cambrian.evaluation.lmms_command", "--log_samples"]
    command += [word for pair in arguments.items() for word in pair]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = folder.glob(f"found/*/*_samples_{TASK}.jsonl")
    (results,) = folder.glob("found/*/*_results.json")
    rows: list[dict[str, Any]] = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    texts = [row["filtered_resps"] for row in sorted(rows, key=lambda row: int(row["doc_id"]))]
    return texts, json.loads(results.read_text())["results"][TASK]["exact_match,none"]


def test_lmms_eval_gets_the_replies_and_the_score_of_this_projects_runner(
    tmp_path: Path, model: tuple[Path, Path]
) -> None:
    unknown = write_questions(tmp_path / "unknown", ["green"] * 12)
    replies, _ = evaluate_ourselves(model, unknown, tmp_path / "first")
    assert len(set(replies)) > 1  # the pictures or the questions make a difference
    answers = [text if number % 3 else "green" for number, text in enumerate(replies)]  # eight of twelve are right
    benchmarks = write_questions(tmp_path / "data" / "mini" / "benchmarks", answers)
    own_replies, own_score = evaluate_ourselves(model, benchmarks, tmp_path / "own")
    assert (own_replies, own_score) == (replies, pytest.approx(200 / 3))
    found_replies, found_score = evaluate_by_lmms_eval(model, tmp_path)
    assert found_replies == own_replies
    assert 100 * found_score == pytest.approx(own_score)
