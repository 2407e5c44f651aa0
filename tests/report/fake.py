"""Results of all runs without any training: seeded numbers of plausible size, in the files that the stages write."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]

CATEGORIES = {
    "General": ["MME-P", "MMB", "SEED-I", "GQA"],
    "Knowledge": ["SQA-I", "MMMU-V", "MathVista-M", "AI2D"],
    "OCR & Chart": ["ChartQA", "OCRBench", "TextVQA", "DocVQA"],
    "Vision-Centric": ["MMVP", "RealWorldQA", "CV-Bench-2D", "CV-Bench-3D"],
}
CHANCE = {"MME-P": 1000.0, "MMB": 2.6, "SEED-I": 25.0, "SQA-I": 30.0, "AI2D": 29.2, "MMVP": 12.5, "CV-Bench-3D": 50.0}


def make_scores(run: str, *, scale: str, strength: float, sees: bool, items: int = 150) -> dict[str, Any]:
    generator = np.random.default_rng(sum(map(ord, run)))
    scores: dict[str, Any] = {}
    for category, members in CATEGORIES.items():
        for name in members:
            blind = 35 + 6 * generator.standard_normal() if category != "Knowledge" else 60.0
            seen = blind + (strength if category != "Knowledge" else 0.0) + 2 * generator.standard_normal()
            with_image, without_image = (float(np.clip(value, 1, 99)) for value in (seen, blind))
            factor = 20.0 if name == "MME-P" else 1.0
            headline = with_image if sees else without_image
            scores[name] = {
                "with_image": with_image * factor if sees else None,
                "without_image": without_image * factor,
                "standard_error": factor * math.sqrt(headline * (100 - headline) / items),
                "chance": CHANCE.get(name, 0.0),
                "items": items,
            }
    return {"run": run, "scale": scale, "scores": scores, "categories": {}, "average": {}}


def write_results(results: Path, runs: list[str], *, scale: str, replies: tuple[str, ...] = ()) -> None:
    """Scores and loss curves of every run; replies of those named."""
    for run in runs:
        generator = np.random.default_rng(sum(map(ord, run)))
        folder = results / run
        folder.mkdir(parents=True)
        strength = 30 + 8 * generator.standard_normal()
        strength += 12 * ("cambrian" in run) - 12 * ("random" in run or "mae" in run) - 8 * run.endswith("-0m")
        scores = make_scores(run, scale=scale, strength=strength, sees=run != "blind")
        (folder / "scores.json").write_text(json.dumps(scores))
        steps = np.arange(1, 361)
        losses = 0.4 + 2.5 * np.exp(-steps / 60) + 0.1 * generator.standard_normal(360)
        lines = [f"{step},{loss:.6f}\n" for step, loss in zip(steps, losses, strict=True)]
        (folder / "loss.csv").write_text("".join(["step,loss\n", *lines]))


def write_replies(path: Path, benchmarks: Path) -> None:
    """A reply to every CV-Bench question, with and without the image: the first choice."""
    import pyarrow
    import pyarrow.parquet

    rows = []
    for name in ("CV-Bench-2D", "CV-Bench-3D"):
        table = pyarrow.parquet.ParquetFile(benchmarks / name / "test.parquet").read(
            columns=["idx", "choices", "answer"]
        )
        for with_image in (True, False):
            for row in table.to_pylist():
                rows.append(
                    {
                        "item_id": f"{name}/{row['idx']}",
                        "benchmark": name,
                        "with_image": with_image,
                        "reply": row["choices"][0],
                        "correct": float(row["answer"] == "(A)"),
                    }
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_analyses(analyses: Path, *, scale: str) -> None:
    """Probes of three encoders, and attention, readings and dialogues of two runs, as the stages write them."""
    for place, encoder in enumerate(("clip-l-336", "mae-l-224", "random-l-336")):
        facts = {"top1": 80.0 - 10 * place, "standard_error": 1.5, "classes": 18}
        _write(analyses / "probes" / f"{encoder}.json", {"encoder": encoder, "scale": scale, **facts})
    shares = {"siglip-so400m-384": 40.0, "clip-l-336": 10.0, "dinov2-l-336": 30.0, "convnext-xxl-1024": 20.0}
    measured = {"items": 9, "shares": shares, "standard_error": dict.fromkeys(shares, 0.5), "layers": []}
    for run in ("cambrian-8b", "cambrian-8b-plain"):
        owner = {"run": run, "scale": scale}
        benchmarks = dict.fromkeys(("GQA", "DocVQA", "SQA-I"), measured)
        _write(analyses / "attention" / f"{run}.json", {**owner, "encoders": list(shares), "benchmarks": benchmarks})
        scores = {
            name: {
                "items": 100, "rules": 60.0 + place, "rules_error": 2.0, "grader": 59.0 + place, "grader_error": 2.1,
                "difference": -1.0, "difference_error": 0.4, "leaked_items": 5 * (name == "GQA"),
                "clean": 58.0 + place, "clean_error": 2.2,
            }
            for place, name in enumerate(name for members in CATEGORIES.values() for name in members)
        }  # fmt: skip
        _write(analyses / "readings" / f"{run}.json", {**owner, "grader": "strict rules", "scores": scores})
        long = run == "cambrian-8b"
        reply = "red ball and blue cone" if long else "red"
        words = {"words": 5 if long else 1, "reference_words": 5, "overlap": 0.8 if long else 1 / 3}
        turn = {"question": "describe the picture", "reference": "red ball and green cone", "reply": reply, **words}
        short = {
            "question": "how many",
            "reference": "two",
            "reply": "two",
            "words": 1,
            "reference_words": 1,
            "overlap": 1,
        }
        dialogues = [{"index": index, "turns": [turn, short][: 1 + index // 4]} for index in range(8)]
        _write(analyses / "dialogues" / f"{run}.json", {**owner, "dialogues": dialogues})


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
