"""Response-format prompts: what is added to a source's questions so that short answers do not spoil conversation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cambrian.interfaces import ParamsError, Record, Turn
from cambrian.params import Params, parse_block, read_yaml

TABLE_PATH = Path(__file__).with_suffix(".yaml")


class FormatPromptsConfig(Params):
    """The words of the prompts."""

    texts: dict[int, str]
    """By the kind's number in format_prompts.yaml."""
    choices_marker: str
    """A question that contains this lists its choices."""


class FormatPromptTable(Params):
    """Which kinds of prompt each source gets."""

    kinds: dict[int, str]
    choice_kinds: list[int]
    sources: dict[str, list[int]]


def read_format_prompt_table() -> FormatPromptTable:
    """Read the paper's mapping of sources to kinds of prompt.

    Source: paper, table 16.
    """
    return parse_block(FormatPromptTable, read_yaml(TABLE_PATH), where=str(TABLE_PATH.name))


def add_format_prompt(record: Record, table: FormatPromptTable, config: FormatPromptsConfig) -> Record:
    """Return the record with its source's prompts on a new line after every question.

    A record of a source that is not in the table comes back as it is.

    Raises:
        ParamsError: the scale has no words for a kind that the source needs.
    """
    kinds = table.sources.get(record.source)
    if kinds is None:
        return record
    turns = tuple(
        Turn(turn.speaker, "\n".join([turn.text, *_prompts(turn.text, kinds, table, config, record.source)]))
        if turn.speaker == "human"
        else turn
        for turn in record.turns
    )
    return replace(record, turns=turns)


def _prompts(
    question: str, kinds: list[int], table: FormatPromptTable, config: FormatPromptsConfig, source: str
) -> list[str]:
    with_choices = [kind for kind in kinds if kind in table.choice_kinds]
    without_choices = [kind for kind in kinds if kind not in table.choice_kinds]
    wanted = with_choices if with_choices and config.choices_marker in question else without_choices
    missing = [kind for kind in wanted if kind not in config.texts]
    if missing:
        raise ParamsError(
            f"format_prompts.texts has no kind {missing[0]} ({table.kinds[missing[0]]}), which {source} needs; "
            f"it has {sorted(config.texts)}"
        )
    return [config.texts[kind] for kind in wanted]
