"""The suite of a mix: what Great Expectations is asked, and its answers in a form without clocks and random names."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import NonNegativeInt

from cambrian.data.duplicates import HashSide, Share
from cambrian.interfaces import CATEGORIES
from cambrian.params import Params

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KNOWN_CATEGORIES = (*CATEGORIES, "Alignment")
"""The instruction data's seven, and what the catalogue calls the captions of the first phase."""

_NUM_EXAMPLES = 5


class ValidationConfig(Params):
    """What a mix must be to be trained on."""

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
    """Of the records that the mix asks for: that its pool does not have."""
    max_leaked_share: Share
    """Of all benchmarks' images: that a training image looks like."""


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
        return {field: getattr(self, field) for field in self.__slots__}


def list_expectations(config: ValidationConfig) -> list[Expectation]:
    """The suite of every mix, in the report's order."""

    def among(name: str, table: str, column: str, values: Sequence[Any], share: float = 1.0) -> Expectation:
        arguments = {"column": column, "value_set": list(values), "mostly": share}
        return Expectation(name, table, "ExpectColumnValuesToBeInSet", arguments)

    def within(name: str, table: str, column: str, low: float, high: float) -> Expectation:
        arguments = {"column": column, "min_value": low, "max_value": high}
        return Expectation(name, table, "ExpectColumnValuesToBeBetween", arguments)

    def largest(name: str, table: str, column: str, low: float, high: float) -> Expectation:
        arguments = {"column": column, "min_value": low, "max_value": high}
        return Expectation(name, table, "ExpectColumnMaxToBeBetween", arguments)

    def equal(name: str, table: str, left: str, right: str) -> Expectation:
        arguments = {"column_A": left, "column_B": right}
        return Expectation(name, table, "ExpectColumnPairValuesToBeEqual", arguments)

    def unique(name: str, table: str, column: str) -> Expectation:
        return Expectation(name, table, "ExpectColumnValuesToBeUnique", {"column": column})

    return [
        Expectation(
            "the file has a mix's columns",
            "file",
            "ExpectTableColumnsToMatchOrderedList",
            {"column_list": ["id", "source", "category", "image", "conversations"]},
        ),
        unique("ids are unique", "records", "id"),
        Expectation("ids are there", "records", "ExpectColumnValuesToNotBeNull", {"column": "id"}),
        among("categories are known", "records", "category", KNOWN_CATEGORIES),
        equal("stored categories are those of the sources", "records", "stored_category", "category"),
        within("conversations have turns", "records", "num_turns", 2, config.max_turns),
        among("a person speaks first", "records", "first_speaker", ["human"]),
        among("the model speaks last", "records", "last_speaker", ["gpt"]),
        equal("speakers alternate", "turns", "speaker", "expected_speaker"),
        within("turns have text", "turns", "num_characters", 1, config.max_turn_characters),
        equal("image markers match images", "records", "num_markers", "num_images"),
        among("images can be read", "records", "image_fault", [""]),
        unique("no sample is there twice", "records", "content"),
        among("few near duplicates", "records", "is_near_duplicate", [False], 1 - config.max_near_duplicate_share),
        among("few contradictions", "records", "is_contradicted", [False], 1 - config.max_contradicted_share),
        Expectation(
            "no part is over its limit",
            "parts",
            "ExpectColumnPairValuesAToBeGreaterThanB",
            {"column_A": "limit", "column_B": "taken", "or_equal": True},
        ),
        equal("parts are as large as asked and available", "parts", "taken", "expected"),
        largest("all records belong to a part", "whole", "records_beside_parts", 0, 0),
        largest("the ledger counts all records", "whole", "records_beside_ledger", 0, 0),
        largest("the pool has what the mix asks for", "whole", "shortfall_share", 0, config.max_shortfall_share),
        largest("few test images leaked", "whole", "leaked_share", 0, config.max_leaked_share),
    ]


def check_expectations(
    tables: Mapping[str, Mapping[str, Sequence[Any]]], expectations: Sequence[Expectation]
) -> list[Outcome]:
    """Let Great Expectations judge every expectation on its table; the outcomes in the order of the expectations.

    An expectation that cannot be computed (a column is missing) is not met.
    """
    # Both before the import: it reads the one, which would have it report to its makers, and logs hundreds of lines.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults

    stores = InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    context = gx.get_context(mode="ephemeral", project_config=DataContextConfig(store_backend_defaults=stores))
    context.variables.progress_bars = {"globally": False}
    source = context.data_sources.add_pandas("mix")
    outcomes: dict[str, Outcome] = {}
    for table in dict.fromkeys(expectation.table for expectation in expectations):
        suite = context.suites.add(gx.ExpectationSuite(name=table))
        asked = [expectation for expectation in expectations if expectation.table == table]
        for expectation in asked:
            kind = getattr(gx.expectations, expectation.kind)
            suite.add_expectation(kind(**expectation.arguments, meta={"name": expectation.name}))
        batch = source.add_dataframe_asset(table).add_batch_definition_whole_dataframe("all")
        definition = gx.ValidationDefinition(name=table, data=batch, suite=suite)
        frame = pd.DataFrame({name: list(column) for name, column in tables[table].items()})
        answer = context.validation_definitions.add(definition).run(batch_parameters={"dataframe": frame})
        by_name = {result.expectation_config.meta["name"]: result for result in answer.results}
        for expectation in asked:
            result = by_name[expectation.name]
            outcomes[expectation.name] = Outcome(
                name=expectation.name,
                table=table,
                kind=expectation.kind,
                success=bool(result.success),
                expected=_describe_arguments(expectation.arguments),
                observed=_describe_result(result),
            )
    return [outcomes[expectation.name] for expectation in expectations]


def _describe_arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())


def _describe_result(result: Any) -> str:
    """What was found: the value, or how many of how many rows are wrong with a few examples."""
    faults = [
        info["exception_message"]
        for info in [result.exception_info, *result.exception_info.values()]
        if isinstance(info, dict) and info.get("exception_message")
    ]
    if faults:
        return f"could not be computed: {faults[0]}"
    found = result.result
    if "unexpected_count" not in found:
        return str(found.get("observed_value"))
    summary = f"{found['unexpected_count']} of {found['element_count']} wrong"
    examples = list(dict.fromkeys(map(str, found["partial_unexpected_list"])))[:_NUM_EXAMPLES]
    return f"{summary}: {', '.join(examples)}" if examples else summary
