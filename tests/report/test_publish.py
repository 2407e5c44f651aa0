from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from cambrian.interfaces import ArtifactError
from cambrian.report.content import format_number, read_markdown_table
from tests.report.conftest import MISSING, World
from tests.report.fake import ROOT

if TYPE_CHECKING:
    from pathlib import Path


class Page(HTMLParser):
    """What a page refers to and what it names; scripts and styles are not markup."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.text: list[str] = []
        self._script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._script = tag in ("script", "style")
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "srcset", "action", "data"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._script = False

    def handle_data(self, data: str) -> None:
        if not self._script:
            self.text.append(data)


@pytest.fixture(scope="module")
def html(report: Path) -> str:
    return (report / "report.html").read_text()


def test_the_page_refers_to_nothing_outside_itself(html: str) -> None:
    page = Page(html)
    assert len(page.links) > 500
    assert [link for link in page.links if not link.startswith(("#", "data:image/png;base64,"))] == []
    style = "".join(re.findall(r"<style>(.*?)</style>", html, flags=re.DOTALL))
    assert "@import" not in style
    assert "url(" not in style


def test_every_link_of_the_page_arrives(html: str) -> None:
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_no_placeholder_is_left_unfilled(html: str) -> None:
    text = " ".join(Page(html).text)
    assert "Cambrian-1, regenerated" in text
    for mark in ("{{", "{%", "<DVC_", "None", "undefined", "nan"):
        assert mark not in text.split(), mark
        assert mark in ("None", "nan", "undefined") or mark not in text


def test_the_page_is_small_enough_to_mail(html: str) -> None:
    assert len(html.encode()) < 6_000_000


def test_missing_runs_are_said_to_be_missing(html: str, world: World) -> None:
    text = re.sub(r"\s+", " ", " ".join(Page(html).text))
    assert "Not attempted: c-abstractor-36, ldpv2-36, sva-36." in text
    listed = len(world.rows["runs"])
    assert f"{listed - len(MISSING)} of {listed} runs" in text


def test_publishing_twice_gives_the_same_bytes(
    world: World, tables: Path, figures: Path, report: Path, tmp_path: Path
) -> None:
    world.publish(tables, figures, tmp_path / "again")
    names = sorted(path.name for path in report.iterdir())
    assert names == ["manifest.json", "report.html", "report.pdf"]
    for name in names:
        assert (report / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_the_pdf_has_no_date(report: Path) -> None:
    pdf = (report / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf


def test_unfinished_tables_are_refused(world: World, tables: Path, figures: Path, tmp_path: Path) -> None:
    shutil.copytree(tables, tmp_path / "tables")
    (tmp_path / "tables" / "manifest.json").unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        world.publish(tmp_path / "tables", figures, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_markdown_table_is_read_as_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Head\n\n| a | b |\n|---|---|\n| `x` | see [this](y.md) |\n")
    assert read_markdown_table(path) == {"heads": ["a", "b"], "rows": [["x", "see this"]]}


def test_a_page_without_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("nothing\n")
    with pytest.raises(ArtifactError, match="has no Markdown table"):
        read_markdown_table(path)


@pytest.mark.parametrize(
    ("value", "text"), [(1.25, "+1.2"), (-0.5, "−0.5"), (None, ""), (True, "yes"), ("ViT", "ViT"), ([1, 2], "1, 2")]
)
def test_numbers_are_written_for_readers(value: object, text: str) -> None:
    assert format_number(value, digits=1, signed=True) == text


def test_actual_minutes_stand_beside_the_forecast_with_the_run_that_they_are_of(html: str) -> None:
    text = read_text(html)
    assert "finetune@clip-558k 2 1 0.50 abc1234" in text
    assert "finetune@clip-0m 0.5 not measured – " in text
    assert "Measured: 1 at commit abc1234 on Some processor, 2 cores, ended 2026-11-26T18:00:00" in text
    assert "were forecast to take 2.0 minutes and took 1.0 , 0.50 times as long" in text.replace("1.0,", "1.0 ,")


def test_what_changed_since_a_commit_stands_in_the_report_with_what_explains_it(html: str) -> None:
    text = read_text(html)
    assert "From abc1234 to the run that followed it" in text
    assert "scores.json: GQA 40 55 3.5 standard errors" in text
    assert "agrees 3 → 2, differs 4 → 5. 0 rows are new, 1 are gone." in text
    assert "final / LLaVA / GQA agrees differs 3.5 standard errors params.yaml: rate, cambrian/training" in text
    assert "param params.yaml: rate 0.1 -> 0.2 2" in text


def test_what_moved_most_stands_first_and_what_is_new_last(html: str) -> None:
    text = read_text(html)
    names = [
        "scores.json: MMB 40 62",
        "scores.json: GQA 40 55",
        "final_loss 0.3 0.2 of unknown noise",
        "accuracy – 31 new",
    ]
    places = [text.index(name) for name in names]
    assert places == sorted(places)


def test_before_the_first_run_the_report_says_that_nothing_was_measured_or_compared(
    world: World, tables: Path, figures: Path, tmp_path: Path
) -> None:
    shutil.copytree(world.data, tmp_path / "data")
    other = World(tmp_path, world.scale, world.rows)
    for name in ("actual", "difference"):
        shutil.copyfile(ROOT / f"results/gpu/{name}.json", tmp_path / f"{name}.json")
    shutil.copyfile(world.root / "forecast.json", tmp_path / "forecast.json")
    other.publish(tables, figures, tmp_path / "report")
    text = read_text((tmp_path / "report/report.html").read_text())
    assert "No run has been measured at this scale" in text
    assert "No two commits have been compared at this scale" in text
    assert "finetune@clip-558k 2 not measured – " in text


def read_text(html: str) -> str:
    return re.sub(r"\s+", " ", " ".join(Page(html).text))
