from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from cambrian.data.card import CardConfig, describe_pool, draw_ring
from cambrian.data.cleaning import CleaningConfig, clean_pool
from cambrian.data.partitions import PartitionsConfig
from cambrian.interfaces import ArtifactError
from tests.data import pools
from tests.data.pools import line, picture, write_pool

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = CardConfig(num_examples=1, num_measured_images=5, thumbnail_side=8, max_shown_characters=20)
CLEANING = CleaningConfig(
    max_line_bytes=10_000, min_image_side=16, hash_side=8, max_duplicate_distance=0, fatal_reasons=[],
    max_lost_share=1.0,
)  # fmt: skip
PARTITIONS = PartitionsConfig(kind="processes", num_processes=1, chunk_bytes=2**20, bucket_bytes=2**20)


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    sources = {name: source | {"licence": f"licence of {name}"} for name, source in pools.SOURCES.items()}
    monkeypatch.setattr(pools, "SOURCES", sources)
    lines = [
        line("a", image="one.png", question="<b> what is it ?"),
        line("b", answer="a sphere " * 20),
        line("c", source="ChartQA", answer="seven"),
        line("d", source="ChartQA", image="gone.png"),
    ]
    return write_pool(tmp_path / "pool", lines, {"one.png": picture(1, side=40)})


def describe(pool: Path) -> str:
    clean_pool(CLEANING, PARTITIONS, pool=pool, output=pool.parent / "clean")
    describe_pool(CONFIG, samples_per_record=1000, pool=pool, clean=pool.parent / "clean", output=pool.parent / "card")
    return (pool.parent / "card/index.html").read_text()


def test_a_card_has_composition_losses_licences_and_examples_of_its_data(pool: Path) -> None:
    page = describe(pool)
    text = re.sub(r"<[^>]*>", " ", page)
    assert re.search(r"General\s+2\s+66\.7%\s+157\.0\s+35\.1%", text)
    assert re.search(r"OCR\s+1\s+33\.3%\s+28\.0\s+6\.3%", text)
    assert re.search(r"images\s+4\s+3\s+missing-image: 1\s+ChartQA: 1", text)
    assert "licence of MathInstruct" in text
    assert re.search(r"LLaVA150K\s+4 to 7: 50%\s+32 to 63: 50%\s+32 to 63: 100%", text)
    assert "seven" in text
    assert page.count("data:image/png;base64,") == 1


def test_a_card_shows_text_as_text_and_needs_nothing_from_elsewhere(pool: Path) -> None:
    page = describe(pool)
    assert "&lt;b&gt; what" in page
    assert "<b> what" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "<script" not in page


def test_a_card_is_the_same_bytes_twice(pool: Path) -> None:
    assert describe(pool) == describe(pool)


def test_a_pool_that_was_not_cleaned_has_no_card(pool: Path) -> None:
    with pytest.raises(ArtifactError, match=r"clean has no manifest\.json"):
        describe_pool(CONFIG, samples_per_record=1, pool=pool, clean=pool.parent / "clean", output=pool.parent / "card")


def test_the_arcs_of_a_ring_are_as_long_as_their_shares() -> None:
    lengths = [float(text) for text in re.findall(r'dasharray="([\d.]+) ', draw_ring([(0.25, "red"), (0.75, "blue")]))]
    assert lengths[1] == pytest.approx(3 * lengths[0], abs=0.02)
