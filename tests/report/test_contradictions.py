"""The places at which the publication contradicts itself: recomputed here from its numbers, another way."""

from __future__ import annotations

import pytest

from cambrian.report.contradictions import Contradiction, Pair, list_contradictions
from cambrian.report.published import read_published

PUBLISHED = read_published()
PLACES = {place.id: place for place in list_contradictions(PUBLISHED)}


def pair(place: Contradiction, what: str) -> Pair:
    (found,) = [pair for pair in place.pairs if pair.what == what]
    return found


def test_there_are_ten_places_or_more_and_each_shows_two_values() -> None:
    assert len(PLACES) >= 10
    for place in PLACES.values():
        assert place.pairs, place.id
        assert any(pair.difference for pair in place.pairs), place.id


def test_figure_6_reads_two_points_too_high_and_knowledge_in_half_steps() -> None:
    for found in PLACES["gap-axes"].pairs:
        if found.what.startswith("General"):
            assert found.difference == pytest.approx(2.0, abs=0.06)
        else:
            assert 46 + 2 * (found.other - 46) == pytest.approx(found.one, abs=0.2)


def test_figure_9_lies_about_a_point_below_table_18() -> None:
    assert all(-1.3 <= found.difference <= -0.9 for found in PLACES["plotted-ratios"].pairs)
    assert len(PLACES["plotted-ratios"].pairs) == 5


def test_one_cell_of_the_heat_map_fails() -> None:
    (found,) = PLACES["heat-map-cell"].pairs
    assert found.what.startswith("EVA-CLIP-02")
    assert (found.one, found.other) == (-4.33, -0.2)


def test_averages_in_the_text_are_lower_than_in_the_tables() -> None:
    quotes = [found for found in PLACES["running-text"].pairs if found.what != "backbones in table 9"]
    assert len(quotes) == 5
    assert all(-0.85 < found.difference < -0.5 for found in quotes)
    assert pair(PLACES["running-text"], "backbones in table 9").one == 23


def test_the_13b_deltas_fit_the_scores_of_the_final_table() -> None:
    fuzzy, final = PUBLISHED.tables["fuzzy_matching"], PUBLISHED.tables["final"]
    (model,) = final.find_rows(["method"], ["Cambrian-1-13B"])
    (graded,) = fuzzy.find_rows(["model", "grading"], ["Cambrian-1-13B", "GPT-3.5"])
    (delta,) = fuzzy.find_rows(["model", "grading"], ["Cambrian-1-13B", "delta"])
    for column in ("SEED-I", "GQA", "SQA-I", "AI2D", "ChartQA", "OCRBench", "TextVQA", "MMVP", "RealWorldQA"):
        expected = float(str(fuzzy.cell(graded, column))) - float(str(final.cell(model, column)))
        assert float(str(fuzzy.cell(delta, column))) == pytest.approx(expected, abs=0.11), column
    assert sum(abs(found.difference) > 0.1 for found in PLACES["repeated-row"].pairs) == 9


def test_the_readme_has_its_own_curation_averages() -> None:
    averages = {found.what: found.other for found in PLACES["curation"].pairs if found.what.endswith("Average")}
    assert list(averages.values()) == pytest.approx([40.4, 53.8, 54.8], abs=0.06)


def test_sums_that_are_stated_are_not_those_of_the_parts() -> None:
    assert PLACES["sum-of-737k"].pairs == [Pair("samples", 708500.0, 737000.0)]
    assert PLACES["sum-of-sources"].pairs[0].one == 9745.5
    assert PLACES["labels-of-experiment-5"].pairs[0].other == 100.4
    assert pair(PLACES["engine-growth"], "growth, percent").one == pytest.approx(100 * (161 - 44) / 44, abs=0.1)


def test_the_released_mix_has_another_ratio_than_experiment_5() -> None:
    shares = {found.what.split(",")[0]: found for found in PLACES["ratio-of-the-release"].pairs}
    assert (round(shares["Math"].one, 1), shares["Math"].other) == (3.2, 7.2)
    assert (round(shares["Science"].one, 1), shares["Science"].other) == (2.9, 0.88)
    assert sum(found.one for found in shares.values()) == pytest.approx(100, abs=0.05)


def test_the_rest_is_where_the_notes_say() -> None:
    assert [found.what for found in PLACES["knowledge-ranks"].pairs] == ["SD2.1 VAE+UNet/16@512: Knowledge rank"]
    assert {found.what for found in PLACES["caps"].pairs} >= {"250k: General", "250k: Vision-Centric", "450k: General"}
    assert len(PLACES["final-recipe"].pairs) == 7
