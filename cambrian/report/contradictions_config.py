"""What contradictions.yaml holds: the places, and published values that stand in no table of published.yaml."""

from __future__ import annotations

from pathlib import Path

from cambrian.params import Params

CONTRADICTIONS_PATH = Path(__file__).with_name("contradictions.yaml")


class Place(Params):
    """One place at which two published values of one thing differ."""

    id: str
    title: str
    one: str
    """What says the first value of each pair."""
    other: str
    taken: str


class Quote(Params):
    """An average that the running text gives for a row of a table."""

    table: str
    row: list[str]
    average: float


class RecipeValue(Params):
    """A value of the final models' recipe, for 8B, 13B and 34B."""

    what: str
    written: list[float]
    """In the paper."""
    released: list[float]
    """In the release's scripts and README."""


class Statements(Params):
    """contradictions.yaml."""

    places: list[Place]
    running_text: list[Quote]
    announced_backbones: int
    readme_vision_centric: dict[str, float]
    final_recipe: list[RecipeValue]
    parts_of_737k: dict[str, int]
    stated_thousands: float
    engine: dict[str, float]
    heat_map_rounding: float
    table_rounding: float
