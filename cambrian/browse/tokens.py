"""A conversation as tokens: which are learned, which are masked, which are the picture, which are cut off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.data.conversation import truncate, without_images
from cambrian.data.tokenizer import read_tokenizer
from cambrian.interfaces import IGNORE_LABEL, IMAGE_PLACEHOLDER, IMAGE_TOKEN_ID, ParamsError, RecordError
from cambrian.models.config import GridLayout, ResamplerConfig
from cambrian.release.templates import find_template
from cambrian.training.config import AdapterRow, ConnectorMeaning, LLMMeaning, Recipe, RunRow

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.data.conversation import Template
    from cambrian.data.tokenizer import Tokenizer
    from cambrian.interfaces import Record
    from cambrian.models.config import ConnectorConfig
    from cambrian.params import ParamsFiles


@dataclass(frozen=True, slots=True)
class TrainingView:
    """How a run's phase encodes conversations."""

    name: str
    """The row that it is: `runs.NAME` or `adapters.NAME`."""
    tokenizer: Tokenizer
    template: Template
    num_image_positions: int
    max_length: int
    use_images: bool

    def describe(self, record: Record) -> list[dict[str, Any]]:
        """Runs of tokens of one kind: `learned`, `masked` or `image`, each with its ids and texts; then what is `cut`.

        Raises:
            RecordError: training leaves the record out, for this reason.
        """
        if sum(IMAGE_PLACEHOLDER in turn.text for turn in record.turns) != (record.image is not None):
            raise RecordError("image-placeholder", "text and picture do not go together")
        turns = record.turns if self.use_images else without_images(record.turns)
        try:
            encoded = self.template.encode_conversation(turns, self.tokenizer, self.num_image_positions)
        except RecordError:
            raise
        except ValueError as error:
            raise RecordError("unknown-word", str(error)) from error
        kept, num_cut = truncate(encoded, self.max_length)
        pairs = list(zip(kept.input_ids, kept.labels, strict=True))
        kinds = ["image" if i == IMAGE_TOKEN_ID else "masked" if n == IGNORE_LABEL else "learned" for i, n in pairs]
        kinds += ["cut"] * num_cut
        groups: list[dict[str, Any]] = []
        for token_id, kind in zip(encoded.input_ids, kinds, strict=True):
            if not groups or groups[-1]["kind"] != kind:
                groups.append({"kind": kind, "ids": [], "texts": []})
            groups[-1]["ids"].append(token_id)
            groups[-1]["texts"].append("" if token_id == IMAGE_TOKEN_ID else self.tokenizer.token(token_id))
        return groups


def read_view(files: ParamsFiles, *, mix: str | None, pool: str, run: str | None, backbones: Path) -> TrainingView:
    """How a row of params encodes: the named one, or the first that trains on the mix or on a mix of the pool.

    Raises:
        ParamsError: there is no such row.
        ArtifactError: the LLM's tokenizer is not there.
    """
    table, name = (_find_table(files, run), run) if run is not None else _find_row(files, mix, pool)
    if table == "runs":
        row: RunRow | AdapterRow = files.row("runs", name, RunRow)
        connector = files.row("adapters", files.row("runs", name, RunRow).adapter, AdapterRow).connector
    else:
        row = files.row("adapters", name, AdapterRow)
        connector = row.connector
    return TrainingView(
        name=f"{table}.{name}",
        tokenizer=read_tokenizer(backbones / row.llm),
        template=find_template(files.meaning("llms", row.llm, LLMMeaning).template),
        num_image_positions=count_positions(files.meaning("connectors", connector, ConnectorMeaning).root),
        max_length=files.meaning("recipes", row.recipe, Recipe).max_length,
        use_images=row.use_images if isinstance(row, RunRow) else True,
    )


def count_positions(config: ConnectorConfig) -> int:
    """Positions that a picture fills, the newlines of its grid included."""
    if isinstance(config, ResamplerConfig):
        return config.num_queries
    assert isinstance(config, GridLayout)
    return config.side * (config.side + 1) if config.newline else config.side**2


def _find_table(files: ParamsFiles, name: str) -> str:
    for table in ("runs", "adapters"):
        if name in files.rows(table):
            return table
    raise ParamsError(f"--run {name!r} is neither a run nor an adapter of params.yaml")


def _find_row(files: ParamsFiles, mix: str | None, pool: str) -> tuple[str, str]:
    mixes = files.rows("mixes")
    for table in ("runs", "adapters"):
        for name, row in files.rows(table).items():
            if row["mix"] == mix or (mix is None and mixes[row["mix"]]["pool"] == pool and row["mix"] != "none"):
                return table, name
    raise ParamsError(f"no run and no adapter of params.yaml trains on {mix or pool}: name one with --run")
