"""Conversations about a picture or about nothing visible, by recipes."""

from __future__ import annotations

import functools
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from cambrian.data.world.config import CountRange
from cambrian.data.world.pictures import Picture, count_things, kind_of, sample_picture
from cambrian.data.world.question_forms import NO, YES, Question
from cambrian.data.world.questions import (
    QUESTION_KINDS,
    answer_letter,
    draw_question,
    letter_choices,
    list_choices,
)
from cambrian.data.world.words import OPTION_LETTERS, Kind
from cambrian.interfaces import IMAGE_PLACEHOLDER, ParamsError, Turn
from cambrian.params import Params, look_up, parse_block, read_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from cambrian.data.world.config import WorldConfig

TABLE_PATH = Path(__file__).with_name("recipes.yaml")
NO_PICTURE = "none"
_MAX_TRIES = 200


class Recipe(Params):
    """What conversations of one sort are about."""

    pictures: dict[str, float]
    """Weights of kinds of pictures; `none` is text only."""
    questions: dict[str, dict[str, float]]
    """For each kind of picture the weights of kinds of questions."""
    min_things: int
    """How many solids, bars or signs a picture has at least."""
    turns: CountRange
    """The least and the largest number of questions."""
    listed_share: float
    """Share of the questions with choices that list them."""
    lettered_share: float
    """Share of the questions with choices that list them under letters and are answered by a letter."""


class RecipeTable(Params):
    """All of recipes.yaml."""

    questions: dict[str, dict[str, float]]
    """Weights that recipes refer to."""
    recipes: dict[str, Recipe]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer as they stand in the text."""

    question: str
    answer: str
    wrong_answers: tuple[str, ...]
    """What else could have been answered; empty where the answer has several words."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Questions and answers on one picture, or on none."""

    picture: Picture | None
    exchanges: tuple[Exchange, ...]


@functools.cache
def read_recipes() -> dict[str, Recipe]:
    """The recipes by name.

    Raises:
        ParamsError: recipes.yaml names a kind of picture or question that does not exist.
    """
    recipes = parse_block(RecipeTable, read_yaml(TABLE_PATH), where=TABLE_PATH.name).recipes
    pictures, kinds = dict.fromkeys((*get_args(Kind), NO_PICTURE)), dict.fromkeys(QUESTION_KINDS)
    for name, recipe in recipes.items():
        for picture in recipe.pictures:
            where = f"{TABLE_PATH.name}: recipes.{name}"
            look_up(pictures, picture, where=f"{where}.pictures")
            for kind in look_up(recipe.questions, picture, where=f"{where}.questions"):
                look_up(kinds, kind, where=f"{where}.questions.{picture}")
    return recipes


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        ParamsError: there is none.
    """
    recipe: Recipe = look_up(read_recipes(), name, where=f"{TABLE_PATH.name}: recipes")
    return recipe


def sample_conversation(rng: np.random.Generator, recipe: Recipe, config: WorldConfig) -> Conversation:
    """Draw a picture and as many different questions on it as the recipe says.

    Raises:
        ParamsError: the recipe's questions hardly ever fit its pictures.
    """
    least, most = recipe.turns
    number = int(rng.integers(least, most + 1))
    for _ in range(_MAX_TRIES):
        picture = _sample_picture(rng, recipe, config)
        if picture is not None and count_things(picture) < recipe.min_things:
            continue
        conversation = sample_questions(rng, recipe, config, picture, number)
        if len(conversation.exchanges) >= least:
            return conversation
    raise ParamsError(
        f"{TABLE_PATH.name}: in {_MAX_TRIES} pictures none had {least} different questions of {recipe.questions}: "
        "give the recipe more kinds of questions or fewer turns"
    )


def sample_questions(
    rng: np.random.Generator, recipe: Recipe, config: WorldConfig, picture: Picture | None, number: int
) -> Conversation:
    """Draw up to so many different questions on a given picture; fewer where it has no more."""
    weights = recipe.questions[NO_PICTURE if picture is None else kind_of(picture)]
    exchanges: dict[str, Exchange] = {}
    for _ in range(8 * number):
        question = draw_question(rng, picture, draw_name(rng, weights), config.scene)
        if question is not None and question.text not in exchanges:
            exchanges[question.text] = _phrase(rng, question, recipe)
            if len(exchanges) == number:
                break
    return Conversation(picture, tuple(exchanges.values()))


def draw_name(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One of the names, in proportion to the weights."""
    bounds = list(accumulate(weights.values()))
    return list(weights)[min(bisect(bounds, float(rng.random()) * bounds[-1]), len(bounds) - 1)]


def make_turns(conversation: Conversation) -> tuple[Turn, ...]:
    """The turns of a record; the image's place leads the first one."""
    turns = []
    for number, exchange in enumerate(conversation.exchanges):
        lead = f"{IMAGE_PLACEHOLDER}\n" if number == 0 and conversation.picture is not None else ""
        turns += [Turn("human", lead + exchange.question), Turn("gpt", exchange.answer)]
    return tuple(turns)


def _sample_picture(rng: np.random.Generator, recipe: Recipe, config: WorldConfig) -> Picture | None:
    name = draw_name(rng, recipe.pictures)
    kinds: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    return None if name == NO_PICTURE else sample_picture(rng, config, kinds[name])


def _phrase(rng: np.random.Generator, question: Question, recipe: Recipe) -> Exchange:
    others = tuple(choice for choice in question.choices if choice != question.answer)
    place = float(rng.random())
    if question.choices and place < recipe.lettered_share:
        letter = answer_letter(question)
        letters = tuple(answer for answer in OPTION_LETTERS[: len(question.choices)] if answer != letter)
        return Exchange(letter_choices(question), letter, letters)
    are_named = all(choice in question.text.split() for choice in question.choices)
    is_listed = place < recipe.lettered_share + recipe.listed_share and not are_named
    if question.needs_choices or (question.choices and is_listed):
        return Exchange(list_choices(question), question.answer, others)
    if not question.choices and question.answer in (YES, NO):
        others = (NO,) if question.answer == YES else (YES,)
    return Exchange(question.text, question.answer, others)
