"""Where a pool's raw data come from: the catalogue of sources, and every way to get them."""

from __future__ import annotations

import shutil
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from pydantic import Field

from cambrian.artifacts import write_folder, write_json
from cambrian.data.collecting.config import CollectedPool, Origin, OwnSource
from cambrian.data.world.corpora import GeneratedCorpora, write_corpora
from cambrian.data.world.pools import GeneratedPool, write_pool
from cambrian.params import Params, look_up, parse_block, read_yaml
from cambrian.runtime import logged_step

if TYPE_CHECKING:
    from collections.abc import Mapping

CATALOG_PATH = Path(__file__).with_name("catalog.yaml")
SOURCES_NAME = "sources.json"


class PoolConfig(
    pydantic.RootModel[Annotated[GeneratedPool | GeneratedCorpora | CollectedPool, Field(discriminator="kind")]]
):
    """One entry of `pools` in scales/<scale>.yaml: generated here, or fetched from where it is published."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)


class Source(Params):
    """One published source of training data."""

    category: str
    thousands: float
    """Thousands of published samples."""
    in_7m: bool
    """Whether Cambrian-7M kept it."""
    recipe: str
    """What makes it where it is generated."""
    licence: str
    origin: str
    """Which of `origins` it is fetched with."""
    archive: str
    """The archive of its release that carries its name, or why none is named; what is unpacked, the origin says."""


class Catalog(Params):
    """All of catalog.yaml: the sources of each pool."""

    unstated: str
    unlisted: str
    text: str
    origins: dict[str, Origin]
    instruction: dict[str, Source]
    alignment: dict[str, Source]

    def sources(self, pool: str) -> dict[str, Source]:
        """The sources of one pool.

        Raises:
            ParamsError: the catalogue has no such pool.
        """
        pools = {"instruction": self.instruction, "alignment": self.alignment}
        found: dict[str, Source] = look_up(pools, pool, where=CATALOG_PATH.name)
        return found


def read_catalog() -> Catalog:
    """Read the catalogue of published sources.

    Source: paper, figure of the data composition; appendix C for the alignment data.
    """
    return parse_block(Catalog, read_yaml(CATALOG_PATH), where=CATALOG_PATH.name)


def collect_pool(pool: str, config: PoolConfig, *, samples_per_record: int, seed: int, output: Path) -> None:
    """Write one pool: records and image shards with `sources.json`, or the corpora of backbones.

    A source has one record for every `samples_per_record` of its published samples, and at least one.

    Raises:
        ParamsError: the catalogue does not have the pool, or the config names what does not exist.
        ArtifactError: the folder cannot be written.
    """
    work_dir = None
    with logged_step(f"collect {pool}") as facts, write_folder(output, pool=pool) as folder:
        match config.root:
            case GeneratedCorpora():
                write_corpora(folder, config.root, seed=seed)
                facts.update(images=config.root.num_images, documents=config.root.num_documents)
            case GeneratedPool():
                sources = read_catalog().sources(pool)
                sizes = {name: count_records(source, samples_per_record) for name, source in sources.items()}
                recipes = {name: source.recipe for name, source in sources.items()}
                write_pool(folder, pool, config.root, recipes=recipes, sizes=sizes, seed=seed)
                write_json(folder / SOURCES_NAME, describe_sources(sources))
                facts.update(records=sum(sizes.values()), sources=len(sources))
            case CollectedPool():
                work_dir, facts["sources"] = _collect(folder, pool, config.root)
    if work_dir is not None:
        shutil.rmtree(work_dir, ignore_errors=True)
    if isinstance(config.root, CollectedPool) and config.root.copy_to is not None:
        from cambrian.data.collecting.copying import copy_folder

        copy_folder(output, config.root.copy_to, config.root.limits)


def _collect(folder: Path, pool: str, config: CollectedPool) -> tuple[Path, int]:
    """Fetch a pool's catalogued and own sources; where what was fetched still lies, and how many sources there are."""
    from cambrian.data.collecting.collect import collect_origins

    catalog = read_catalog()
    where = f"pools.{pool}.origins"
    origins = {name: look_up(catalog.origins, name, where=where) for name in config.origins}
    published = catalog.sources(pool) if origins else {}
    sources = {name: source for name, source in published.items() if source.origin in origins}
    own = {name: source.origin for name, source in config.own.items()}
    described = describe_sources(sources) | {name: _describe_own(source) for name, source in config.own.items()}
    work_dir = collect_origins(folder, config, origins={**origins, **own}, known=set(described))
    write_json(folder / SOURCES_NAME, described)
    return work_dir, len(described)


def count_records(source: Source, samples_per_record: int) -> int:
    """How many records stand for a source's samples: rounded half up, at least one."""
    samples = Decimal(str(source.thousands)) * 1000
    return max(int((samples / samples_per_record).quantize(Decimal(1), rounding=ROUND_HALF_UP)), 1)


def describe_sources(sources: Mapping[str, Source]) -> dict[str, dict[str, Any]]:
    """What later stages know of each source."""
    return {
        name: {
            "category": source.category,
            "published_thousands": source.thousands,
            "in_7m": source.in_7m,
            "generator": source.recipe,
            "licence": source.licence,
        }
        for name, source in sources.items()
    }


def _describe_own(source: OwnSource) -> dict[str, Any]:
    """The same of a source that the catalogue does not have."""
    return {
        "category": source.category,
        "published_thousands": source.thousands,
        "in_7m": source.in_7m,
        "generator": "collected",
        "licence": source.licence,
    }
