from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest

from cambrian.artifacts import write_folder
from cambrian.data.image_facts import digest_image
from cambrian.evaluation import export
from cambrian.evaluation import judge as judging
from cambrian.evaluation import regrade as regrading
from cambrian.evaluation.compare import Answers
from cambrian.evaluation.export import export_answers
from cambrian.evaluation.judge import Judge
from cambrian.evaluation.regrade import format_readings, read_disputed, read_leaked, regrade, write_readings
from cambrian.interfaces import ArtifactError, Item, Reply

if TYPE_CHECKING:
    from tests.evaluation.endpoint import Endpoint

COLOURS = ("red", "blue")
TEXTS = ("A", "A: or B", "B", "синий")


def mmvp_items() -> list[Item]:
    return [
        Item(f"MMVP/{number}", "MMVP", "Which?", COLOURS, ("red",), "", str((number - 1) // 2), None)
        for number in (1, 2, 3, 4)
    ]


def answers(texts: tuple[str, ...] = TEXTS) -> Answers:
    replies = [Reply(item.id, text, True) for item, text in zip(mmvp_items(), texts, strict=True)]
    return Answers("a-run", {"MMVP": replies}, True)


def test_the_difference_between_readings_is_a_column(tmp_path: Path) -> None:
    (row,) = regrade(answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={}, judge=None)
    assert (row.published, row.strict, row.difference) == (50, 0, -50)  # "A: or B" is A to the paper and neither here
    assert (row.items, row.replies_read_differently, row.judge) == (4, 1, None)
    write_readings(tmp_path / "readings.csv", [row])
    (stored,) = csv.DictReader((tmp_path / "readings.csv").read_text().splitlines())
    assert stored["difference"] == "-50.0"
    assert "MMVP" in format_readings([row])
    assert "-50.0" in format_readings([row])


def test_disputed_items_are_scored_with_and_without() -> None:
    (row,) = regrade(
        answers(), {"MMVP": mmvp_items()}, disputed={"MMVP": frozenset({"MMVP/3", "MMVP/4"})}, leaked={}, judge=None
    )
    assert (row.published, row.without_disputed_items, row.disputed_items) == (50, 100, 2)
    (row,) = regrade(
        answers(),
        {"MMVP": mmvp_items()},
        disputed={"MMVP": frozenset(f"MMVP/{n}" for n in (1, 2, 3, 4))},
        leaked={},
        judge=None,
    )
    assert row.without_disputed_items is None


def test_the_clean_part_is_scored_apart(tmp_path: Path) -> None:
    (row,) = regrade(
        answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={"MMVP": frozenset({"MMVP/1", "MMVP/2"})}, judge=None
    )
    assert (row.published, row.leaked_items, row.without_leaked_items, row.without_leaked_error) == (50, 2, 0, 0)
    (row,) = regrade(answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={"MMVP": frozenset({"MMVP/3"})}, judge=None)
    assert (row.leaked_items, row.without_leaked_items) == (1, 100)  # its pair goes with it
    (row,) = regrade(
        answers(("red", "red", "red", "blue")), {"MMVP": mmvp_items()}, disputed={"MMVP": frozenset({"MMVP/4"})},
        leaked={"MMVP": frozenset({"MMVP/2"})}, judge=None,
    )  # fmt: skip
    assert (row.without_disputed_items, row.without_leaked_items) == (100, 0)  # half a pair would have been right
    (row,) = regrade(
        answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={"MMVP": frozenset(f"MMVP/{n}" for n in range(5))},
        judge=None,
    )  # fmt: skip
    assert (row.without_leaked_items, row.without_leaked_error) == (None, None)


def write_gate(path: Path, training_images: dict[bytes, list[str]]) -> Path:
    rows = [{"digest": digest_image(data), "training_images": names} for data, names in training_images.items()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_leaked_items_are_found_by_their_picture(tmp_path: Path) -> None:
    items = [replace(item, image=data) for item, data in zip(mmvp_items(), (b"a", b"a", b"b", b"b"), strict=True)]
    gate = write_gate(tmp_path / "gate.parquet", {b"a": ["pool/7.png"], b"b": []})
    assert read_leaked(gate, {"MMVP": items}) == {"MMVP": frozenset({"MMVP/1", "MMVP/2"})}
    stale = write_gate(tmp_path / "stale.parquet", {b"a": ["pool/7.png"]})
    with pytest.raises(ArtifactError, match=r"does not know the picture of MMVP/3 and of 1 others"):
        read_leaked(stale, {"MMVP": items})
    (tmp_path / "half.parquet").write_bytes(gate.read_bytes()[:40])
    with pytest.raises(ArtifactError, match=r"half.parquet is not a gate's list of test pictures"):
        read_leaked(tmp_path / "half.parquet", {"MMVP": items})


def test_the_difference_has_the_error_of_paired_groups() -> None:
    (row,) = regrade(answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={}, judge=None)
    assert row.difference_error == pytest.approx(100 * 0.5 / 2**0.5)  # two pairs, changed by -1 and by 0
    assert row.standard_error == pytest.approx(100 * 0.5 / 2**0.5)  # two pairs, right and wrong
    assert row.strict_error == 0


def test_only_published_data_sets_have_disputed_items(tmp_path: Path) -> None:
    with write_folder(tmp_path / "generated", seed=0):
        pass
    with write_folder(tmp_path / "published", sources={"MMVP": {}}):
        pass
    assert read_disputed(tmp_path / "generated") == {}
    assert read_disputed(tmp_path / "published") == {"MMVP": frozenset({"MMVP/99", "MMVP/100", "MMVP/279", "MMVP/280"})}


def test_a_judges_recordings_need_no_key_the_second_time(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = tmp_path / "said.jsonl"
    (first,) = regrade(answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={}, judge=Judge("a-judge", recordings))
    assert (first.judge, first.judge_difference) == (50, 0)
    assert len(endpoint.asked) == 4
    assert {(one["path"], one["key"], one["model"], one["temperature"]) for one in endpoint.asked} == {
        ("/v1/chat/completions", "Bearer sesame", "a-judge", 0)
    }
    monkeypatch.delenv("OPENAI_API_KEY")
    (again,) = regrade(answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={}, judge=Judge("a-judge", recordings))
    assert again == first
    assert len(endpoint.asked) == 4
    with pytest.raises(ArtifactError, match="lacks 4 judgements of another-judge: set OPENAI_BASE_URL"):
        regrade(answers(), {"MMVP": mmvp_items()}, disputed={}, leaked={}, judge=Judge("another-judge", recordings))
    with pytest.raises(ArtifactError, match="lacks 1 judgements"):
        regrade(
            answers(("A", "A: or B", "B", "")),
            {"MMVP": mmvp_items()},
            disputed={},
            leaked={},
            judge=Judge("a-judge", recordings),
        )


def grade_all(recordings: Path) -> list[float]:
    return Judge("a-judge", recordings).grade(mmvp_items(), TEXTS)


def test_what_was_judged_before_the_endpoint_failed_is_not_asked_again(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.statuses = [200, 200, 401]
    with pytest.raises(ArtifactError, match=r"(?s)cannot be asked \(.*401.*run again"):
        grade_all(tmp_path / "said.jsonl")
    assert grade_all(tmp_path / "said.jsonl") == [1, 1, 0, 0]
    assert len(endpoint.asked) == 5


def test_a_busy_endpoint_is_asked_again(tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_FIRST_PAUSE_S", 0.0)
    endpoint.statuses = [200, 429, 503]
    assert grade_all(tmp_path / "said.jsonl") == [1, 1, 0, 0]
    assert len(endpoint.asked) == 6  # four replies, one of them three times


def test_a_message_without_text_is_refused(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.message = None
    with pytest.raises(ArtifactError, match="its message is None, expected one word"):
        grade_all(tmp_path / "said.jsonl")


def test_a_half_written_recording_is_named(tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text('{"key": "1", "verdict": "correct"}\n{"key"')
    with pytest.raises(ArtifactError, match=r"said.jsonl, line 2, is no judgement"):
        Judge("a-judge", tmp_path / "said.jsonl")


def test_a_judge_that_says_something_else_is_refused(tmp_path: Path) -> None:
    judge = Judge("a-judge", tmp_path / "said.jsonl")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Judge, "_ask", lambda self, client, question: "maybe")
        patched.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
        patched.setenv("OPENAI_API_KEY", "x")
        with pytest.raises(ArtifactError, match="the judge said 'maybe', expected correct or incorrect"):
            judge.grade(mmvp_items(), TEXTS)
    assert (tmp_path / "said.jsonl").read_text() == ""


def test_answers_export_as_the_release_writes_them(tmp_path: Path) -> None:
    export_answers(answers(), {"MMVP": mmvp_items()}, run="a-run", form="release", output=tmp_path / "out")
    lines = (tmp_path / "out" / "MMVP" / "answers_a-run.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["answer"] for line in lines] == list(TEXTS)
    assert json.loads(lines[3]) == {
        "question_id": "4", "prompt": "Which?", "answer": "синий", "gt_answer": "(A)", "category": "",
        "options": ["red", "blue"], "text_options": ["red", "blue"], "model_id": "a-run",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "choices", "answers", "expected"),
    [
        ("GQA", (), ("red",), {"gt_answer": "red"}),
        ("MMB", COLOURS, ("blue",), {"gt_answer": "B", "prediction": "said", "source_id": "7"}),
        ("SEED-I", COLOURS, ("blue",), {"gt_answer": "B", "category": 1}),
        ("SQA-I", COLOURS, ("blue",), {"gt_answer": "B", "text_answer": "blue", "type": True}),
        ("MMMU-V", COLOURS, ("blue",), {"gt_answer": "B", "type": "multiple-choice"}),
        ("MMMU-V", (), ("4", "four"), {"gt_answer": "4", "type": "open"}),
        ("MathVista-M", COLOURS, ("red",), {"gt_answer": "A", "type": "kind"}),
        ("AI2D", COLOURS, ("blue",), {"gt_answer": "1"}),
        ("OCRBench", (), ("STOP",), {"gt_answer": ["STOP"]}),  # of a text, its scorer would look for each letter
        ("TextVQA", (), ("stop",) * 10, {"gt_answer": ["stop"] * 10}),
        ("CV-Bench-2D", COLOURS, ("red",), {"gt_answer": "(A)", "options": ["red", "blue"]}),
        ("CV-Bench-3D", COLOURS, ("blue",), {"gt_answer": "(B)", "options": ["red", "blue"]}),
        ("BLINK", COLOURS, ("blue",), {"gt_answer": "(B)"}),
        ("Q-Bench", COLOURS, ("blue",), {"gt_answer": "B", "type": 1}),
        ("DocVQA", (), ("Ann", "Ann B."), {"gt_answer": ["Ann", "Ann B."]}),
        ("InfoVQA", (), (), {"gt_answer": []}),
    ],
)
def test_the_releases_scorers_find_their_keys_and_the_true_answer_in_their_form(
    tmp_path: Path, name: str, choices: tuple[str, ...], answers: tuple[str, ...], expected: dict[str, Any]
) -> None:
    item = Item(f"{name}/7", name, "?", choices, answers, "kind", "7", None)
    given = Answers("a-run", {name: [Reply(item.id, "said", True)]}, True)
    export_answers(given, {name: [item]}, run="a-run", form="release", output=tmp_path / "out")
    line = json.loads((tmp_path / "out" / name / "answers_a-run.jsonl").read_text())
    common = {"question_id": "7", "answer": "said", "category": "kind", "model_id": "a-run"}
    assert {**line, **common, **expected} == line


def test_answers_export_as_a_table_for_vlmevalkit(tmp_path: Path) -> None:
    texts = ("A", "two\tcolumns\nand lines", 'a "quoted" one', "")
    export_answers(answers(texts), {"MMVP": mmvp_items()}, run="a-run", form="vlmevalkit", output=tmp_path / "out")
    with (tmp_path / "out" / "a-run_MMVP.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["prediction"] for row in rows] == list(texts)
    assert {(row["A"], row["B"], row["answer"]) for row in rows} == {("red", "blue", "A")}


def test_questions_without_public_answers_export_as_a_submission(tmp_path: Path) -> None:
    item = Item("ST-VQA/7", "ST-VQA", "?", (), (), "", "7", None)
    given = Answers("a-run", {"ST-VQA": [Reply(item.id, "stop", True)]}, True)
    export_answers(given, {"ST-VQA": [item]}, run="a-run", form="submission", output=tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "a-run_ST-VQA_submission.json").read_text())
    assert stored == [{"question_id": 7, "answer": "stop"}]
    assert regrade(given, {"ST-VQA": [item]}, disputed={}, leaked={}, judge=None) == []


@pytest.mark.parametrize("form", ["release", "vlmevalkit", "submission"])
def test_a_missing_reply_is_named_and_no_folder_is_left(tmp_path: Path, form: str) -> None:
    short = Answers("a-run", {"MMVP": [Reply("MMVP/1", "A", True)]}, True)
    with pytest.raises(ArtifactError, match="no reply to MMVP/2"):
        export_answers(short, {"MMVP": mmvp_items()}, run="a-run", form=form, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run_command(module: Any, *arguments: str) -> None:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    module.run(parser.parse_args(list(arguments)))


@pytest.mark.usefixtures("project")
def test_the_command_regrades_runs_and_modes_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(regrading, "right", "right:without-image", "--csv", "tables/readings.csv")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines[1:]] == [
        ["right", "MME-P", "4", "2000.0"], ["right", "GQA", "3", "100.0"],
        ["right:without-image", "MME-P", "4", "500.0"], ["right:without-image", "GQA", "3", "66.7"],
    ]  # fmt: skip
    rows = list(csv.DictReader(Path("tables/readings.csv").read_text().splitlines()))
    assert [(row["run"], row["score"]) for row in rows] == [tuple(line.split()[:2]) for line in lines[1:]]


@pytest.mark.usefixtures("project")
def test_the_command_regrades_the_clean_part(tmp_path: Path) -> None:
    facts = pyarrow.parquet.read_table("data/tiny/benchmarks/GQA/test.parquet").to_pylist()
    pictures = [row["image"]["bytes"] for row in facts]
    gate = write_gate(tmp_path / "gate.parquet", {pictures[0]: ["pool/7.png"], pictures[1]: []})
    run_command(regrading, "right", "--csv", "readings.csv", "--leakage", str(gate))
    rows = list(csv.DictReader(Path("readings.csv").read_text().splitlines()))
    assert {row["score"]: row["leaked_items"] for row in rows} == {"MME-P": "2", "GQA": "2"}


@pytest.mark.usefixtures("project")
def test_the_command_exports_a_run_under_its_folders_name() -> None:
    run_command(export, "results/tiny/runs/right", "--format", "submission", "--output", "handed-in")
    stored = json.loads(Path("handed-in/right_GQA_submission.json").read_text())
    assert stored == [{"question_id": n, "answer": text} for n, text in enumerate(("red", "blue", "red"))]
    with pytest.raises(ArtifactError, match="blind:without-image"):
        run_command(export, "blind", "--format", "release", "--output", "out")
    assert not Path("out").exists()
