"""Pools of training records, drawn from the world source by source, with the faults that the gates must catch."""

from __future__ import annotations

import re
from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from cambrian.data.records import format_record
from cambrian.data.shards import ShardWriter
from cambrian.data.world.benchmarks import BenchmarksConfig, draw_item
from cambrian.data.world.config import WorldConfig
from cambrian.data.world.conversations import find_recipe, make_turns, sample_conversation
from cambrian.data.world.pictures import draw_png, encode_png, render
from cambrian.interfaces import ParamsError, Record, Turn
from cambrian.params import Params, look_up
from cambrian.runtime import generator_seed, iter_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from cambrian.data.world.conversations import Conversation, Exchange

RECORDS_NAME = "records.jsonl"

FaultKind = Literal[
    "malformed-line",
    "missing-image",
    "truncated-image",
    "small-image",
    "duplicate",
    "wrong-answers",
    "wrong-first-speaker",
    "leaked-image",
]


class Fault(Params):
    """So many records of a source that are spoiled in one way, so that the gates have something to catch."""

    kind: FaultKind
    source: str
    count: int = Field(ge=1)


class LeakConfig(Params):
    """Which benchmark's pictures stand among the training pictures."""

    benchmark: str
    split: Literal["test", "validation"]
    benchmarks: BenchmarksConfig


class GeneratedPool(Params):
    """Records drawn from the world by the recipes of the catalogue."""

    kind: Literal["generated"]
    world: WorldConfig
    shard_max_bytes: int = Field(gt=0)
    small_image_side: int = Field(gt=0)
    """Pixels of the side of an image that is too small."""
    leak: LeakConfig | None
    """None where no fault is a leaked image."""
    faults: list[Fault]


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before it is written."""

    record: Record
    conversation: Conversation
    image: bytes | None
    """The encoded picture; None where there is none, or where it is missing on purpose."""
    is_malformed: bool


def write_pool(
    folder: Path, pool: str, config: GeneratedPool, *, recipes: Mapping[str, str], sizes: Mapping[str, int], seed: int
) -> None:
    """Write the records and images of every source; `recipes` and `sizes` are by source.

    A source's records depend on the seed, the pool's name and the source only, not on the other sources.

    Raises:
        ParamsError: a fault or recipe that does not exist, or more faults than a source has records.
    """
    faults: defaultdict[str, list[Fault]] = defaultdict(list)
    for fault in config.faults:
        look_up(sizes, fault.source, where=f"pools.{pool}.faults")
        faults[fault.source].append(fault)
    with (
        (folder / RECORDS_NAME).open("w", encoding="utf-8") as file,
        ShardWriter(folder, config.shard_max_bytes) as shards,
    ):
        for source, size in iter_progress(sizes.items(), total=len(sizes), what=f"generating {pool}"):
            drafts = list(_iter_drafts(pool, source, recipes[source], config.world, size=size, seed=seed))
            for draft in _spoil(drafts, faults[source], config, where=f"pools.{pool}.faults", seed=seed):
                line = format_record(draft.record)
                file.write((line[: len(line) // 2] if draft.is_malformed else line) + "\n")
                if draft.record.image is not None and draft.image is not None:
                    shards.add(draft.record.image, draft.image)


def _iter_drafts(
    pool: str, source: str, recipe_name: str, world: WorldConfig, *, size: int, seed: int
) -> Iterator[Draft]:
    recipe = find_recipe(recipe_name)
    rng = np.random.default_rng(generator_seed(seed, f"pool/{pool}/{source}"))
    slug = re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-")
    for index in range(size):
        conversation = sample_conversation(rng, recipe, world)
        picture = conversation.picture
        record = Record(
            id=f"{slug}-{index:05d}",
            source=source,
            turns=make_turns(conversation),
            image=f"{slug}/{index:05d}.png" if picture is not None else None,
        )
        image = draw_png(picture, world.image_side) if picture is not None else None
        yield Draft(record, conversation, image, is_malformed=False)


def _spoil(
    drafts: Sequence[Draft], faults: Sequence[Fault], config: GeneratedPool, *, where: str, seed: int
) -> list[Draft]:
    """The drafts with every fault put into records of its own; the first record stays whole."""
    spoiled = list(drafts)
    if not faults:
        return spoiled
    wanted = sum(fault.count for fault in faults)
    if wanted >= len(drafts):
        raise ParamsError(f"{where}: {wanted} faults for {faults[0].source}, which has {len(drafts)} records")
    rng = np.random.default_rng(generator_seed(seed, f"faults/{faults[0].source}"))
    chosen = (rng.permutation(len(drafts) - 1) + 1).tolist()[:wanted]
    places, whole = iter(chosen), sorted(set(range(len(drafts))) - set(chosen))
    for fault in faults:
        for number in range(fault.count):
            place = next(places)
            draft = drafts[place]
            if draft.conversation.picture is None and fault.kind in _IMAGE_FAULTS:
                raise ParamsError(f"{where}: {fault.kind} needs a source with images, {fault.source} has none")
            match fault.kind:
                case "duplicate":
                    spoiled[place] = _copy(drafts[whole[bisect(whole, place) - 1]], draft.record)
                case "leaked-image":
                    spoiled[place] = _leak(draft, config, number, where=where, seed=seed)
                case "small-image":
                    spoiled[place] = _shrink(draft, config)
                case _:
                    spoiled[place] = _SPOILERS[fault.kind](draft)
    return spoiled


def _copy(original: Draft, record: Record) -> Draft:
    """Another record of the same words and the same bytes."""
    return replace(original, record=replace(record, turns=original.record.turns, image=_renamed(original, record)))


def _renamed(original: Draft, record: Record) -> str | None:
    if original.record.image is None:
        return None
    return f"{original.record.image.rpartition('/')[0]}/{record.id}.png"


def _leak(draft: Draft, config: GeneratedPool, number: int, *, where: str, seed: int) -> Draft:
    """The record with a test picture in the place of its own, byte for byte; its answers are no longer true of it."""
    leak = config.leak
    if leak is None:
        raise ParamsError(f"{where}: a leaked image needs pools.leak, which says whose")
    chosen = look_up(leak.benchmarks.sets, leak.benchmark, where=f"{where}: leak.benchmarks.sets")
    drawn = draw_item(
        leak.benchmarks,
        seed=seed,
        split=leak.split,
        name=leak.benchmark,
        index=number % chosen.items,
    )
    return replace(draft, image=draw_png(drawn.pictures[0], leak.benchmarks.world.image_side))


def _shrink(draft: Draft, config: GeneratedPool) -> Draft:
    assert draft.conversation.picture is not None
    step = max(config.world.image_side // config.small_image_side, 1)
    pixels = render(draft.conversation.picture, config.world.image_side).pixels[::step, ::step]
    return replace(draft, image=encode_png(np.ascontiguousarray(pixels)))


def _break_line(draft: Draft) -> Draft:
    return replace(draft, is_malformed=True)


def _lose_image(draft: Draft) -> Draft:
    return replace(draft, image=None)


def _truncate_image(draft: Draft) -> Draft:
    assert draft.image is not None
    return replace(draft, image=draft.image[: len(draft.image) // 2])


def _mislabel(draft: Draft) -> Draft:
    exchanges = tuple(_answer_wrongly(exchange) for exchange in draft.conversation.exchanges)
    turns = make_turns(replace(draft.conversation, exchanges=exchanges))
    return replace(draft, record=replace(draft.record, turns=turns))


def _answer_wrongly(exchange: Exchange) -> Exchange:
    return replace(exchange, answer=exchange.wrong_answers[0]) if exchange.wrong_answers else exchange


def _start_with_assistant(draft: Draft) -> Draft:
    answer = draft.conversation.exchanges[0].answer
    return replace(draft, record=replace(draft.record, turns=(Turn("gpt", answer), *draft.record.turns)))


_IMAGE_FAULTS = ("missing-image", "truncated-image", "small-image", "leaked-image")
_SPOILERS: dict[FaultKind, Callable[[Draft], Draft]] = {
    "malformed-line": _break_line,
    "missing-image": _lose_image,
    "truncated-image": _truncate_image,
    "wrong-answers": _mislabel,
    "wrong-first-speaker": _start_with_assistant,
}
