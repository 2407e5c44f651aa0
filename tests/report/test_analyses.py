"""Tables 7, 22 and 24 and the two of ours beside them, from files as the stages write them."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.interfaces import ArtifactError
from cambrian.report.talk import Talk, image_address, wrap_lines

if TYPE_CHECKING:
    from pathlib import Path

    from tests.report.conftest import World


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def rows_of(tables: Path, name: str) -> dict[str, dict[str, Any]]:
    return {" | ".join(map(str, row["keys"])): row for row in read(tables / f"{name}.json")["rows"]}


def verdicts_of(tables: Path, name: str) -> dict[tuple[str, str], dict[str, str]]:
    with (tables / "verdicts.csv").open(newline="") as file:
        return {(line["row"], line["column"]): line for line in csv.DictReader(file) if line["table"] == name}


def test_probes_stand_beside_the_average_of_the_encoders_run(tables: Path) -> None:
    rows = rows_of(tables, "linear_probe")
    clip = rows["OpenAI CLIP | ViT-L"]
    assert (clip["status"], clip["published"]["top1"], clip["reproduced"]["top1"]) == ("reproduced", 80.3, 80.0)
    assert (clip["standard_error"], clip["difference"]["top1"]) == ({"top1": 1.5}, pytest.approx(-0.3))
    (own,) = [row for row in read(tables / "recipe_1.2M.json")["rows"] if row["run"] == "clip-1200k"]
    assert clip["reproduced"]["Average"] == pytest.approx(own["reproduced"]["Average"], abs=1e-3)
    assert rows["random weights | ViT-L"]["status"] == "added"
    assert rows["DFN-CLIP | ViT-L"]["status"] == "not attempted"
    assert rows["SAM | ViT-H"]["status"] == "not attempted"
    assert verdicts_of(tables, "linear_probe")["OpenAI CLIP | ViT-L", "top1"]["verdict"] == "agrees"


def test_attention_stands_by_the_printed_names(tables: Path) -> None:
    rows = rows_of(tables, "attention_share")
    assert list(rows) == ["SigLIP", "CLIP", "DINOv2", "ConvNeXt"]
    assert rows["SigLIP"]["reproduced"] == {"GQA": 40.0, "DocVQA": 40.0, "ScienceQA": 40.0}
    assert rows["SigLIP"]["difference"]["GQA"] == pytest.approx(40 - 29.7)
    cell = verdicts_of(tables, "attention_share")["DINOv2", "GQA"]
    assert (cell["verdict"], cell["run"], cell["standard_error"]) == ("differs", "cambrian-8b", "0.5")


def test_the_grader_is_named_and_the_delta_is_of_the_same_replies(tables: Path) -> None:
    table = read(tables / "fuzzy_matching.json")
    assert table["own_notes"][0] == "In the place of GPT-3.5 stands: strict rules."
    rows = rows_of(tables, "fuzzy_matching")
    fuzzy, grader, delta = (rows[f"Cambrian-1-8B | {name}"] for name in ("fuzzy", "GPT-3.5", "delta"))
    for score in table["columns"]:
        found = grader["reproduced"][score] - fuzzy["reproduced"][score]
        assert delta["reproduced"][score] == pytest.approx(found)
    assert delta["standard_error"]["MMMU"] == 0.4
    assert rows["Cambrian-1-13B | fuzzy"]["status"] == "not attempted"
    cell = verdicts_of(tables, "fuzzy_matching")["Cambrian-1-13B | delta", "GQA"]
    assert (cell["verdict"], cell["run"]) == ("not attempted", "cambrian-13b")


def test_the_clean_part_stands_under_all_questions(tables: Path) -> None:
    rows = rows_of(tables, "clean_scores")
    whole, clean, leaked = (
        rows[f"cambrian-8b | {name}"] for name in ("all questions", "clean part", "leaked questions")
    )
    assert clean["reproduced"]["GQA"] - whole["reproduced"]["GQA"] == pytest.approx(-2)
    assert (leaked["reproduced"]["GQA"], leaked["reproduced"]["MMB"]) == (5, 0)
    assert whole["reproduced"]["Average"] == pytest.approx((60 / 20 + sum(60 + n for n in range(1, 16))) / 16, abs=1e-4)
    assert {row["status"] for row in rows.values()} == {"added"}


def test_the_answer_machine_is_measured_on_open_questions(tables: Path) -> None:
    rows = rows_of(tables, "answer_machine")
    long, short = rows["with format prompts"], rows["without"]
    assert (long["run"], short["run"]) == ("cambrian-8b", "cambrian-8b-plain")
    assert (long["reproduced"]["open questions"], long["reproduced"]["words in a reply"]) == (8, 5)
    assert (short["reproduced"]["words in a reply"], short["reproduced"]["one-word replies, %"]) == (1, 100)
    assert long["reproduced"]["ROUGE-1"] == pytest.approx(80)
    assert "Average" in long["standard_error"]


def test_findings_about_talk_compare_the_same_questions(tables: Path) -> None:
    findings = {finding["id"]: finding for finding in read(tables / "findings.json")["findings"]}
    longer = findings["format-prompts-length"]
    assert (longer["effect"], longer["standard_error"], longer["verdict"]) == (4, 0, "supported")
    assert (longer["runs"], longer["missing"]) == (["cambrian-8b", "cambrian-8b-plain"], [])
    assert longer["published_effect"] is None
    assert findings["format-prompts-quality"]["effect"] == pytest.approx(
        rows_of(tables, "answer_machine")["with format prompts"]["reproduced"]["ROUGE-1"]
        - rows_of(tables, "answer_machine")["without"]["reproduced"]["ROUGE-1"]
    )


def test_nothing_analysed_is_not_attempted_everywhere(world: World, tmp_path: Path) -> None:
    world.tabulate(tmp_path / "tables", analyses=tmp_path / "nothing")
    for name in ("linear_probe", "attention_share", "fuzzy_matching"):
        assert {row["status"] for row in rows_of(tmp_path / "tables", name).values()} == {"not attempted"}
        assert {cell["verdict"] for cell in verdicts_of(tmp_path / "tables", name).values()} == {"not attempted"}
    assert rows_of(tmp_path / "tables", "clean_scores") == {}
    world.draw(tmp_path / "figures", analyses=tmp_path / "nothing")
    assert read(tmp_path / "figures" / "prompt_examples.json") == read(tmp_path / "figures" / "dialogues.json") == []


def test_a_file_of_another_scale_is_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.analyses, tmp_path / "analyses")
    path = tmp_path / "analyses" / "attention" / "cambrian-8b.json"
    path.write_text(json.dumps({**read(path), "scale": "large"}))
    with pytest.raises(ArtifactError, match=r"is of 'cambrian-8b' at scale 'large', expected 'cambrian-8b' at 'small'"):
        world.tabulate(tmp_path / "tables", analyses=tmp_path / "analyses")


def test_examples_show_both_models_replies_to_open_questions(figures: Path) -> None:
    rows = read(figures / "prompt_examples.json")
    assert [(row["row"], row["column"]) for row in rows] == [(n // 2, n % 2) for n in range(6)]
    assert {(row["with_prompts"], row["without_prompts"]) for row in rows} == {("red ball and blue cone", "red")}
    assert len({row["image"] for row in rows}) == 6


def test_dialogues_are_the_longest_of_the_largest_model_that_was_talked_to(figures: Path) -> None:
    rows = read(figures / "dialogues.json")
    assert [row["questions"] for row in rows] == [2, 2, 2, 2, 1, 1]
    assert {row["run"] for row in rows} == {"cambrian-8b"}
    assert "» two" in rows[0]["text"]


def test_the_engines_example_is_its_first_sample_with_a_picture(figures: Path) -> None:
    (row,) = read(figures / "engine_example.json")
    assert (row["question"], row["answer"], row["topic"]) == ("what is shown ?", "a convex lens", "Physics/optics/Lens")
    assert row["image"].startswith("data:image/png;base64,")


def test_talk_is_measured_with_its_error() -> None:
    turns = [{"words": words, "reference_words": 4, "overlap": words / 4} for words in (1, 3)]
    measures = Talk.of([{"turns": [*turns, {"words": 9, "reference_words": 2, "overlap": 0.0}]}]).summarise()
    assert measures["words in a reply"] == (2, pytest.approx(1 / 2**0.5))
    assert measures["one-word replies, %"] == (50, pytest.approx(50 / 2**0.5))
    assert Talk.of([]).summarise() == {}


def test_pictures_and_lines_are_written_for_a_page() -> None:
    assert image_address(b"\xff\xd8\xffx").startswith("data:image/jpeg;base64,")
    assert image_address(b"GIF89a").startswith("data:image/gif;base64,")
    lines = wrap_lines("word " * 90, "x").splitlines()
    assert max(map(len, lines)) <= 44
    assert (len(lines), lines[3].endswith(" …"), lines[4]) == (5, True, "x")
