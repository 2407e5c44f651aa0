"""Where a pool's raw data come from: the catalogue of sources, and every way to get them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
from pydantic import Field

from cambrian.artifacts import write_folder, write_json
from cambrian.data.world.corpora import GeneratedCorpora, write_corpora
from cambrian.data.world.pools import GeneratedPool, write_pool
from cambrian.params import Params, look_up, parse_block, read_yaml
from cambrian.runtime import logged_step

if TYPE_CHECKING:
    from collections.abc import Mapping

CATALOG_PATH = Path(__file__).with_name("catalog.yaml")
SOURCES_NAME = "sources.json"


class PoolConfig(pydantic.RootModel[Annotated[GeneratedPool | GeneratedCorpora, Field(discriminator="kind")]]):
    """One entry of `pools` in scales/<scale>.yaml: generated here, or (to come) fetched from where it is published."""

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


class Catalog(Params):
    """All of catalog.yaml: the sources of each pool."""

    unstated: str
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
