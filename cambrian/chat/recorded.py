"""Dialogues held with a run's model by a program, kept with the reference answers: how long and how good its talk is.

Source: paper, section on the answer machine and figures 14 and 19 (NeurIPS numbering), which show examples alone.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import Field

from cambrian.artifacts import read_manifest, write_json
from cambrian.chat.dialogue import Exchange
from cambrian.interfaces import ArtifactError, RecordError
from cambrian.params import Params
from cambrian.runtime import iter_progress, logged_step

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.chat.talker import Talker
    from cambrian.runtime import RuntimeConfig

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


class DialoguesConfig(Params):
    """The block `dialogues` of scales/<scale>.yaml."""

    max_new_tokens: int = Field(gt=0)
    """Where a reply is cut off."""


def hold_dialogues(
    config: DialoguesConfig,
    *,
    model: Path,
    backbones: Path,
    dialogues: Path,
    runtime: RuntimeConfig,
    run: str,
    scale: str,
    output: Path,
) -> None:
    """Ask every dialogue's questions one after the other, each after the model's own replies, and write all of it.

    Raises:
        ArtifactError: the model, a backbone or the dialogues are missing or broken, or a question cannot be asked.
    """
    import pyarrow.parquet
    import torch

    from cambrian.chat.talker import read_talker

    read_manifest(dialogues)
    rows = pyarrow.parquet.ParquetFile(dialogues / "dialogues.parquet").read().to_pylist()
    torch.set_num_threads(runtime.threads)
    talker = read_talker(model, backbones=backbones, device=runtime.device)
    with logged_step(f"dialogues with {run}") as facts:
        held = [
            {"index": index, "turns": _hold(talker, row, config.max_new_tokens, where=f"{dialogues}, dialogue {index}")}
            for index, row in iter_progress(enumerate(rows), total=len(rows), what=f"dialogues with {run}")
        ]
        facts["dialogues"] = len(held)
    write_json(output, {"run": run, "scale": scale, "dialogues": held})


def split_words(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return _WORD.findall(text.lower())


def overlap(reply: str, reference: str) -> float:
    """ROUGE-1: the harmonic mean of the shares of the reply's and of the reference's words that the other has too.

    Every word counts as often as it stands in both; 0 where either has none.

    Source: Lin, ROUGE: A Package for Automatic Evaluation of Summaries (2004), section 2, as F measure.
    """
    ours, theirs = Counter(split_words(reply)), Counter(split_words(reference))
    return 2 * (ours & theirs).total() / max(ours.total() + theirs.total(), 1)


def _hold(talker: Talker, row: dict[str, Any], max_new_tokens: int, *, where: str) -> list[dict[str, Any]]:
    exchanges: list[Exchange] = []
    turns = []
    for turn in row["turns"]:
        try:
            answer = talker.answer([row["image"]["bytes"]], exchanges, turn["question"], max_new_tokens=max_new_tokens)
        except RecordError as error:
            raise ArtifactError(f"{where}: {turn['question']!r} cannot be asked ({error})") from error
        exchanges.append(Exchange(turn["question"], answer.text))
        turns.append(
            {
                "question": turn["question"],
                "reference": turn["answer"],
                "reply": answer.text,
                "words": len(split_words(answer.text)),
                "reference_words": len(split_words(turn["answer"])),
                "overlap": overlap(answer.text, turn["answer"]),
            }
        )
    return turns
