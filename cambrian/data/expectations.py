"""The suites of pools and mixes: what Great Expectations is asked, shard by shard, and its answers without clocks."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt

from cambrian.data.duplicates import HashSide, Share
from cambrian.interfaces import CATEGORIES
from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KNOWN_CATEGORIES = (*CATEGORIES, "Alignment")
"""The instruction data's seven, and what the catalogue calls the captions of the first phase."""

Rows = Literal["all", "same id", "same content", "compared"]
"""Which rows of its table an expectation looks at: all, shard by shard; those that may be there twice, from wherever;
or all again, once every record was compared with the others."""

_NUM_EXAMPLES = 5


class ValidationConfig(Params):
    """What a pool must be to be curated from, and a mix to be trained on."""

    max_turns: NonNegativeInt
    """Turns of one conversation, both speakers."""
    max_turn_characters: NonNegativeInt
    min_image_side: NonNegativeInt
    """Pixels of a picture's shorter side."""
    hash_side: HashSide
    """Difference hashes have hash_side**2 bits."""
    max_hash_distance: NonNegativeInt
    """Two images look alike when their hashes differ in at most so many bits."""
    max_near_duplicate_share: Share
    """Of the records: with the words and the looks of an earlier one."""
    max_contradicted_share: Share
    """Of the records: whose question about a picture another record answers otherwise."""
    max_shortfall_share: Share
    """Of the records that a mix asks for: that its pool does not have."""
    max_missing_share: Share
    """Of the records that stand for the published samples of a pool's sources: that the pool does not have."""
    max_category_deviation: Share
    """Between the share of a category in a pool and in its sources as published."""
    max_leaked_share: Share
    """Of all benchmarks' images: that an image of the pool or mix looks like."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One line of the suite."""

    name: str
    """What holds when it is met, as a sentence."""
    table: str
    """The table that it looks at."""
    kind: str
    """Great Expectations' class."""
    arguments: dict[str, Any]
    rows: Rows = "all"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one expectation."""

    name: str
    table: str
    kind: str
    success: bool
    expected: str
    observed: str

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def list_pool_expectations(config: ValidationConfig) -> list[Expectation]:
    """The suite of every clean pool, in the report's order."""
    return [
        *_list_record_expectations(config),
        _equal("what came in went on or was dropped", "sources", "counted_in", "accounted"),
        _equal("the ledger counts what is kept", "sources", "kept", "counted_out"),
        _equal("every dropped record is listed", "sources", "dropped", "counted_dropped"),
        _within("categories have their published shares", "categories", "deviation", 0, config.max_category_deviation),
        _largest("the pool has what was published", "whole", "missing_share", config.max_missing_share),
        _largest("few test images leaked", "whole", "leaked_share", config.max_leaked_share),
    ]


def list_mix_expectations(config: ValidationConfig) -> list[Expectation]:
    """The suite of every mix, in the report's order."""
    return [
        *_list_record_expectations(config),
        Expectation(
            "no part is over its limit",
            "parts",
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": "limit", "column_B": "taken", "or_equal": True},
        ),
        _equal("parts are as large as asked and available", "parts", "taken", "expected"),
        _largest("all records belong to a part", "whole", "records_beside_parts", 0),
        _largest("the ledger counts all records", "whole", "records_beside_ledger", 0),
        _largest("the pool has what the mix asks for", "whole", "shortfall_share", config.max_shortfall_share),
        _largest("few test images leaked", "whole", "leaked_share", config.max_leaked_share),
    ]


def _list_record_expectations(config: ValidationConfig) -> list[Expectation]:
    """What is asked of the records of both."""
    return [
        Expectation(
            "the file has the columns of records",
            "file",
            "ExpectTableColumnsToMatchOrderedList",
            {"column_list": ["id", "source", "category", "image", "conversations"]},
        ),
        _unique("ids are unique", "records", "id", "same id"),
        Expectation("ids are there", "records", "ExpectColumnValuesToNotBeNull", {"column": "id"}),
        _among("categories are known", "records", "category", KNOWN_CATEGORIES),
        _equal("stored categories are those of the sources", "records", "stored_category", "category"),
        _within("conversations have turns", "records", "num_turns", 2, config.max_turns),
        _among("a person speaks first", "records", "first_speaker", ["human"]),
        _among("the model speaks last", "records", "last_speaker", ["gpt"]),
        _equal("speakers alternate", "turns", "speaker", "expected_speaker"),
        _within("turns have text", "turns", "num_characters", 1, config.max_turn_characters),
        _equal("image markers match images", "records", "num_markers", "num_images"),
        _among("images can be read", "records", "image_fault", [""]),
        _unique("no sample is there twice", "records", "content", "same content"),
        _few("few near duplicates", "is_near_duplicate", config.max_near_duplicate_share),
        _few("few contradictions", "is_contradicted", config.max_contradicted_share),
    ]


def _among(name: str, table: str, column: str, values: Sequence[Any], share: float = 1.0) -> Expectation:
    arguments = {"column": column, "value_set": list(values), "mostly": share}
    return Expectation(name, table, "ExpectColumnValuesToBeInSet", arguments)


def _few(name: str, column: str, max_share: float) -> Expectation:
    return replace(_among(name, "records", column, [False], 1 - max_share), rows="compared")


def _within(name: str, table: str, column: str, low: float, high: float) -> Expectation:
    arguments = {"column": column, "min_value": low, "max_value": high}
    return Expectation(name, table, "ExpectColumnValuesToBeBetween", arguments)


def _largest(name: str, table: str, column: str, high: float) -> Expectation:
    arguments = {"column": column, "min_value": 0, "max_value": high}
    return Expectation(name, table, "ExpectColumnMaxToBeBetween", arguments)


def _equal(name: str, table: str, left: str, right: str) -> Expectation:
    arguments = {"column_A": left, "column_B": right}
    return Expectation(name, table, "ExpectColumnPairValuesToBeEqual", arguments)


def _unique(name: str, table: str, column: str, rows: Rows) -> Expectation:
    return Expectation(name, table, "ExpectColumnValuesToBeUnique", {"column": column}, rows)


@dataclass(slots=True)
class _Tally:
    """What the shards said of one expectation, added up."""

    successes: list[bool] = field(default_factory=list)
    observed: list[str] = field(default_factory=list)
    """Values, where the answer is one."""
    faults: list[str] = field(default_factory=list)
    num_elements: int = 0
    num_missing: int = 0
    num_wrong: int = 0
    examples: dict[str, None] = field(default_factory=dict)


class Gate:
    """Lets Great Expectations judge a suite on tables that come in pieces, and adds its answers up.

    An expectation that cannot be computed (a column is missing) is not met. One that a share of the rows may break is
    judged by the counts of all pieces.
    """

    def __init__(self, expectations: Sequence[Expectation]) -> None:
        # Before the import: it reads the one, which would have it report to its makers, and logs hundreds of lines.
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        import great_expectations as gx
        from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

        stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
        context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(store_backend_defaults=stores))
        context.variables.progress_bars = {"globally": False}
        source = context.data_sources.add_pandas("records")
        self._expectations = list(expectations)
        self._tallies = {expectation.name: _Tally() for expectation in expectations}
        self._definitions: dict[tuple[str, Rows], Any] = {}
        for table, rows in dict.fromkeys((expectation.table, expectation.rows) for expectation in expectations):
            name = f"{table}: {rows}"
            suite = context.suites.add(gx.ExpectationSuite(name=name))
            for expectation in expectations:
                if (expectation.table, expectation.rows) == (table, rows):
                    kind = getattr(gx.expectations, expectation.kind)
                    suite.add_expectation(kind(**expectation.arguments, meta={"name": expectation.name}))
            batch = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
            definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
            self._definitions[table, rows] = context.validation_definitions.add(definition)

    def check(
        self, table: str, columns: Mapping[str, Sequence[Any]], rows: Rows = "all", *, num_others: int = 0
    ) -> None:
        """Judge a piece of a table; `num_others` rows beside it are known to be as expected."""
        import pandas as pd

        frame = pd.DataFrame({name: list(column) for name, column in columns.items()})
        answer = self._definitions[table, rows].run(batch_parameters={"dataframe": frame})
        for result in answer.results:
            _add_up(self._tallies[result.expectation_config.meta["name"]], result, num_others)

    def list_outcomes(self) -> list[Outcome]:
        """What became of the expectations, in their order; each table must have been checked at least in one piece."""
        return [_sum_up(expectation, self._tallies[expectation.name]) for expectation in self._expectations]


def _add_up(tally: _Tally, result: Any, num_others: int) -> None:
    tally.successes.append(bool(result.success))
    tally.faults += [
        info["exception_message"]
        for info in [result.exception_info, *result.exception_info.values()]
        if isinstance(info, dict) and info.get("exception_message")
    ]
    found = result.result
    if "unexpected_count" not in found:
        tally.observed.append(str(found.get("observed_value")))
        return
    tally.num_elements += found["element_count"] + num_others
    tally.num_missing += found.get("missing_count") or 0
    tally.num_wrong += found["unexpected_count"]
    tally.examples |= dict.fromkeys(map(str, found["partial_unexpected_list"]))


def _sum_up(expectation: Expectation, tally: _Tally) -> Outcome:
    assert tally.successes, f"{expectation.name}: its table {expectation.table} was not checked"
    if tally.faults:
        success, observed = False, f"could not be computed: {tally.faults[0]}"
    elif tally.observed:
        success, observed = all(tally.successes), tally.observed[0]
    else:
        num_judged = tally.num_elements - tally.num_missing
        least = expectation.arguments.get("mostly", 1.0)
        success = not tally.num_wrong or (num_judged - tally.num_wrong) / num_judged >= least
        examples = list(tally.examples)[:_NUM_EXAMPLES]
        observed = f"{tally.num_wrong} of {tally.num_elements} wrong" + (f": {', '.join(examples)}" if examples else "")
    return Outcome(
        name=expectation.name,
        table=expectation.table,
        kind=expectation.kind,
        success=success,
        expected=_describe_arguments(expectation.arguments),
        observed=observed,
    )


def _describe_arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())
