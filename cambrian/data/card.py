"""The data card: what is in a clean pool, beside what the paper says of it, as one page without links elsewhere."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from pydantic import NonNegativeInt, PositiveInt

from cambrian.artifacts import read_json, read_manifest, write_folder
from cambrian.data.record_tables import iter_row_groups, read_turns
from cambrian.data.shards import ImageStore
from cambrian.interfaces import IMAGE_PLACEHOLDER
from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cambrian.interfaces import Turn

COLOURS = ("#3b6fb6", "#e07b39", "#4c9f70", "#b6508f", "#8a6d3b", "#5f6caf", "#c94c4c", "#777777")
_RADIUS, _WIDTH = 80, 36


class CardConfig(Params):
    """How much of each source the card shows."""

    num_examples: NonNegativeInt
    """Records of each source that are shown: those with the lowest ids."""
    num_measured_images: NonNegativeInt
    """Images of each source whose resolution is read: those of the records with the lowest ids."""
    thumbnail_side: PositiveInt
    """Pixels of the longer side of a shown picture."""
    max_shown_characters: PositiveInt
    """Of each turn that is shown."""


@dataclass(slots=True)
class _SourceFacts:
    records: int = 0
    with_image: int = 0
    turns: int = 0
    words: Counter[int] = field(default_factory=Counter)
    """Records by the power of two below their words."""
    sides: Counter[int] = field(default_factory=Counter)
    """Measured images by the power of two below their longer side in pixels."""
    measured: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)


def describe_pool(config: CardConfig, *, samples_per_record: int, pool: Path, clean: Path, output: Path) -> None:
    """Write the card of a clean pool: composition, lengths, resolutions, examples, licences, and what was lost.

    Raises:
        ArtifactError: the pool or the clean pool is incomplete.
    """
    read_manifest(clean)
    sources: dict[str, dict[str, Any]] = read_json(clean / "sources.json")
    ledger = read_json(clean / "ledger.json")
    facts = _read_facts(config, clean / "records.parquet", ImageStore(pool), sources)
    total = sum(found.records for found in facts.values())
    published = sum(source["published_thousands"] for source in sources.values())
    rows = [
        {
            "name": name,
            "category": source["category"],
            "records": facts[name].records,
            "share": facts[name].records / max(total, 1),
            "published_thousands": source["published_thousands"],
            "published_share": source["published_thousands"] / published if published else 0.0,
            "with_image": facts[name].with_image,
            "turns": facts[name].turns / max(facts[name].records, 1),
            "words": _describe_histogram(facts[name].words),
            "sides": _describe_histogram(facts[name].sides),
            "licence": source["licence"],
            "examples": facts[name].examples,
        }
        for name, source in sorted(sources.items(), key=lambda entry: (entry[1]["category"], entry[0]))
    ]
    categories = _sum_by_category(rows)
    environment = Environment(
        loader=PackageLoader("cambrian.data", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("card.html").render(
        rows=rows,
        categories=categories,
        total=total,
        samples_per_record=samples_per_record,
        published_thousands=published,
        ring=draw_ring([(row["share"], row["colour"]) for row in categories]),
        published_ring=draw_ring([(row["published_share"], row["colour"]) for row in categories]),
        steps=ledger["steps"],
        lost_share=ledger["lost_share"],
    )
    with write_folder(output) as folder:
        (folder / "index.html").write_text(page, encoding="utf-8")


def draw_ring(shares: Sequence[tuple[float, str]]) -> str:
    """The arcs of a ring as an SVG, clockwise from the top; shares are of 1."""
    length = 2 * math.pi * _RADIUS
    arcs = []
    start = 0.0
    for share, colour in shares:
        arcs.append(
            f'<circle r="{_RADIUS}" cx="110" cy="110" fill="none" stroke="{colour}" stroke-width="{_WIDTH}" '
            f'stroke-dasharray="{share * length:.2f} {length:.2f}" stroke-dashoffset="{-start * length:.2f}" '
            'transform="rotate(-90 110 110)"/>'
        )
        start += share
    return f'<svg viewBox="0 0 220 220" width="220" height="220" role="img">{"".join(arcs)}</svg>'


def _read_facts(
    config: CardConfig, path: Path, store: ImageStore, sources: Mapping[str, Any]
) -> dict[str, _SourceFacts]:
    facts = {name: _SourceFacts() for name in sources}
    for table in iter_row_groups(path):
        names = table.column("source").to_pylist()
        columns = (table.column("id").to_pylist(), names, table.column("image").to_pylist())
        for record_id, source, image, turns in zip(*columns, read_turns(table.column("conversations")), strict=True):
            found = facts[source]
            found.records += 1
            found.turns += len(turns)
            found.words[_power_below(sum(len(turn.text.replace(IMAGE_PLACEHOLDER, "").split()) for turn in turns))] += 1
            picture = None
            if image is not None:
                found.with_image += 1
                is_shown = len(found.examples) < config.num_examples
                if found.measured < config.num_measured_images or is_shown:
                    with Image.open(io.BytesIO(store.read(image))) as opened:
                        found.sides[_power_below(max(opened.size))] += 1
                        found.measured += 1
                        picture = _draw_thumbnail(opened, config.thumbnail_side) if is_shown else None
            if len(found.examples) < config.num_examples:
                found.examples.append(_describe_example(record_id, turns, picture, config.max_shown_characters))
    return facts


def _describe_example(
    record_id: str, turns: Sequence[Turn], picture: str | None, max_characters: int
) -> dict[str, Any]:
    shown = [
        (turn.speaker, turn.text if len(turn.text) <= max_characters else f"{turn.text[:max_characters]} ...")
        for turn in turns[:4]
    ]
    return {"id": record_id, "turns": shown, "left_out": max(len(turns) - 4, 0), "picture": picture}


def _draw_thumbnail(image: Image.Image, side: int) -> str:
    small = image.convert("RGB")
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _power_below(value: int) -> int:
    return 1 << (value.bit_length() - 1) if value else 0


def _describe_histogram(counts: Counter[int]) -> list[tuple[str, float]]:
    """Ranges from one power of two to the next with their shares."""
    total = counts.total()
    return [(f"{low} to {max(2 * low - 1, 0)}", count / total) for low, count in sorted(counts.items())]


def _sum_by_category(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = sorted({row["category"] for row in rows})
    return [
        {
            "name": name,
            "colour": COLOURS[place % len(COLOURS)],
            **{
                column: sum(row[column] for row in rows if row["category"] == name)
                for column in ("records", "share", "published_thousands", "published_share")
            },
        }
        for place, name in enumerate(names)
    ]
