"""This project's models under lmms-eval, as a model plug-in (`--model cambrian_regenerated`).

lmms-eval finds `manifest` by the entry point `lmms_eval.models` and asks the class for replies to its own tasks:
`--model_args model=models/gpu/runs/RUN,backbones=models/gpu/backbones,device=cuda`. It is no dependency of ours;
nothing else imports this module.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmms_eval.api.model import lmms

from cambrian.evaluation.answering import open_own_model
from cambrian.evaluation.asking import answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cambrian.evaluation.reply_log import Prompt

MODEL_ID = "cambrian_regenerated"
_MAX_NEW_TOKENS = 512
"""Where a task of lmms-eval names no other limit."""


class CambrianRegenerated(lmms):  # type: ignore[misc]
    """A run's model, answering lmms-eval's requests greedily and in batches."""

    is_simple = True

    def __init__(self, model: str, backbones: str, device: str = "cpu", batch_size: int | str = 1, **_: Any) -> None:
        super().__init__()
        self._answerer = open_own_model(Path(model), backbones=Path(backbones), device=device)
        self._batch_size = int(batch_size)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The reply to every request, in order, cut at the first of the task's stops.

        Raises:
            ValueError: a request shows several pictures, which these models were not trained on.
        """
        replies: dict[int, str] = {}
        limits = [_limit(request.args[1]) for request in requests]
        for limit in sorted(set(limits)):
            chosen = [number for number, found in enumerate(limits) if found == limit]
            prompts = {number: self._read(requests[number]) for number in chosen}
            texts = answer(
                self._answerer,
                list(prompts.values()),
                batch_size=self._batch_size,
                max_new_tokens=limit,
                what="lmms-eval",
            )
            for number, prompt in prompts.items():
                replies[number] = _cut(texts[prompt], requests[number].args[1].get("until", ()))
        return [replies[number] for number in range(len(requests))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered: the paper's benchmarks are answered in words."""
        raise NotImplementedError("tasks that compare likelihoods are not supported: choose one that generates")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered: the paper's benchmarks have one round."""
        raise NotImplementedError("tasks of several rounds are not supported: choose one with a single round")

    def _read(self, request: Any) -> Prompt:
        context, _, find_pictures, doc_id, task, split = request.args
        pictures = find_pictures(self.task_dict[task][split][doc_id]) or []
        if len(pictures) > 1:
            raise ValueError(f"{task}, document {doc_id}, shows {len(pictures)} pictures, expected one or none")
        if not pictures:
            return context, None
        file = io.BytesIO()
        pictures[0].convert("RGB").save(file, "PNG")
        return context, file.getvalue()


def manifest() -> Any:
    """What lmms-eval's registry reads from the entry point."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, simple_class_path=f"{__name__}.{CambrianRegenerated.__name__}")


def _limit(options: dict[str, Any]) -> int:
    return int(options.get("max_new_tokens", _MAX_NEW_TOKENS))


def _cut(text: str, until: Sequence[str] | str) -> str:
    for stop in [until] if isinstance(until, str) else until:
        if stop:
            text = text.split(stop, 1)[0]
    return text.strip()
