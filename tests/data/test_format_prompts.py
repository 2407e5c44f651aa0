from __future__ import annotations

from pathlib import Path

import pytest

from cambrian.data.format_prompts import FormatPromptsConfig, add_format_prompt, read_format_prompt_table
from cambrian.data.world.questions import all_words
from cambrian.interfaces import ParamsError, Record, Turn
from cambrian.params import parse_block, read_yaml

ROOT = Path(__file__).parents[2]
TABLE = read_format_prompt_table()
CONFIG = FormatPromptsConfig(
    texts={kind: f"prompt {kind}" for kind in TABLE.kinds},
    choices_marker="( a )",
)


def prompted(source: str, *questions: str) -> list[str]:
    turns = tuple(turn for question in questions for turn in (Turn("human", question), Turn("gpt", "an answer")))
    record = add_format_prompt(Record("r", source, turns, None), TABLE, CONFIG)
    assert [turn.text for turn in record.turns[1::2]] == ["an answer"] * len(questions)
    return [turn.text for turn in record.turns[::2]]


def test_the_table_names_the_published_22_sources() -> None:
    assert len(TABLE.sources) == 22
    assert {kind for kinds in TABLE.sources.values() for kind in kinds} == set(TABLE.kinds)
    assert set(TABLE.choice_kinds) <= set(TABLE.kinds)


def test_every_question_of_a_listed_source_gets_its_prompt_on_a_new_line() -> None:
    assert prompted("DocVQA", "<image>\nwhat ?", "and then ?") == ["<image>\nwhat ?\nprompt 4", "and then ?\nprompt 4"]


def test_other_sources_stay_as_they_are() -> None:
    assert prompted("LLaVA150K", "what ?") == ["what ?"]


def test_questions_with_choices_get_the_prompt_for_choices_where_a_source_has_both() -> None:
    assert prompted("IconQA", "what ? ( a ) one ( b ) two", "what ?") == [
        "what ? ( a ) one ( b ) two\nprompt 10",
        "what ?\nprompt 1",
    ]


def test_two_prompts_that_do_not_exclude_each_other_are_both_added() -> None:
    assert prompted("ScreenQA", "what ?") == ["what ?\nprompt 1\nprompt 6"]


def test_a_prompt_for_choices_needs_choices_and_other_prompts_do_not_mind_them() -> None:
    assert prompted("TQA", "what ? ( a ) one", "what ?") == ["what ? ( a ) one\nprompt 10", "what ?"]
    assert prompted("DVQA", "what ? ( a ) one") == ["what ? ( a ) one\nprompt 1"]


def test_a_kind_without_words_is_an_error_that_names_it() -> None:
    config = FormatPromptsConfig(texts={1: "one word"}, choices_marker="( a )")
    record = Record("r", "ChartQA", (Turn("human", "what ?"), Turn("gpt", "3")), None)
    with pytest.raises(ParamsError, match=r"no kind 2 \(one number or phrase\), which ChartQA needs; it has \[1\]"):
        add_format_prompt(record, TABLE, config)


@pytest.mark.parametrize("scale", ["mini"])
def test_a_generated_worlds_prompts_use_its_words_and_cover_every_kind(scale: str) -> None:
    block = read_yaml(ROOT / f"scales/{scale}.yaml")["format_prompts"]
    config = parse_block(FormatPromptsConfig, block, where="format_prompts")
    assert config.texts.keys() == TABLE.kinds.keys()
    assert len(set(config.texts.values())) == len(config.texts)
    assert {word for text in config.texts.values() for word in text.split()} <= all_words()
