"""From topics to pages to sections that have both a text and pictures."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urljoin

from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from bs4 import Tag

    from cambrian.data.engine.config import FilterConfig, SearchConfig
    from cambrian.data.engine.web import Web

_SPACES = re.compile(r"\s+")
_THUMBNAIL = re.compile(r"/thumb/(?P<path>.+)/[^/]*$")
_WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture of a page."""

    url: str
    """Of the original, not of the thumbnail that the page shows."""
    caption: str


@dataclass(frozen=True, slots=True)
class Section:
    """What stands under one heading, without what stands under its subheadings."""

    page_url: str
    heading: str
    text: str
    figures: tuple[Figure, ...]


def search_pages(web: Web, config: SearchConfig, topic: str) -> list[str]:
    """Addresses of the pages on a topic, best first.

    Raises:
        RecordError: as `Web.get`, or `nonsense-answer` where the site's search does not answer in MediaWiki's form.
    """
    query = {"action": "query", "list": "search", "srsearch": topic, "srlimit": str(config.num_links), "format": "json"}
    reply = web.get(f"{config.api_url}?{urlencode(query)}")
    try:
        titles = [str(hit["title"]) for hit in json.loads(reply.body)["query"]["search"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            "nonsense-answer", f"{config.api_url} does not answer in MediaWiki's form: {error!r}"
        ) from error
    return [config.page_url.format(title=quote(title.replace(" ", "_"))) for title in titles[: config.num_links]]


def read_sections(web: Web, url: str, filters: FilterConfig) -> list[Section]:
    """The sections of a page in order, without those that the filters skip by their heading.

    Raises:
        RecordError: as `Web.get`.
    """
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(web.get(url).body, "html.parser")
    sections: list[tuple[str, list[str], list[Figure]]] = []
    heading, skipped_level = "", 0
    for element in soup.find_all(["h1", "h2", "h3", "h4", "h5", "h6", "p", "figure"]):
        if element.name.startswith("h"):
            level = int(element.name[1])
            if skipped_level and level > skipped_level:
                continue
            heading = _text_of(element)
            is_skipped = any(word in heading.lower() for word in filters.skipped_headings)
            skipped_level = level if is_skipped else 0
            sections.append((heading, [], []))
        elif not skipped_level:
            if not sections:
                sections.append((heading, [], []))
            if element.name == "figure":
                sections[-1][2].extend(_read_figure(element, url))
            elif element.find_parent("figure") is None:
                sections[-1][1].append(_text_of(element))
    return [
        Section(url, heading, " ".join(filter(None, texts)), tuple(figures))
        for heading, texts, figures in sections
        if texts or figures
    ]


def check_section(section: Section, filters: FilterConfig) -> None:
    """Refuse a section that has too little.

    Raises:
        RecordError: `no-picture`, `too-few-words`.
    """
    if not section.figures:
        raise RecordError("no-picture", f"{section.page_url}, section {section.heading!r} has no picture")
    num_words = len(section.text.split())
    if num_words < filters.min_words:
        raise RecordError(
            "too-few-words",
            f"{section.page_url}, section {section.heading!r} has {num_words} words, filters.min_words asks for "
            f"{filters.min_words}",
        )


def check_caption(section: Section, figure: Figure, filters: FilterConfig) -> None:
    """Refuse a picture whose caption has nothing to do with the section's text.

    Raises:
        RecordError: `off-topic-caption`.
    """
    text = f"{section.heading} {section.text}".lower()
    shared = set(_WORD.findall(figure.caption.lower())) & set(_WORD.findall(text))
    if len(shared) < filters.min_shared_words:
        raise RecordError(
            "off-topic-caption",
            f"{figure.url}: its caption {figure.caption[:60]!r} shares {len(shared)} words with its section, "
            f"filters.min_shared_words asks for {filters.min_shared_words}",
        )


def _read_figure(element: Tag, page_url: str) -> list[Figure]:
    image = element.find("img")
    source = str(image.get("src") or "") if image is not None else ""
    if not source or source.startswith("data:"):
        return []
    caption = element.find("figcaption")
    url = urljoin(page_url, source)
    return [Figure(_THUMBNAIL.sub(r"/\g<path>", url), _text_of(caption) if caption is not None else "")]


def _text_of(element: Tag) -> str:
    return _SPACES.sub(" ", element.get_text(" ")).strip()
