"""The targeted internet data engine: from fields of knowledge to a small pool of questions about pictures."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cambrian.artifacts import write_folder, write_json
from cambrian.data.engine.recording import Recording
from cambrian.data.engine.steps import Exchange, Work, ask_questions, find_candidates, find_pages, find_topics
from cambrian.data.engine.web import Web
from cambrian.data.ledger import Ledger, write_dropped
from cambrian.data.records import format_record
from cambrian.data.shards import ShardWriter
from cambrian.interfaces import IMAGE_PLACEHOLDER, ArtifactError, Record, Turn
from cambrian.params import read_yaml
from cambrian.runtime import logged_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.data.engine.config import EngineConfig

_PROMPTS_PATH = Path(__file__).with_name("prompts.yaml")


def run_engine(config: EngineConfig, *, recording: Path, output: Path) -> None:
    """Write a pool of the engine's records, in the format of every pool, with where each came from.

    Every request and reply is in the recording before it is used, so a run that was killed goes on where it was, and a
    replay of the whole gives the same bytes.

    Raises:
        ArtifactError: the recording lacks a reply and may not be extended; an answer or a page is useless and the
            policy is to fail; or too many questions came to nothing.

    Source: paper, section on the targeted internet data engine; release, dataengine.
    """
    with (
        logged_step("data engine") as facts,
        write_folder(output) as folder,
        closing(Web(config, Recording(recording))) as web,
    ):
        ledger = Ledger()
        work = Work(config, web, ledger, read_yaml(_PROMPTS_PATH))
        exchanges = ask_questions(work, find_candidates(work, find_pages(work, find_topics(work))))
        _check_lost_share(ledger, config)
        _write_pool(folder, exchanges, config)
        _write_ledger(folder, ledger)
        facts.update(records=len(exchanges), requests=web.num_requests)


def _write_pool(folder: Path, exchanges: Sequence[Exchange], config: EngineConfig) -> None:
    with (
        (folder / "records.jsonl").open("w", encoding="utf-8") as lines,
        (folder / "provenance.jsonl").open("w", encoding="utf-8") as provenance,
        ShardWriter(folder, config.shard_max_bytes) as shards,
    ):
        for number, exchange in enumerate(exchanges):
            candidate = exchange.candidate
            field = re.sub(r"[^a-z0-9]+", "-", candidate.topic.field.lower()).strip("-")
            record = Record(
                id=f"engine-{field}-{number:06d}",
                source=config.source,
                turns=(Turn("human", f"{IMAGE_PLACEHOLDER}\n{exchange.question}"), Turn("gpt", exchange.answer)),
                image=f"engine/{field}/{number:06d}.png",
            )
            assert record.image is not None
            shards.add(record.image, candidate.png)
            lines.write(format_record(record) + "\n")
            origin = {
                "id": record.id,
                "topic": candidate.topic.path,
                "page": candidate.section.page_url,
                "section": candidate.section.heading,
                "picture": candidate.figure.url,
                "caption": candidate.figure.caption,
                "topics_model": config.model.topics_model,
                "questions_model": config.model.questions_model,
                "licence": config.licence,
            }
            provenance.write(json.dumps(origin, ensure_ascii=False) + "\n")
    described = {
        "category": config.category,
        "published_thousands": len(exchanges) / 1000,
        "in_7m": True,
        "generator": "data engine",
        "licence": config.licence,
    }
    write_json(folder / "sources.json", {config.source: described})


def _write_ledger(folder: Path, ledger: Ledger) -> None:
    """Write every step's account. One step's output is not the next one's input: a topic has many pages."""
    steps: list[dict[str, Any]] = []
    for step in ledger.steps:
        alone = Ledger()
        alone.steps.append(step)
        steps += alone.to_json()
    write_json(folder / "ledger.json", {"steps": steps})
    write_dropped(folder / "dropped.parquet", ledger.dropped)


def _check_lost_share(ledger: Ledger, config: EngineConfig) -> None:
    step = ledger.steps[-1]
    num_asked, num_lost = step.records_in.total(), step.dropped.total()
    if num_lost > config.policies.max_lost_share * num_asked:
        example = ledger.dropped[-1]
        raise ArtifactError(
            f"{num_lost} of {num_asked} questions came to nothing, policies.max_lost_share allows "
            f"{config.policies.max_lost_share:.1%}; as {example.id}: {example.reason}, {example.detail}"
        )
