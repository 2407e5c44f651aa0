"""All rows of params.yaml with what their names mean at one scale, validated as one object before anything runs."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import RootModel

from cambrian.backbones.config import (
    BackboneConfig,
    NoBackbone,
    PretrainedLanguageModel,
    PublishedLanguageModel,
    TrainedLanguageModel,
)
from cambrian.data.mixes import MixRow
from cambrian.data.sources import PoolConfig, read_catalog
from cambrian.interfaces import ParamsError
from cambrian.models.config import ConnectorConfig, ModelConfig
from cambrian.params import look_up
from cambrian.planning.config import ForecastConfig
from cambrian.planning.counting import count_mix
from cambrian.runtime import RuntimeConfig
from cambrian.training.config import AdapterRow, LLMMeaning, Recipe, RunRow, TrainingConfig, VisionRow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cambrian.params import ParamsFiles

Table = Literal["adapters", "runs"]

POOLS: dict[Table, str] = {"adapters": "alignment", "runs": "instruction"}
"""The pool whose images each phase reads (the command lines of pipeline/adapters and pipeline/runs)."""

_STAGES: dict[Table, str] = {"adapters": "align", "runs": "finetune"}
_LANGUAGE_MODELS = (TrainedLanguageModel, PretrainedLanguageModel, PublishedLanguageModel)


class _Backbones(RootModel[dict[str, BackboneConfig]]):
    """The table `backbones` of a scale."""


class _LLMs(RootModel[dict[str, LLMMeaning]]):
    """The table `llms` of a scale."""


class _Connectors(RootModel[dict[str, ConnectorConfig]]):
    """The table `connectors` of a scale."""


class _Recipes(RootModel[dict[str, Recipe]]):
    """The table `recipes` of a scale."""


class _Pools(RootModel[dict[str, PoolConfig]]):
    """The table `pools` of a scale."""


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """One row of `adapters` or `runs` with everything that its names mean."""

    table: Table
    name: str
    model: ModelConfig
    recipe: Recipe
    mix: str
    num_records: int
    """Expected of the mix; cleaning may leave fewer."""
    trained: frozenset[str]
    use_images: bool
    adapter: str | None
    """The row of `adapters` that a run starts from."""

    @property
    def key(self) -> str:
        """The row's table and name."""
        return f"{self.table}.{self.name}"

    @property
    def stage(self) -> str:
        """The stage instance that trains it, as timings name it."""
        return f"{_STAGES[self.table]}@{self.name}"

    @property
    def pool(self) -> str:
        """The pool of its mix."""
        return POOLS[self.table]


@dataclass(frozen=True, slots=True)
class Experiment:
    """Every training of a scale."""

    scale: str
    backbones: Mapping[str, BackboneConfig]
    pools: Mapping[str, PoolConfig]
    forecast: ForecastConfig
    training: TrainingConfig
    runtime: RuntimeConfig
    phases: tuple[PhasePlan, ...]
    """Adapters in the order of their rows, then runs."""


def read_experiment(files: ParamsFiles) -> Experiment:
    """Read both files and resolve every name.

    Raises:
        ParamsError: what is wrong with every row, not only the first: the dotted path, what was found, what is known.
    """
    resolver = _Resolver(files)
    faults: list[str] = []
    phases: list[PhasePlan] = []
    for table, known in (("pools", resolver.pools), ("backbones", resolver.backbones)):
        for name in files.rows(table):
            with _noted(faults):
                look_up(known, name, where=f"{files.scale_path}: {table}")
    for resolve, names in ((resolver.adapter, files.rows("adapters")), (resolver.run, files.rows("runs"))):
        for name in names:
            with _noted(faults):
                phases.append(resolve(name))
    forecast = files.block("forecast", ForecastConfig)
    for pool in sorted({phase.pool for phase in phases}):
        with _noted(faults):
            look_up(forecast.samples, pool, where=f"{files.scale_path}: forecast.samples")
    if faults:
        raise ParamsError("; ".join(dict.fromkeys(faults)))
    return Experiment(
        scale=files.scale,
        backbones=resolver.backbones,
        pools=resolver.pools,
        forecast=forecast,
        training=files.block("training", TrainingConfig),
        runtime=files.block("runtime", RuntimeConfig),
        phases=tuple(phases),
    )


@contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Note a fault and go on, so that all of them are seen at once."""
    try:
        yield
    except ParamsError as error:
        faults.append(str(error))


class _Resolver:
    """Says what the names of a row mean."""

    def __init__(self, files: ParamsFiles) -> None:
        self._files = files
        self.backbones = files.block("backbones", _Backbones).root
        self.pools = files.block("pools", _Pools).root
        self._llms = files.block("llms", _LLMs).root
        self._connectors = files.block("connectors", _Connectors).root
        self._recipes = files.block("recipes", _Recipes).root
        self._samples_per_record = files.count("samples_per_record")
        self._catalog = read_catalog()

    def adapter(self, name: str) -> PhasePlan:
        """One row of `adapters`."""
        row = self._files.row("adapters", name, AdapterRow)
        return PhasePlan(
            table="adapters",
            name=name,
            model=self._model(row, row.connector, where=f"adapters.{name}"),
            recipe=self._recipe(row.recipe, where=f"adapters.{name}"),
            mix=row.mix,
            num_records=self._count("adapters", name, row.mix),
            trained=frozenset({"connector"}),
            use_images=True,
            adapter=None,
        )

    def run(self, name: str) -> PhasePlan:
        """One row of `runs`; its connector is its adapter's."""
        row = self._files.row("runs", name, RunRow)
        where = f"runs.{name}"
        look_up(self._files.rows("adapters"), row.adapter, where=f"{where}.adapter")
        start = self._files.row("adapters", row.adapter, AdapterRow)
        for what, found, expected in (
            ("encoders", row.encoder_names, start.encoder_names),
            ("llm", row.llm, start.llm),
        ):
            if found != expected:
                raise ParamsError(f"{where}.{what}: found {found}, but its adapter {row.adapter} has {expected}")
        return PhasePlan(
            table="runs",
            name=name,
            model=self._model(row, start.connector, where=where),
            recipe=self._recipe(row.recipe, where=where),
            mix=row.mix,
            num_records=self._count("runs", name, row.mix),
            trained=row.trained_parts,
            use_images=row.use_images,
            adapter=row.adapter,
        )

    def _model(self, row: VisionRow, connector: str, *, where: str) -> ModelConfig:
        for encoder in row.encoder_names:
            meaning = look_up(self.backbones, encoder, where=f"{where}.encoders").root
            if isinstance(meaning, (NoBackbone, *_LANGUAGE_MODELS)):
                raise ParamsError(f"{where}.encoders: {encoder!r} is a {meaning.kind}, expected an encoder")
        meaning = look_up(self.backbones, row.llm, where=f"{where}.llm").root
        if not isinstance(meaning, _LANGUAGE_MODELS):
            raise ParamsError(f"{where}.llm: {row.llm!r} is a {meaning.kind}, expected a language model")
        return ModelConfig(
            encoders=row.encoder_names,
            connector=look_up(self._connectors, connector, where=f"{where}.connector"),
            llm=row.llm,
            template=look_up(self._llms, row.llm, where=f"{where}.llm").template,
        )

    def _recipe(self, name: str, *, where: str) -> Recipe:
        recipe: Recipe = look_up(self._recipes, name, where=f"{where}.recipe")
        return recipe

    def _count(self, table: Table, name: str, mix: str) -> int:
        look_up(self._files.rows("mixes"), mix, where=f"{table}.{name}.mix")
        row = self._files.row("mixes", mix, MixRow)
        if row.pool != POOLS[table]:
            raise ParamsError(
                f"{table}.{name}.mix: {mix!r} is of pool {row.pool!r}, but {_STAGES[table]} reads the images of "
                f"{POOLS[table]!r}: choose a mix of that pool"
            )
        look_up(self.pools, row.pool, where=f"mixes.{mix}.pool")
        return count_mix(row, self._catalog, samples_per_record=self._samples_per_record, where=f"mixes.{mix}.select")
