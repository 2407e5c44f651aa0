"""The language model of the engine: a question, and an answer that is what was asked for or a reason why not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from cambrian.interfaces import RecordError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cambrian.data.engine.config import ModelConfig
    from cambrian.data.engine.web import Web

T = TypeVar("T")

_FENCED = re.compile(r"```(?:json)?\s*(.*?)```", re.DOTALL)


def ask_model(
    web: Web, config: ModelConfig, *, model: str, system: str, user: str, repair: str, parse: Callable[[Any], T]
) -> T:
    """Ask until the answer parses, at most `config.num_asks` times; each time it is told what was wrong.

    `parse` gets the JSON value of the answer and raises ValueError where it is not what was asked for.

    Raises:
        RecordError: `nonsense-answer`, no answer was what was asked for; `unanswered`, the endpoint stays busy;
            `refused`, it refuses the request itself.
    """
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    fault = ""
    for _ in range(config.num_asks):
        text = _complete(web, config, model, messages)
        try:
            return parse(parse_json(text))
        except ValueError as error:
            fault = str(error)
        messages = [
            *messages,
            {"role": "assistant", "content": text},
            {"role": "user", "content": repair.format(fault=fault)},
        ]
    raise RecordError("nonsense-answer", f"{model} did not answer what was asked, {config.num_asks} times: {fault}")


def parse_json(text: str) -> Any:
    """The JSON value of an answer: its first fenced block, or all of it; a single key around everything is taken off.

    Raises:
        ValueError: there is none.

    Source: release, dataengine, its second step.
    """
    match = _FENCED.search(text)
    try:
        return json.loads(match[1] if match else text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{text[:60]!r} is not JSON") from error


def _complete(web: Web, config: ModelConfig, model: str, messages: list[dict[str, str]]) -> str:
    body = json.dumps(
        {"model": model, "messages": messages, "temperature": config.temperature, "max_tokens": config.max_tokens},
        sort_keys=True,
        ensure_ascii=False,
    )
    reply = web.post(f"{config.base_url}/chat/completions", body)
    if reply.status != 200:
        text = reply.body[:200].decode("utf-8", errors="replace")
        raise RecordError("refused", f"{config.base_url} answers {reply.status}: {text}")
    try:
        content = json.loads(reply.body)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise RecordError(
            "nonsense-answer", f"{config.base_url} does not answer in OpenAI's form: {error!r}"
        ) from error
    if not isinstance(content, str):
        raise RecordError("nonsense-answer", f"{config.base_url} answers without a text")
    return content
