"""A language model as judge of replies, behind any OpenAI-compatible endpoint, every judgement recorded.

A recorded judgement is never asked again, so a table with a judge's column is made anew without a key and without a
network. The endpoint and its key are environment (`OPENAI_BASE_URL`, `OPENAI_API_KEY`), the judge's name is part of
every recording's key.

Source: paper, comparison of fuzzy matching with a judge (NeurIPS table 24); the wording is ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING

from cambrian.interfaces import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cambrian.interfaces import Item

_TIMEOUT_S = 60.0
_NUM_TRIES = 3
"""For a connection that fails, and for an endpoint that is busy."""
_BUSY = (429, 500, 502, 503, 504)
_FIRST_PAUSE_S = 2.0
"""Before a busy endpoint is asked again; each further pause is twice as long."""
_INSTRUCTION = """You compare a reply to a question about a picture with its reference answers.
Say "correct" if the reply says the same as one of them, numbers within a relative error of 0.05; otherwise "incorrect".
Reply with that one word."""


class Judge:
    """A judge with its recordings."""

    def __init__(self, model: str, recordings: Path) -> None:
        self._model = model
        self._path = recordings
        self._verdicts: dict[str, str] = {}
        if recordings.is_file():
            for number, line in enumerate(recordings.read_text(encoding="utf-8").splitlines(), start=1):
                try:
                    entry = json.loads(line)
                    self._verdicts[entry["key"]] = entry["verdict"]
                except (ValueError, KeyError, TypeError) as error:
                    raise ArtifactError(
                        f"{recordings}, line {number}, is no judgement ({error}): delete the line and judge again"
                    ) from error

    def grade(self, items: Sequence[Item], texts: Sequence[str]) -> list[float]:
        """1 or 0 for each reply.

        Raises:
            ArtifactError: judgements are missing and there is no endpoint to ask, it fails, or it says something else
                than the two words.
        """
        questions = [_write_question(item, text) for item, text in zip(items, texts, strict=True)]
        keys = [hashlib.sha256(json.dumps([self._model, question]).encode()).hexdigest()[:32] for question in questions]
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in self._verdicts}
        if missing:
            self._ask_all(missing)
        return [_read_verdict(self._verdicts[key], self._path) for key in keys]

    def _ask_all(self, missing: dict[str, str]) -> None:
        address, secret = os.environ.get("OPENAI_BASE_URL"), os.environ.get("OPENAI_API_KEY")
        if not address or not secret:
            raise ArtifactError(
                f"{self._path} lacks {len(missing)} judgements of {self._model}: set OPENAI_BASE_URL and "
                "OPENAI_API_KEY to have them made, or name the file that has them"
            )
        import httpx

        self._path.parent.mkdir(parents=True, exist_ok=True)
        transport = httpx.HTTPTransport(retries=_NUM_TRIES)
        headers = {"Authorization": f"Bearer {secret}"}
        with (
            httpx.Client(base_url=address, headers=headers, timeout=_TIMEOUT_S, transport=transport) as client,
            self._path.open("a", encoding="utf-8") as file,
        ):
            for key, question in missing.items():
                verdict = self._ask(client, question)
                _read_verdict(verdict, self._path)
                self._verdicts[key] = verdict
                file.write(json.dumps({"key": key, "judge": self._model, "verdict": verdict}) + "\n")
                file.flush()

    def _ask(self, client: object, question: str) -> str:
        import httpx

        assert isinstance(client, httpx.Client)
        messages = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": question}]
        body = {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": 8}
        try:
            answer = client.post("chat/completions", json=body)
            for attempt in range(_NUM_TRIES):
                if answer.status_code not in _BUSY:
                    break
                time.sleep(_FIRST_PAUSE_S * 2**attempt)
                answer = client.post("chat/completions", json=body)
            answer.raise_for_status()
            text = answer.json()["choices"][0]["message"]["content"]
            if not isinstance(text, str):
                raise ValueError(f"its message is {text!r}, expected one word")
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ArtifactError(
                f"the judge {self._model} cannot be asked ({error}): what it said so far is in {self._path}; run again"
            ) from error
        return text.strip().strip(".\"'").lower()


def _write_question(item: Item, text: str) -> str:
    options = f"\nOptions: {' | '.join(item.choices)}" if item.choices else ""
    return f"Question: {item.question}{options}\nReference answers: {' | '.join(item.answers)}\nReply: {text}"


def _read_verdict(verdict: str, path: Path) -> float:
    if verdict not in ("correct", "incorrect"):
        raise ArtifactError(
            f"the judge said {verdict!r}, expected correct or incorrect: use another judge (recordings: {path})"
        )
    return float(verdict == "correct")
