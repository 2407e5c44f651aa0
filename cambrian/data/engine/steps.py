"""The engine's steps as functions: each takes what the one before gave and writes down what it leaves out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cambrian.data.engine.language_model import ask_model
from cambrian.data.engine.pages import check_caption, check_section, read_sections, search_pages
from cambrian.data.engine.pictures import to_png
from cambrian.data.ledger import Dropped
from cambrian.interfaces import ArtifactError, RecordError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cambrian.data.collecting.config import Policy
    from cambrian.data.engine.config import EngineConfig
    from cambrian.data.engine.pages import Figure, Section
    from cambrian.data.engine.web import Web
    from cambrian.data.ledger import Ledger

_NO_ANSWER_REASONS = ("nonsense-answer", "refused", "unanswered")


@dataclass(frozen=True, slots=True)
class Topic:
    """What is looked for."""

    field: str
    subfield: str
    name: str

    @property
    def path(self) -> str:
        """Where it stands among the others."""
        return f"{self.field}/{self.subfield}/{self.name}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture with the text around it."""

    topic: Topic
    section: Section
    figure: Figure
    png: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question about a picture, and its answer."""

    candidate: Candidate
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Work:
    """What every step needs."""

    config: EngineConfig
    web: Web
    ledger: Ledger
    prompts: Mapping[str, str]

    def drop(self, what: str, field: str, error: RecordError, policy: Policy, name: str) -> None:
        """Write down what is left out, or stop where the policy says so.

        Raises:
            ArtifactError: it does.
        """
        if policy == "fail":
            raise ArtifactError(f"{what}: {error.reason}: {error}. Mend it, or set policies.{name} to skip-and-record")
        self.ledger.drop(Dropped(what, field, error.reason, str(error)))


def find_topics(work: Work) -> list[Topic]:
    """Ask the model for topics of every field. A field without a usable answer has none."""
    config = work.config
    step = work.ledger.start("topics of fields")
    topics: list[Topic] = []
    for field, subfields in config.fields.items():
        try:
            named = ask_model(
                work.web,
                config.model,
                model=config.model.topics_model,
                system=work.prompts["topics"].format(topics_per_subfield=config.topics_per_subfield),
                user=f"{field}: {', '.join(subfields)}",
                repair=work.prompts["repair"],
                parse=lambda value, wanted=subfields: _parse_topics(value, wanted),  # type: ignore[misc]
            )
        except RecordError as error:
            work.drop(field, field, error, config.policies.answer, "answer")
            continue
        step.keep(field)
        for subfield, names in named.items():
            topics += [Topic(field, subfield, name) for name in names[: config.topics_per_subfield]]
    return topics


def find_pages(work: Work, topics: Iterable[Topic]) -> list[tuple[Topic, str]]:
    """Search for pages on every topic; a page belongs to the first topic that finds it."""
    step = work.ledger.start("pages of topics")
    seen: set[str] = set()
    pages: list[tuple[Topic, str]] = []
    for topic in topics:
        try:
            urls = search_pages(work.web, work.config.search, topic.name)
            if not urls:
                raise RecordError("nothing-found", f"the search knows no page on {topic.name!r}")
        except RecordError as error:
            work.drop(topic.path, topic.field, error, _policy_of(work, error), "page")
            continue
        step.keep(topic.field)
        pages += [(topic, url) for url in urls if url not in seen]
        seen.update(urls)
    return pages


def find_candidates(work: Work, pages: Iterable[tuple[Topic, str]]) -> list[Candidate]:
    """Read every page, and keep the pictures that stand beside enough text."""
    sections = list(_read_pages(work, pages))
    step = work.ledger.start("sections")
    kept = []
    for topic, section in sections:
        try:
            check_section(section, work.config.filters)
        except RecordError as error:
            work.drop(f"{section.page_url}#{section.heading}", topic.field, error, "skip-and-record", "page")
            continue
        step.keep(topic.field)
        kept.append((topic, section))
    return _read_pictures(work, kept)


def ask_questions(work: Work, candidates: Iterable[Candidate]) -> list[Exchange]:
    """Ask the model for a question and an answer about every picture."""
    config = work.config
    step = work.ledger.start("questions")
    exchanges = []
    for candidate in candidates:
        try:
            question, answer = ask_model(
                work.web,
                config.model,
                model=config.model.questions_model,
                system=work.prompts["questions"].format(),
                user=_describe(candidate),
                repair=work.prompts["repair"],
                parse=lambda value: _parse_question(value, config),
            )
        except RecordError as error:
            work.drop(candidate.figure.url, candidate.topic.field, error, config.policies.answer, "answer")
            continue
        step.keep(candidate.topic.field)
        exchanges.append(Exchange(candidate, question, answer))
    return exchanges


def _read_pages(work: Work, pages: Iterable[tuple[Topic, str]]) -> Iterator[tuple[Topic, Section]]:
    step = work.ledger.start("pages")
    for topic, url in pages:
        try:
            sections = read_sections(work.web, url, work.config.filters)
        except RecordError as error:
            work.drop(url, topic.field, error, _policy_of(work, error), "page")
            continue
        step.keep(topic.field)
        for section in sections:
            yield topic, section


def _read_pictures(work: Work, sections: Iterable[tuple[Topic, Section]]) -> list[Candidate]:
    step = work.ledger.start("pictures")
    filters = work.config.filters
    seen: set[str] = set()
    candidates = []
    for topic, section in sections:
        for number, figure in enumerate(section.figures):
            try:
                if number >= filters.max_pictures_per_section:
                    raise RecordError("enough-pictures", f"the section has {len(section.figures)} pictures")
                if figure.url in seen:
                    raise RecordError("duplicate-image", f"{figure.url} stands on an earlier page too")
                check_caption(section, figure, filters)
                png = to_png(
                    work.web.get(figure.url).body,
                    name=figure.url,
                    min_side=filters.min_image_side,
                    max_pixels=filters.max_image_pixels,
                )
            except RecordError as error:
                work.drop(figure.url, topic.field, error, _policy_of(work, error), "page")
                continue
            seen.add(figure.url)
            step.keep(topic.field)
            candidates.append(Candidate(topic, section, figure, png))
    return candidates


def _policy_of(work: Work, error: RecordError) -> Policy:
    """A server that is broken is a matter of policy; what a site forbids or does not have is only written down."""
    return (
        work.config.policies.page if error.reason in (*_NO_ANSWER_REASONS, "robots-unanswered") else "skip-and-record"
    )


def _describe(candidate: Candidate) -> str:
    parts = {
        "caption": candidate.figure.caption,
        "section": candidate.section.heading,
        "topic": candidate.topic.path,
        "text": candidate.section.text,
    }
    return json.dumps(parts, ensure_ascii=False)


def _parse_topics(value: Any, subfields: tuple[str, ...]) -> dict[str, list[str]]:
    if isinstance(value, dict) and len(value) == 1 and isinstance(next(iter(value.values())), dict):
        (value,) = value.values()
    if not isinstance(value, dict):
        raise ValueError("the answer is not an object of subfields")
    found = {}
    for subfield in subfields:
        names = value.get(subfield)
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"subfield {subfield!r} has no list of names")
        # A slash would look like a path. Source: release, dataengine, its second step.
        cleaned = (" or ".join(part.strip() for part in name.split("/")).strip() for name in names)
        found[subfield] = list(dict.fromkeys(name for name in cleaned if name))
    return found


def _parse_question(value: Any, config: EngineConfig) -> tuple[str, str]:
    found = []
    limits = {"question": config.filters.max_question_words, "answer": config.filters.max_answer_words}
    for name, max_words in limits.items():
        text = value.get(name) if isinstance(value, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"the answer has no {name!r}")
        if len(text.split()) > max_words:
            raise ValueError(f"the {name} has {len(text.split())} words, at most {max_words} are wanted")
        if "<image>" in text:
            raise ValueError(f"the {name} has the image's placeholder in it")
        found.append(" ".join(text.split()))
    return found[0], found[1]
