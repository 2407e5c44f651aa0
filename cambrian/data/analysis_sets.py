"""Pictures for analyses beside the benchmarks: labelled ones to probe encoders on, and dialogues to hold with models.

What is drawn from the generated world and what is taken as published have one format, `NAME.parquet` in one folder.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pydantic
from pydantic import Field

from cambrian.artifacts import write_folder
from cambrian.data.published.config import PublishedSet
from cambrian.data.published.rows import iter_rows
from cambrian.data.world.config import WorldConfig
from cambrian.data.world.conversations import find_recipe, sample_conversation
from cambrian.data.world.pictures import classes, draw_png, sample_picture
from cambrian.data.world.words import SOLID_CLASSES
from cambrian.interfaces import ArtifactError, ParamsError
from cambrian.params import Params
from cambrian.runtime import generator_seed, iter_progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    Row = dict[str, Any]

TRAIN, TEST, DIALOGUES = "train", "test", "dialogues"
_ROWS_AT_ONCE = 256


class GeneratedLabels(Params):
    """Scenes of one solid, labelled by its colour and shape."""

    kind: Literal["generated-labels"]
    world: WorldConfig
    num_train: int = Field(gt=0)
    num_test: int = Field(gt=0)

    @pydantic.model_validator(mode="after")
    def _check_scene(self) -> GeneratedLabels:
        if self.world.scene.max_solids != 1:
            raise ValueError(
                f"world.scene.max_solids is {self.world.scene.max_solids}, expected 1: a label names the one solid"
            )
        return self


class PublishedLabels(Params):
    """A published set of labelled images; both of its splits have the columns `image` and `label` (a whole number)."""

    kind: Literal["published-labels"]
    train: PublishedSet
    test: PublishedSet


class GeneratedDialogues(Params):
    """Conversations on pictures of the world, with their answers."""

    kind: Literal["generated-dialogues"]
    world: WorldConfig
    recipes: dict[str, int] = Field(min_length=1)
    """Recipes of cambrian/data/world/recipes.yaml, and how many dialogues by each, one recipe after the other."""


class PublishedDialogues(Params):
    """A published set of open questions with reference answers; each is a dialogue of one question."""

    kind: Literal["published-dialogues"]
    questions: PublishedSet
    """With the columns `image`, `question` and `answer`."""
    num_dialogues: int = Field(gt=0)
    """So many from its beginning."""


class AnalysisSet(
    pydantic.RootModel[
        Annotated[
            GeneratedLabels | PublishedLabels | GeneratedDialogues | PublishedDialogues, Field(discriminator="kind")
        ]
    ]
):
    """One entry of the table `analysis_sets` of scales/<scale>.yaml."""

    model_config = pydantic.ConfigDict(strict=True, frozen=True)


def write_analysis_set(entry: AnalysisSet, *, name: str, seed: int, output: Path) -> None:
    """Write `train` and `test.parquet` with `image` and `label`, or `dialogues.parquet` with `image` and `turns`.

    Raises:
        ParamsError: a revision or a recipe is not known, or a recipe has conversations without a picture.
        ArtifactError: a published set cannot be fetched, lacks a column, is empty or has labels that are no numbers.
    """
    config = entry.root
    where = f"analysis_sets.{name}"
    with write_folder(output, kind=config.kind) as folder:
        match config:
            case GeneratedLabels():
                for part, number in ((TRAIN, config.num_train), (TEST, config.num_test)):
                    _write_rows(folder, part, _draw_labelled(config, part, number, seed), where=where)
            case PublishedLabels():
                for part, chosen in ((TRAIN, config.train), (TEST, config.test)):
                    rows = iter_progress(iter_rows(chosen, where=f"{where}.{part}"), total=None, what=f"{name} {part}")
                    _write_rows(folder, part, rows, where=where)
            case GeneratedDialogues():
                _write_rows(folder, DIALOGUES, _draw_dialogues(config, seed), where=where)
            case PublishedDialogues():
                rows = itertools.islice(iter_rows(config.questions, where=f"{where}.questions"), config.num_dialogues)
                _write_rows(folder, DIALOGUES, map(_as_dialogue, rows), where=where)


def _draw_labelled(config: GeneratedLabels, part: str, number: int, seed: int) -> Iterator[Row]:
    """The two parts have generators of their own, as all consumers of randomness have."""
    rng = np.random.default_rng(generator_seed(seed, f"analysis-sets/labelled/{part}"))
    for index in range(number):
        picture = sample_picture(rng, config.world, "scene")
        (shown,) = classes(picture)
        image = {"bytes": draw_png(picture, config.world.image_side), "path": f"{part}-{index}.png"}
        yield {"image": image, "label": SOLID_CLASSES.index(shown)}


def _draw_dialogues(config: GeneratedDialogues, seed: int) -> Iterator[Row]:
    rng = np.random.default_rng(generator_seed(seed, "analysis-sets/dialogues"))
    names = [name for name, number in config.recipes.items() for _ in range(number)]
    for index, name in enumerate(names):
        conversation = sample_conversation(rng, find_recipe(name), config.world)
        if conversation.picture is None:
            raise ParamsError(
                f"analysis_sets: the recipe {name} has conversations without a picture, which a dialogue needs: name "
                "recipes of pictures alone"
            )
        image = {"bytes": draw_png(conversation.picture, config.world.image_side), "path": f"dialogue-{index}.png"}
        turns = [{"question": one.question, "answer": one.answer} for one in conversation.exchanges]
        yield {"image": image, "turns": turns}


def _as_dialogue(row: Row) -> Row:
    return {"image": row["image"], "turns": [{"question": row["question"], "answer": row["answer"]}]}


def _write_rows(folder: Path, part: str, rows: Iterable[Row], *, where: str) -> None:
    """Write rows in pieces, so that no more than a piece of the pictures is in memory."""
    import pyarrow
    import pyarrow.parquet

    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    turn = pyarrow.struct([("question", pyarrow.string()), ("answer", pyarrow.string())])
    other = ("turns", pyarrow.list_(turn)) if part == DIALOGUES else ("label", pyarrow.int64())
    schema = pyarrow.schema([("image", picture), other])
    waiting, number = iter(rows), 0
    with pyarrow.parquet.ParquetWriter(folder / f"{part}.parquet", schema) as writer:
        while piece := list(itertools.islice(waiting, _ROWS_AT_ONCE)):
            try:
                writer.write_table(pyarrow.Table.from_pylist(piece, schema=schema))
            except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
                raise ArtifactError(
                    f"{where}, {part}, rows {number} to {number + len(piece) - 1}: {error}; expected a picture and "
                    f"{'texts' if part == DIALOGUES else 'a whole number as label'}: name another set or other columns"
                ) from error
            number += len(piece)
    if not number:
        raise ArtifactError(f"{where}, {part}: the set has no rows: check its split")
