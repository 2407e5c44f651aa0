"""One small world of results for the whole folder: every run but two, real-shaped data, drawn and published once."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.data.shards import ShardWriter
from cambrian.interfaces import CATEGORIES
from cambrian.params import ParamsFiles
from cambrian.report.config import BackboneMeaning, Meanings, RecipeFacts, ReportConfig, read_tables_config
from cambrian.report.diagrams import ConnectorFacts
from cambrian.report.draw import draw
from cambrian.report.publish import publish
from cambrian.report.published import read_published
from cambrian.report.tabulate import tabulate
from tests.report.fake import ROOT, write_analyses, write_replies, write_results

if TYPE_CHECKING:
    from pathlib import Path

FILES = ParamsFiles(ROOT)
MISSING = ("sva-36", "midas-1200k")
CONFIG = ReportConfig(min_standard_errors=2.0, seed_standard_deviation=1.4)
FORECAST = {
    "assumptions": {"hardware": {"name": "two slow cores"}},
    "phases": {
        "runs.clip-0m": {"stage": "finetune@clip-0m", "minutes": 0.5},
        "runs.clip-558k": {"stage": "finetune@clip-558k", "minutes": 2.0},
    },
}
ACTUAL = {
    "stages": {
        "finetune@clip-558k": {
            "wall_s": 60.0,
            "cpu_s": 100.0,
            "peak_mib": 700,
            "finished": "2026-11-26T18:00:00",
            "commit": "abc1234",
            "machine": "Some processor, 2 cores",
        }
    }
}
DIFFERENCE = {
    "before": "abc1234",
    "after": "workspace",
    "noise_limit": 2.0,
    "scores": [
        {"name": "training.json: final_loss", "before": 0.3, "after": 0.2, "verdict": ""},
        {"name": "probe.json: accuracy", "before": None, "after": 31.0, "verdict": "new"},
        {"name": "scores.json: GQA", "before": 40.0, "after": 55.0, "verdict": "3.5 standard errors"},
        {"name": "scores.json: MMB", "before": 40.0, "after": 62.0, "verdict": "10.5 standard errors"},
    ],
    "num_noise": 7,
    "files": [
        {
            "path": "results/small/tables/verdicts.csv",
            "title": "Verdicts",
            "counts": {"agrees": [3, 2], "differs": [4, 5]},
            "reversed": [
                {
                    "key": "final / LLaVA / GQA",
                    "before": "agrees",
                    "after": "differs",
                    "verdict": "3.5 standard errors",
                    "causes": ["params.yaml: rate", "cambrian/training"],
                }
            ],
            "groups": [
                {
                    "group": "final",
                    "size": 9,
                    "changed": 2,
                    "beyond": 1,
                    "reversed": 1,
                    "largest": "3.5 standard errors",
                }
            ],
            "num_new": 0,
            "num_gone": 1,
        }
    ],
    "causes": [{"kind": "param", "subject": "params.yaml: rate", "change": "0.1 -> 0.2", "reaches": 2}],
}


@dataclass(frozen=True)
class World:
    root: Path
    scale: str
    rows: dict[str, Any]

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def analyses(self) -> Path:
        return self.root / "analyses"

    @property
    def data(self) -> Path:
        return self.root / "data"

    def tabulate(self, output: Path, results: Path | None = None, analyses: Path | None = None) -> None:
        tabulate(
            CONFIG,
            rows=self.rows,
            meanings=make_meanings(),
            samples_per_record=1000,
            scale=self.scale,
            results=results or self.results,
            analyses=analyses or self.analyses,
            data=self.data,
            catalog=ROOT / "cambrian" / "data" / "catalog.yaml",
            prompts=ROOT / "cambrian" / "data" / "format_prompts.yaml",
            output=output,
        )

    def draw(self, output: Path, results: Path | None = None, analyses: Path | None = None) -> None:
        draw(
            rows=self.rows,
            samples_per_record=1000,
            scale=self.scale,
            results=results or self.results,
            analyses=analyses or self.analyses,
            data=self.data,
            connectors={
                name: FILES.meaning("connectors", name, ConnectorFacts) for name in FILES.meanings["connectors"]
            },
            backbones={name: FILES.meaning("backbones", name, BackboneMeaning) for name in FILES.meanings["backbones"]},
            output=output,
        )

    def publish(self, tables: Path, figures: Path, output: Path) -> None:
        publish(
            rows=self.rows,
            scale=self.scale,
            tables=tables,
            figures=figures,
            data=self.data,
            deviations=ROOT / "docs" / "deviations.md",
            forecast=self.root / "forecast.json",
            actual=self.root / "actual.json",
            difference=self.root / "difference.json",
            output=output,
        )


def make_meanings() -> Meanings:
    """What names mean at scale mini, as the stage reads it."""
    files, config = FILES, read_tables_config()
    return Meanings(
        backbones={row.backbone: BackboneMeaning() for row in config.backbones},
        recipes={name: files.meaning("recipes", name, RecipeFacts) for name in files.meanings["recipes"]},
        templates=dict.fromkeys(config.facts.llms.values(), "turns"),
        prompts=dict.fromkeys(read_published().scores, "{question}"),
    )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    files = ParamsFiles(ROOT)
    root = tmp_path_factory.mktemp("world")
    write_data(root / "data")
    runs = [run for run in files.rows("runs") if run not in MISSING]
    write_results(root / "results", runs, scale="small")
    write_json(root / "forecast.json", FORECAST)
    write_json(root / "actual.json", ACTUAL)
    write_json(root / "difference.json", DIFFERENCE)
    write_replies(root / "results" / "cambrian-8b" / "replies.parquet", root / "data" / "benchmarks")
    write_analyses(root / "analyses", scale="small")
    return World(root, "small", {"runs": files.rows("runs"), "adapters": files.rows("adapters")})


@pytest.fixture(scope="session")
def tables(world: World) -> Path:
    world.tabulate(world.root / "tables")
    return world.root / "tables"


@pytest.fixture(scope="session")
def figures(world: World) -> Path:
    world.draw(world.root / "figures")
    return world.root / "figures"


@pytest.fixture(scope="session")
def report(world: World, tables: Path, figures: Path) -> Path:
    world.publish(tables, figures, world.root / "report")
    return world.root / "report"


def write_data(data: Path) -> None:
    """Ledgers, verdicts and CV-Bench as the stages write them, as far as the report reads them."""
    composition = read_published().tables["data_composition"]
    kept = {str(row[1]): max(int(float(str(row[2]))), 1) for row in composition.rows if row[3]}
    whole = {str(row[1]): max(int(float(str(row[2]))), 1) for row in composition.rows}
    mixes = {"instruct-10m": whole, "instruct-7m": kept, "cap-150k": {name: min(n, 150) for name, n in whole.items()}}
    mixes |= {"ratio-1": kept, "instruct-665k": kept}
    assert {str(row[0]) for row in composition.rows} == set(CATEGORIES)
    for name, counts in mixes.items():
        sources = {source: {"in": count, "out": count, "dropped": {}} for source, count in counts.items()}
        write_json(
            data / "mixes" / name / "ledger.json", {"mix": name, "steps": [{"step": "select", "sources": sources}]}
        )
        leakage = {score: {"images": 100, "found": 7} for score in ("GQA", "CV-Bench-2D", "CV-Bench-3D")}
        verdict = {
            "mix": name,
            "success": True,
            "records": 10,
            "images": 5,
            "expectations": [{"success": True}],
            "leakage": {"found_share": 0.07, "benchmarks": leakage},
        }
        write_json(data / "validated" / f"{name}.json", verdict)
    found_none = {"found_share": 0.0, "benchmarks": {"GQA": {"images": 100, "found": 0}}}
    engine = {"pool": "engine", "success": True, "records": 6, "images": 6, "expectations": [], "leakage": found_none}
    write_json(data / "validated" / "pools" / "engine.json", engine)
    step = {"step": "read", "in": 10, "out": 9, "dropped": {"malformed-json": 1}}
    write_json(data / "clean" / "instruction" / "ledger.json", {"steps": [step]})
    write_cvbench(data / "benchmarks")
    write_dialogue_pictures(data / "analysis_sets" / "dialogues" / "dialogues.parquet")
    write_engine(data / "engine")


def write_dialogue_pictures(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True)
    rows = [{"image": {"bytes": make_png((20 * index, 0, 0)), "path": ""}, "turns": []} for index in range(8)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def write_engine(folder: Path) -> None:
    """Two samples of the data engine, of which the second has a picture."""
    folder.mkdir(parents=True)
    with ShardWriter(folder, max_bytes=10_000) as images:
        images.add("lens.png", make_png((0, 90, 0)))
    talk = [{"from": "human", "value": "<image>\nwhat is shown ?"}, {"from": "gpt", "value": "a convex lens"}]
    records = [{"id": "a", "conversations": talk}, {"id": "b", "image": "lens.png", "conversations": talk}]
    origin = {"topic": "Physics/optics/Lens", "page": "page", "section": "Focus", "caption": "Light meets"}
    for name, rows in (("records", records), ("provenance", [{"id": row["id"], **origin} for row in records])):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def make_png(colour: tuple[int, int, int]) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "PNG")
    return file.getvalue()


def write_cvbench(benchmarks: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    for score, tasks in {"CV-Bench-2D": ("Relation", "Count"), "CV-Bench-3D": ("Depth", "Distance")}.items():
        rows = [
            {
                "idx": index,
                "task": tasks[index % 2],
                "image": {"bytes": make_png((200, 30, 30)), "path": f"{index}.png"},
                "question": "which one is closer",
                "choices": ["red", "blue"],
                "answer": "(A)" if index < 4 else "(B)",
                "source": "solids",
            }
            for index in range(8)
        ]
        (benchmarks / score).mkdir(parents=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), benchmarks / score / "test.parquet")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
