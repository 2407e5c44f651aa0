"""What a scale says about its own noise, and which run fills which row of which table (tables.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cambrian.params import Params, parse_block, read_yaml

TABLES_PATH = Path(__file__).with_name("tables.yaml")
FINDINGS_PATH = Path(__file__).with_name("findings.yaml")

Key = str | int | float | None


class ReportConfig(Params):
    """When a difference counts."""

    min_standard_errors: float
    """How many standard errors an effect must lie from its limit before it has a verdict."""
    seed_standard_deviation: float
    """Points by which one run's means differ between seeds; joins the error over items."""


class TableRow(Params):
    """One row of a table and the run that fills it."""

    row: list[Key]
    run: str


class ScoreTable(Params):
    """A table whose columns are scores or means of scores."""

    keys: list[str]
    """The columns that name a row."""
    rows: list[TableRow]
    added: list[TableRow]
    """Rows of ours, which the printed table does not have."""


class RankingTable(Params):
    """A table of ranks within each half of the backbones."""

    half_of_groups: dict[str, list[str]]
    runs: list[TableRow]


class BackboneRow(Params):
    """One row of the table of backbones."""

    row: list[Key]
    backbone: str


class LeakageTable(Params):
    """Columns of the leakage table by verdict, and rows that join the images of several scores."""

    columns: dict[str, str]
    joined: dict[str, list[str]]


class MixNames(Params):
    """Which mix stands for which published collection."""

    caps: dict[str, str]
    ratios: dict[str, str]
    collections: dict[str, str]


class FactTables(Params):
    """Names by which the printed tables of facts and ours call the same thing."""

    hyperparameters: dict[str, str]
    """Experiment of table 23 and a run that stands for it."""
    llms: dict[str, str]
    benchmarks: dict[str, str]
    catalog_names: dict[str, str]


class ProbeRow(Params):
    """One row of the table of linear probes."""

    row: list[Key]
    encoder: str
    run: str
    """In the standard setting, with this encoder alone."""


class ProbeTable(Params):
    """The table of linear probes."""

    rows: list[ProbeRow]
    added: list[ProbeRow]
    """Rows of ours, which the printed table does not have."""


class AttentionTable(Params):
    """The run whose attention is shown, and its encoders and benchmarks by their printed names."""

    run: str
    encoders: dict[str, str]
    benchmarks: dict[str, str]


class GradingTable(Params):
    """The graded runs by their printed names, and scores whose printed names differ."""

    runs: dict[str, str]
    scores: dict[str, str]


class AnswerMachineTable(Params):
    """The two runs that differ in format prompts alone, and runs whose dialogues may be shown, the largest first."""

    with_prompts: str
    without_prompts: str
    talkers: list[str]


class TablesConfig(Params):
    """tables.yaml."""

    final_run: str
    blind_run: str
    floor_run: str
    backbone_runs: list[str]
    plotted_runs: dict[str, str]
    scores: dict[str, ScoreTable]
    rankings: RankingTable
    cvbench_tasks: dict[str, str]
    backbones: list[BackboneRow]
    leakage: LeakageTable
    probes: ProbeTable
    attention: AttentionTable
    grading: GradingTable
    answer_machine: AnswerMachineTable
    mixes: MixNames
    facts: FactTables
    counted_tables: list[str]
    """Their cells agree within half of what one record stands for, on either side."""
    share_tables: list[str]
    """Their differences are of shares of the images, and as uncertain as these."""
    ranked_tables: list[str]
    """Their cells say something only where every row of a half has been reproduced."""
    exact_texts: list[str]
    """Tables whose texts are facts of this project too, not another wording of the same."""
    keys_of_unmade: dict[str, list[str]]
    """The columns that name a row of a table that is not made; the first, where nothing is said."""
    not_attempted: dict[str, str]
    not_attempted_rows: dict[str, str]
    not_possible: dict[str, str]
    not_possible_rows: dict[str, dict[str, str]]
    """By table and a key of the row."""


class Contrast(Params):
    """A measure's mean over some runs less its mean over others."""

    measure: str
    plus: list[str]
    minus: list[str]


class Finding(Contrast):
    """A claim as a contrast over runs; findings.yaml says what the fields mean."""

    id: str
    claim: str
    source: str
    reading: Literal["with_image", "gap", "blind_over_chance", "clusters", "talk"]
    paired: bool
    needs_all: bool = False
    relative_to: Contrast | None = None
    expect: Literal["above", "below", "within"]
    limit: float


class FindingsConfig(Params):
    """findings.yaml."""

    findings: list[Finding]


class BackboneMeaning(BaseModel):
    """The facts of a backbone at a scale that the table of backbones shows."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    architecture: str | None = None
    model_args: dict[str, Any] = {}
    spec: dict[str, Any] = {}
    objective: dict[str, Any] = {}
    shape: dict[str, Any] = {}

    @property
    def grid(self) -> int | None:
        """Features per side of an encoder's map, where the scale says so; a ConvNet's first stage has stride 4."""
        side, patch = self.spec.get("image", {}).get("side"), self.model_args.get("patch_size")
        stride = patch or (4 if "dims" in self.model_args else None)
        return side // stride if side and stride else None

    @property
    def num_layers(self) -> int | None:
        """Decoder layers of an LLM, where the scale says so."""
        return self.shape.get("num_layers")


class RecipeFacts(BaseModel):
    """What a recipe of the scale says that table 23 shows."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    global_batch_size: int
    learning_rates: dict[str, float]
    optimizer: dict[str, Any]

    @property
    def weight_decay(self) -> float:
        """The optimizer's."""
        return float(self.optimizer["weight_decay"])


class TemplateFacts(BaseModel):
    """What an LLM of the scale says that table 25 shows."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    template: str


class EvaluationFacts(BaseModel):
    """What the scale says of evaluation that table 26 shows."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    prompts: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Meanings:
    """What names mean at a scale, as far as tables of facts show it."""

    backbones: dict[str, BackboneMeaning]
    recipes: dict[str, RecipeFacts]
    templates: dict[str, str]
    """By LLM."""
    prompts: dict[str, str]
    """How a question with choices is asked, by benchmark."""


def read_tables_config() -> TablesConfig:
    """Read tables.yaml.

    Raises:
        ParamsError: an unknown or missing field.
    """
    return parse_block(TablesConfig, read_yaml(TABLES_PATH), where=TABLES_PATH.name)


def read_findings_config() -> FindingsConfig:
    """Read findings.yaml.

    Raises:
        ParamsError: an unknown or missing field.
    """
    return parse_block(FindingsConfig, read_yaml(FINDINGS_PATH), where=FINDINGS_PATH.name)
