"""What `benchmarks` of scales/<scale>.yaml can mean: drawn from the generated world, or taken as published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pydantic
from pydantic import Field

from cambrian.data.published.build import fetch_benchmarks
from cambrian.data.published.config import PublishedBenchmarks
from cambrian.data.world.benchmarks import BenchmarksConfig, build_benchmarks

if TYPE_CHECKING:
    from pathlib import Path


class BenchmarksBlock(
    pydantic.RootModel[Annotated[BenchmarksConfig | PublishedBenchmarks, Field(discriminator="kind")]]
):
    """The block `benchmarks` of scales/<scale>.yaml."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)


def write_benchmarks(block: BenchmarksBlock, *, seed: int, output: Path) -> None:
    """Write the benchmark folder that every evaluation of a scale reads, whatever the items come from.

    Raises:
        ParamsError: a name or a revision is not known.
        ArtifactError: a published data set cannot be fetched or is not as its row says.
    """
    match block.root:
        case BenchmarksConfig() as config:
            build_benchmarks(config, seed=seed, split="test", output=output)
        case PublishedBenchmarks() as config:
            fetch_benchmarks(config, output=output)
