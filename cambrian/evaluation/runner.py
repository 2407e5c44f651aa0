"""Evaluate a run: every item with and without its image, raw replies, scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cambrian.artifacts import read_manifest, write_json
from cambrian.evaluation.asking import Desk, Exam, take_exam
from cambrian.evaluation.benchmarks.registry import find_benchmark
from cambrian.evaluation.replies import write_replies
from cambrian.evaluation.scoring import score_replies
from cambrian.runtime import logged_step

if TYPE_CHECKING:
    from cambrian.evaluation.config import EvaluationConfig
    from cambrian.evaluation.subjects import Subject
    from cambrian.interfaces import Item, Reply
    from cambrian.runtime import RuntimeConfig


def evaluate_run(
    subject: Subject,
    *,
    benchmarks: Path,
    config: EvaluationConfig,
    runtime: RuntimeConfig,
    use_images: bool,
    replies_path: Path,
    scores_path: Path,
    run: str,
    scale: str,
) -> None:
    """Ask a model every item, with and without the image, and write its replies and its scores.

    A model that was trained without images is asked without them only.

    Raises:
        ArtifactError: the model, a backbone or a benchmark is missing or broken.
        ParamsError: `config.prompts` names an unknown score.
    """
    for name in config.prompts:
        find_benchmark(name)
    read_manifest(benchmarks)
    decoding = {
        "batch_size": config.batch_size,  # other batches round differently
        "runtime": runtime.model_dump(mode="json"),
    }
    folder = subject.find_log(Path(config.replies_folder), f"{scale}-{run}", decoding)
    desk = Desk(folder, config.batch_size, runtime.device, runtime.threads)
    exam = Exam(benchmarks, config.prompts, (True, False) if use_images else (False,))
    items: dict[str, list[Item]] = {}
    replies: dict[str, list[Reply]] = {}
    with logged_step(f"{run} evaluated") as facts:
        for name, asked, given in take_exam(subject, exam, desk, processes=config.processes):
            items[name] = [replace(item, image=None) for item in asked]  # scoring needs none of the pictures
            replies[name] = given
        facts["items"] = sum(map(len, items.values()))
    write_replies(replies_path, items, replies)
    write_json(scores_path, {"run": run, "scale": scale, **score_replies(items, replies)})
