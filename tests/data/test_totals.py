from __future__ import annotations

import pytest

from cambrian.data.sources import read_catalog
from cambrian.data.totals import Total, compare_totals, describe_totals, main, read_published_totals

TOTALS = {total.what: total for total in compare_totals(read_catalog().instruction, read_published_totals())}


@pytest.mark.parametrize(
    ("cap", "published", "as_published"),
    [(150, 4015, 4171.5), (250, 5218, 5522.5), (350, 5883, 6486.5), (450, 6383, 7136.5)],
)
def test_a_cap_gives_the_published_total_once_its_sources_explain_the_difference(
    cap: int, published: int, as_published: float
) -> None:
    """Worked out by hand from the figure's sizes; the remainder is under seven thousand of millions."""
    total = TOTALS[f"cap of {cap}k"]
    assert (total.published, total.ours) == (published * 1000, as_published * 1000)
    assert abs(total.explained - total.published) <= 7000
    assert total.agrees
    assert {name for name, change in total.parts.items() if change} <= {
        "DVQA",
        "Filtered DVQA",
        "Q-Instruct",
        "Filtered CLEVR",
    }


def test_ratios_and_kept_sources_give_the_published_totals_exactly() -> None:
    exact = [total for name, total in TOTALS.items() if not name.startswith("cap")]
    assert len(exact) == 5 + 8
    for total in exact:
        assert total.ours == total.published, total.what


def test_a_total_that_no_source_explains_is_said_to_differ() -> None:
    total = Total("cap of 1k", 5000, 9000, {"DVQA": -1000})
    assert not total.agrees
    assert "BEYOND rounding" in describe_totals([total])


def test_the_command_prints_every_total(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["totals"])
    main()
    shown = capsys.readouterr().out
    assert "cap of 350k               5,883,000     6,486,500    +603,500" in shown
    assert "DVQA" in shown
