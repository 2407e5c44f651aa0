"""`cambrian export RUN`: a run's stored replies in the formats of the release and of VLMEvalKit, and as submissions.

- `release`: `answers_RUN.jsonl` per benchmark, a line per question with what the release's scorer of that benchmark
  reads (eval/eval/NAME/NAME_test.py): its keys, and the true answer in its form;
- `vlmevalkit`: `RUN_BENCHMARK.tsv`, its columns and `prediction` (VLMEvalKit reads it with PRED_FORMAT=tsv);
- `submission`: the JSON list of `question_id` and `answer` that servers take where answers are not public.
"""

from __future__ import annotations

import csv
import json
import string
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import read_manifest, write_folder, write_json
from cambrian.evaluation.benchmarks.registry import read_items
from cambrian.evaluation.compare import read_answers
from cambrian.evaluation.config import EvaluationConfig
from cambrian.evaluation.scoring import find_texts
from cambrian.interfaces import ArtifactError
from cambrian.params import ParamsFiles

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from cambrian.evaluation.compare import Answers
    from cambrian.interfaces import Item

    Writer = Callable[[Path, str, str, Sequence[Item], Sequence[str]], None]

_BRACKETED = ("MMVP", "BLINK", "CV-Bench-2D", "CV-Bench-3D")
"""The release's scorer takes the second character of the true answer: `(A)`."""
_LISTED = ("OCRBench", "TextVQA", "VizWiz")
"""Its scorer goes through the true answers, even where there is one."""


def export_answers(answers: Answers, items: Mapping[str, Sequence[Item]], *, run: str, form: str, output: Path) -> None:
    """Write one file per benchmark into a folder, which appears whole or not at all.

    Raises:
        ArtifactError: an item has no reply or two.
    """
    write = FORMATS[form]
    with write_folder(output, run=run, form=form) as folder:
        for name, members in items.items():
            if name not in answers.replies:
                raise ArtifactError(f"{answers.name} has no replies to {name}: it was evaluated with other scores")
            texts = find_texts(members, answers.replies[name], with_image=answers.with_image)
            write(folder, run, name, members, texts)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `cambrian export`."""
    parser.add_argument("run", metavar="RUN", help="a run of params.yaml, or a folder with its replies")
    parser.add_argument("--format", choices=sorted(FORMATS), required=True)
    parser.add_argument("--output", type=Path, required=True, help="a folder, which is replaced")


def run(arguments: argparse.Namespace) -> None:
    """Export one run of the scale that params.yaml names."""
    files = ParamsFiles()
    folder = Path("data") / files.scale / "benchmarks"
    read_manifest(folder)
    config = files.block("evaluation", EvaluationConfig)
    items = {name: read_items(folder, name, prompt) for name, prompt in config.prompts.items()}
    answers = read_answers(arguments.run, Path("results") / files.scale / "runs")
    name = Path(arguments.run).name
    export_answers(answers, items, run=name, form=arguments.format, output=arguments.output)


def _native_id(item: Item) -> str:
    return item.id.split("/", 1)[1]


def _truth(item: Item) -> Any:
    """A letter for multiple choice, a list where there are several answers."""
    if item.choices and item.answers and item.answers[0] in item.choices:
        return string.ascii_uppercase[item.choices.index(item.answers[0])]
    return item.answers[0] if len(item.answers) == 1 else list(item.answers)


def _release_truth(name: str, item: Item) -> Any:
    """The true answer in the form that the release's scorer of this benchmark compares with."""
    if name in _LISTED:
        return list(item.answers)
    truth = _truth(item)
    if name == "AI2D":
        return str(string.ascii_uppercase.index(truth))
    if name in _BRACKETED:
        return f"({truth})"
    return truth[0] if name == "MMMU-V" and isinstance(truth, list) else truth


def _release_keys(name: str, item: Item, text: str) -> dict[str, Any]:
    """What the release's scorer of this benchmark reads beside the common keys.

    Those of SEED-I and Q-Bench tell kinds of question apart, which items here do not hold: all stand under one kind, so
    of their tables the total holds alone.
    """
    match name:
        case "MMB" | "MMBench-CN":
            return {"prediction": text, "source_id": item.group}
        case "MMVP":
            return {"text_options": list(item.choices)}
        case "SQA-I":
            return {"text_answer": item.answers[0], "type": True}
        case "MMMU-V":
            return {"type": "multiple-choice" if item.choices else "open"}
        case "MathVista-M":
            return {"type": item.category}
        case "SEED-I":
            return {"category": 1}
        case "Q-Bench":
            return {"type": 1}
    return {}


def _write_release(folder: Path, run: str, name: str, items: Sequence[Item], texts: Sequence[str]) -> None:
    path = folder / name / f"answers_{run}.jsonl"
    path.parent.mkdir()
    with path.open("w", encoding="utf-8") as file:
        for item, text in zip(items, texts, strict=True):
            line = {
                "question_id": _native_id(item), "prompt": item.question, "answer": text,
                "gt_answer": _release_truth(name, item), "category": item.category, "options": list(item.choices),
                "model_id": run, **_release_keys(name, item, text),
            }  # fmt: skip
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _write_vlmevalkit(folder: Path, run: str, name: str, items: Sequence[Item], texts: Sequence[str]) -> None:
    most = max(len(item.choices) for item in items)
    letters = string.ascii_uppercase[:most]
    with (folder / f"{run}_{name}.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "question", *letters, "answer", "category", "prediction"])
        for item, text in zip(items, texts, strict=True):
            options = [*item.choices, *[""] * (most - len(item.choices))]
            truth = _truth(item)
            answer = truth if isinstance(truth, str) else json.dumps(truth, ensure_ascii=False)
            writer.writerow([_native_id(item), item.question, *options, answer, item.category, text])


def _write_submission(folder: Path, run: str, name: str, items: Sequence[Item], texts: Sequence[str]) -> None:
    answers = [
        {"question_id": int(number) if number.isdecimal() else number, "answer": text}
        for number, text in zip(map(_native_id, items), texts, strict=True)
    ]
    write_json(folder / f"{run}_{name}_submission.json", answers)


FORMATS: dict[str, Writer] = {
    "release": _write_release,
    "vlmevalkit": _write_vlmevalkit,
    "submission": _write_submission,
}
