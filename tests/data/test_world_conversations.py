from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cambrian.backbones.corpora import read_documents, read_images, read_vocabulary
from cambrian.data.sources import PoolConfig, collect_pool
from cambrian.data.world import conversations
from cambrian.data.world.conversations import (
    Recipe,
    draw_name,
    find_recipe,
    make_turns,
    read_recipes,
    sample_conversation,
)
from cambrian.data.world.corpora import GeneratedCorpora
from cambrian.data.world.pictures import count_things
from cambrian.data.world.words import CLASSES
from cambrian.interfaces import ParamsError
from tests.data.test_world import WORLD

if TYPE_CHECKING:
    from pathlib import Path

CORPORA = GeneratedCorpora(
    kind="generated-corpora",
    world=WORLD,
    num_images=40,
    num_documents=120,
    pictures={"scene": 0.5, "chart": 0.5},
    recipes={"documents": 0.8, "facts": 0.2},
    prompts={1: "answer in one", 2: "the answer is a number", 3: "tell me the letter"},
    prompt_share=0.5,
)


def recipe(**changes: object) -> Recipe:
    values = {
        "pictures": {"chart": 1.0},
        "questions": {"chart": {"value": 1.0, "extreme": 1.0}},
        "min_things": 1,
        "turns": (3, 4),
        "listed_share": 0.0,
        "lettered_share": 0.0,
    }
    return Recipe.model_validate(values | changes)


@pytest.mark.parametrize("name", sorted(read_recipes()))
def test_every_recipe_makes_conversations(name: str) -> None:
    rng = np.random.default_rng(0)
    least, most = find_recipe(name).turns
    for _ in range(10):
        conversation = sample_conversation(rng, find_recipe(name), WORLD)
        questions = [exchange.question for exchange in conversation.exchanges]
        assert least <= len(set(questions)) == len(questions) <= most
        assert all(exchange.answer not in exchange.wrong_answers for exchange in conversation.exchanges)


def test_the_image_leads_the_first_question_only() -> None:
    turns = make_turns(sample_conversation(np.random.default_rng(0), recipe(), WORLD))
    assert turns[0].text.startswith("<image>\n")
    assert sum("<image>" in turn.text for turn in turns) == 1
    assert [turn.speaker for turn in turns] == ["human", "gpt"] * (len(turns) // 2)


def test_text_only_conversations_have_no_image() -> None:
    conversation = sample_conversation(np.random.default_rng(0), find_recipe("facts"), WORLD)
    assert conversation.picture is None
    assert not any("<image>" in turn.text for turn in make_turns(conversation))


def test_lettered_questions_are_answered_by_their_letter() -> None:
    conversation = sample_conversation(np.random.default_rng(0), recipe(lettered_share=1.0), WORLD)
    for exchange in conversation.exchanges:
        words = exchange.question.split()
        assert words[:2] == ["choices", "a"]
        assert words[words.index(exchange.answer, 1) + 1] not in ("a", "b", "c", "d")


def test_listed_questions_hold_their_answer() -> None:
    conversation = sample_conversation(np.random.default_rng(0), recipe(listed_share=1.0), WORLD)
    assert all(exchange.answer in exchange.question.split()[1:5] for exchange in conversation.exchanges)


def test_a_recipe_that_never_fits_is_an_error_not_an_endless_loop() -> None:
    with pytest.raises(ParamsError, match="none had 3 different questions"):
        sample_conversation(np.random.default_rng(0), recipe(questions={"chart": {"colour": 1.0}}), WORLD)


def test_pictures_have_at_least_so_many_things() -> None:
    rng = np.random.default_rng(0)
    full = [sample_conversation(rng, recipe(min_things=3), WORLD).picture for _ in range(10)]
    assert [count_things(picture) for picture in full if picture is not None] == [3] * 10


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ParamsError, match="unknown name 'chart'; did you mean 'charts'"):
        find_recipe("chart")


def test_a_recipe_of_an_unknown_question_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "recipes.yaml"
    path.write_text(
        "questions: {}\nrecipes:\n  odd: {pictures: {chart: 1}, questions: {chart: {valu: 1}}, min_things: 1, "
        "turns: [1, 1], listed_share: 0.0, lettered_share: 0.0}\n"
    )
    monkeypatch.setattr(conversations, "TABLE_PATH", path)
    with pytest.raises(ParamsError, match=r"recipes\.odd\.questions\.chart: unknown name 'valu'; did you mean 'value'"):
        read_recipes.__wrapped__()


def test_names_are_drawn_by_their_weights() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_name(rng, {"often": 3, "seldom": 1, "never": 0}) for _ in range(400)]
    assert 260 < drawn.count("often") < 340
    assert "never" not in drawn


def collect(folder: Path) -> Path:
    collect_pool("corpora", PoolConfig(CORPORA), samples_per_record=1000, seed=0, output=folder)
    return folder


def test_backbones_can_read_the_corpora(tmp_path: Path) -> None:
    folder = collect(tmp_path / "corpora")
    images, documents, words = read_images(folder), read_documents(folder), set(read_vocabulary(folder))
    assert len(images) == CORPORA.num_images
    assert images.pixels.shape == (40, 48, 48, 3)
    assert images.labels.shape == (40, len(CLASSES))
    assert images.depth.dtype == np.float16
    assert images.pixels.any(axis=(1, 2, 3)).all()
    assert len(documents) == CORPORA.num_documents
    texts = [turn.text for document in documents for turn in document.turns]
    phrases = [word for document in documents for phrase in document.phrases for word in phrase]
    assert {word for text in [*texts, *images.captions, *phrases] for word in text.split()} <= words
    assert {len(document.phrases) for document in documents} == {0, 9}


def test_some_documents_end_on_prompts_that_fit_their_answers(tmp_path: Path) -> None:
    folder = collect(tmp_path / "corpora")
    turns = [turn for line in (folder / "documents.jsonl").open() for turn in json.loads(line)["turns"]]
    pairs = list(zip(turns[::2], turns[1::2], strict=True))
    letters = [answer["value"] for question, answer in pairs if question["value"].endswith("\ntell me the letter")]
    numbers = [answer["value"] for question, answer in pairs if question["value"].endswith("\nthe answer is a number")]
    assert letters
    assert set(letters) <= {"a", "b", "c", "d"}
    assert len(set(numbers)) > 3
    assert 0.2 < sum("\n" in question["value"] for question, _ in pairs) / len(pairs) < 0.7


def test_the_same_seed_gives_the_same_corpora(tmp_path: Path) -> None:
    first, second = collect(tmp_path / "first"), collect(tmp_path / "second")
    files = sorted(path.name for path in first.iterdir())
    assert len(files) == 5
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
