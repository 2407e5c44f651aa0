"""Params of the engine for the small encyclopedia."""

from __future__ import annotations

from typing import Any

from cambrian.data.engine.config import EngineConfig


def engine(url: str, **changes: Any) -> EngineConfig:
    """The engine for a site at this address; `changes` are by the dotted names of fields."""
    value: dict[str, Any] = {
        "mode": "record",
        "source": "Data Engine",
        "category": "Science",
        "licence": "CC0-1.0",
        "fields": {"Physics": ["optics", "waves"], "Biology": ["cells", "birds"]},
        "topics_per_subfield": 5,
        "model": {
            "base_url": f"{url}/v1",
            "topics_model": "planner",
            "questions_model": "asker",
            "temperature": 0.0,
            "max_tokens": 400,
            "api_key_variable": "ENGINE_TEST_KEY",
            "num_asks": 2,
        },
        "search": {"api_url": f"{url}/api.php", "page_url": url + "/wiki/{title}", "num_links": 10},
        "crawl": {
            "hosts": [url.removeprefix("http://")],
            "user_agent": "cambrian-engine (someone@example.org)",
            "min_interval_s": 0.0,
            "timeout_s": 5.0,
            "num_attempts": 3,
            "retry_wait_s": 0.0,
            "max_bytes": 100_000,
            "max_redirects": 2,
        },
        "filters": {
            "min_words": 50,
            "skipped_headings": ["history"],
            "max_pictures_per_section": 4,
            "min_image_side": 16,
            "max_image_pixels": 1_000_000,
            "min_shared_words": 1,
            "max_question_words": 40,
            "max_answer_words": 60,
        },
        "policies": {"answer": "skip-and-record", "page": "skip-and-record", "max_lost_share": 0.5},
        "shard_max_bytes": 1_000_000,
    }
    for name, change in changes.items():
        block = value
        *parents, last = name.split("__")
        for parent in parents:
            block = block[parent]
        block[last] = change
    return EngineConfig.model_validate(value)
