"""Stored replies to scores: needs the items and the replies, and no model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cambrian.evaluation.benchmarks.registry import PAPER_SCORES, find_benchmark
from cambrian.evaluation.metrics import chance_level, mean_scores, score_credits
from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cambrian.interfaces import Item, Reply


def grade_replies(items: Sequence[Item], replies: Sequence[Reply], *, with_image: bool) -> list[float]:
    """The credit, 0 to 1, of the reply to every item, in the items' order; 0 where no answer is known.

    Raises:
        ArtifactError: as `find_texts`.
    """
    texts = find_texts(items, replies, with_image=with_image)
    return [
        find_benchmark(item.benchmark).match(text, item) if item.answers else 0.0
        for item, text in zip(items, texts, strict=True)
    ]


def find_texts(items: Sequence[Item], replies: Sequence[Reply], *, with_image: bool) -> list[str]:
    """What was replied to every item, in the items' order.

    Raises:
        ArtifactError: an item has no reply or two, or a reply has no item.
    """
    texts: dict[str, str] = {}
    for reply in replies:
        if reply.with_image == with_image:
            if reply.item_id in texts:
                raise ArtifactError(f"two replies to {reply.item_id}: delete the replies and run `dvc repro`")
            texts[reply.item_id] = reply.text
    missing = [item.id for item in items if item.id not in texts]
    unknown = sorted(texts.keys() - {item.id for item in items})
    if missing or unknown:
        which = f"no reply to {missing[0]}" if missing else f"a reply to {unknown[0]}, which is no item"
        raise ArtifactError(
            f"{which} ({len(missing)} items without a reply, {len(unknown)} replies without an item): the replies are "
            "of other benchmarks; run `dvc repro`"
        )
    return [texts[item.id] for item in items]


def score_replies(items: Mapping[str, Sequence[Item]], replies: Mapping[str, Sequence[Reply]]) -> dict[str, Any]:
    """The `scores`, `categories` and `average` of scores.json, from each benchmark's items and replies.

    A run without images has only replies with `with_image` false: its `with_image` numbers are None, and the standard
    errors are those of the numbers that it has. `items` counts those that a score rests on: where a data set keeps
    its answers to itself they are none, and the score is None.

    Raises:
        ArtifactError: as `grade_replies`.
    """
    scores: dict[str, dict[str, Any]] = {}
    for name, members in items.items():
        scores[name] = _score_benchmark(name, members, replies[name])
    return {"scores": scores, **_summarise(scores)}


def _score_benchmark(name: str, items: Sequence[Item], replies: Sequence[Reply]) -> dict[str, Any]:
    benchmark = find_benchmark(name)
    known = [item for item in items if item.answers]
    results = {}
    for mode in sorted({reply.with_image for reply in replies}):
        texts = find_texts(items, replies, with_image=mode)
        credits_ = [benchmark.match(text, item) for item, text in zip(items, texts, strict=True) if item.answers]
        results[mode] = score_credits(benchmark.metric, known, credits_) if known else (None, None)
    return {
        "with_image": results[True][0] if True in results else None,
        "without_image": results[False][0] if False in results else None,
        "standard_error": results[max(results)][1],
        "chance": chance_level(benchmark, known) if known else None,
        "items": len(known),
    }


def _summarise(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    categories: dict[str, dict[str, float | None]] = {}
    average: dict[str, float | None] = {}
    for mode in ("with_image", "without_image"):
        present = {
            name: entry[mode] for name, entry in scores.items() if entry[mode] is not None and name in PAPER_SCORES
        }
        means, average[mode] = mean_scores(present) if present else ({}, None)
        for group, mean in means.items():
            categories.setdefault(group, {"with_image": None, "without_image": None})[mode] = mean
    return {"categories": categories, "average": average}
