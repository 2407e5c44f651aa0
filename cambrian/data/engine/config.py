"""What the data engine asks, where it looks and what it keeps: values of params."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from cambrian.data.collecting.config import Policy
from cambrian.params import Params

Texts = Annotated[tuple[str, ...], Field(strict=False)]


class ModelConfig(Params):
    """A language model behind an endpoint that speaks OpenAI's chat protocol."""

    base_url: str
    """Up to and without /chat/completions."""
    topics_model: str
    questions_model: str
    temperature: NonNegativeFloat
    max_tokens: PositiveInt
    api_key_variable: str
    """The environment variable that holds the key; the key itself is never written anywhere."""
    num_asks: PositiveInt
    """How often the model is asked when its answer is not what was asked for."""


class SearchConfig(Params):
    """A site's search, in MediaWiki's form (`action=query&list=search`)."""

    api_url: str
    page_url: str
    """Of a page, with `{title}` in it."""
    num_links: PositiveInt
    """Pages of one topic."""


class CrawlConfig(Params):
    """How the engine behaves on the sites of others; robots.txt is always obeyed."""

    hosts: Texts
    """Shell patterns of the only hosts (with port, where not the usual one) that are visited."""
    user_agent: str
    """Says who asks and how to reach them."""
    min_interval_s: NonNegativeFloat
    """Between two requests to one host; a longer Crawl-delay of its robots.txt counts more."""
    timeout_s: PositiveFloat
    num_attempts: PositiveInt
    retry_wait_s: NonNegativeFloat
    """Before the second attempt; doubled before each further one. A server's Retry-After counts more."""
    max_bytes: PositiveInt
    """Of one reply."""
    max_redirects: NonNegativeInt


class FilterConfig(Params):
    """What is kept of a page, and of the model's answers."""

    min_words: NonNegativeInt
    """Of a section's text. Source: paper, 50."""
    skipped_headings: Texts
    """Sections whose heading contains one of these, and their subsections. Source: release, history."""
    max_pictures_per_section: PositiveInt
    min_image_side: PositiveInt
    """Pixels of a picture's shorter side."""
    max_image_pixels: PositiveInt
    min_shared_words: NonNegativeInt
    """Words of four letters and more that a caption must share with its section: users of the release found pictures
    and texts about different things (issues 38 and 46)."""
    max_question_words: PositiveInt
    max_answer_words: PositiveInt


class EnginePolicies(Params):
    """What happens when an answer stays useless, or a server unreachable."""

    answer: Policy
    page: Policy
    max_lost_share: Annotated[float, Field(ge=0, le=1)]
    """Of the questions asked: beyond it the stage fails."""


class EngineConfig(Params):
    """The targeted internet data engine."""

    mode: Literal["replay", "record"]
    """`replay` needs neither network nor key: every reply comes from the recording, and a missing one is an error.
    `record` asks for what the recording does not have yet."""
    source: str
    """Under which name the records stand in a pool."""
    category: str
    licence: str
    """Of the texts and pictures that are collected."""
    fields: dict[str, Texts]
    """Fields and their subfields."""
    topics_per_subfield: PositiveInt
    model: ModelConfig
    search: SearchConfig
    crawl: CrawlConfig
    filters: FilterConfig
    policies: EnginePolicies
    shard_max_bytes: PositiveInt
