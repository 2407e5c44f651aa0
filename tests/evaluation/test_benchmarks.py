from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet
import pytest

from cambrian.evaluation.benchmarks.registry import BENCHMARKS, GROUPS, PAPER_SCORES, read_items
from cambrian.evaluation.config import PromptConfig
from cambrian.evaluation.strict import strict_rule
from cambrian.interfaces import ArtifactError, Item, ParamsError

if TYPE_CHECKING:
    from pathlib import Path

PICTURE = {"bytes": b"picture", "path": None}
QUESTION_ONLY = PromptConfig(
    question="{question}", choice_question="{question}", option="{text}", separator=" ",
    hint_separator="\n", own_wording=False, ocr_tokens=False, max_new_tokens=2,
)  # fmt: skip
LETTERED = PromptConfig(
    question="{question}\nAnswer shortly.",
    choice_question="{question}\n{options}\nAnswer with the letter.",
    option="{letter}. {text}",
    separator="\n",
    hint_separator="\n",
    own_wording=False,
    ocr_tokens=True,
    max_new_tokens=2,
)
LISTED = PromptConfig(
    question="{question}", choice_question="choices {options} {question}", option="{text}", separator=" ",
    hint_separator="\n", own_wording=False, ocr_tokens=False, max_new_tokens=2,
)  # fmt: skip

ROWS: dict[str, list[dict[str, Any]]] = {
    "MME-P": [
        {"question_id": "a.png", "image": PICTURE, "question": "Is it red?", "answer": "Yes", "category": "color"},
        {"question_id": "a.png", "image": PICTURE, "question": "Is it blue?", "answer": "No", "category": "color"},
        {"question_id": "b.png", "image": PICTURE, "question": "1+1=2?", "answer": "Yes", "category": "code_reasoning"},
    ],
    "MMB": [
        {"index": 7, "question": "What?", "hint": "Look.", "A": "cat", "B": "dog", "C": "nan", "D": None, "answer": "B",
         "category": "c", "image": PICTURE},
        {"index": 1000007, "question": "What?", "hint": "nan", "A": "dog", "B": "cat", "C": "nan", "D": "nan",
         "answer": "A", "category": "c", "image": PICTURE},
        {"index": 8, "question": "What?", "hint": "nan", "A": "dog", "B": "cat", "C": "nan", "D": "nan", "answer": "A",
         "category": "c", "image": {"bytes": b"another", "path": None}},
    ],
    "SEED-I": [
        {"question_id": "s0", "question": "Which?", "choice_a": "one", "choice_b": "two", "choice_c": "three",
         "choice_d": "four", "answer": "C", "image": [PICTURE]},
        {"question_id": "s1", "question": "Which?", "choice_a": "one", "choice_b": "two", "choice_c": "three",
         "choice_d": "four", "answer": "C", "image": [PICTURE, PICTURE]},
    ],
    "GQA": [{"id": "g0", "question": "What colour?", "answer": "red", "image": PICTURE}],
    "SQA-I": [
        {"image": PICTURE, "question": "Which?", "choices": ["ice", "fire"], "answer": 1, "hint": "Some text.",
         "subject": "natural science"},
        {"image": None, "question": "Which?", "choices": ["ice", "fire"], "answer": 1, "hint": "", "subject": "x"},
    ],
    "MMMU-V": [
        {"id": "m0", "question": "<image 1> What is it?", "options": "['tree', \"a bird's egg\"]", "answer": "B",
         "image_1": PICTURE, "question_type": "multiple-choice", "subfield": "Art"},
        {"id": "m1", "question": "How many?", "options": "[]", "answer": "['4', 'four']", "image_1": PICTURE,
         "question_type": "open", "subfield": "Art"},
    ],
    "MathVista-M": [
        {"pid": "1", "question": "How much?", "query": "How much? (Hint)",
         "decoded_image": PICTURE, "choices": None, "answer": "12.5",
         "question_type": "free_form"},
        {"pid": "2", "question": "Which?", "query": "Which? (A) 8 (B) 9",
         "decoded_image": PICTURE, "choices": ["8", "9"], "answer": "9",
         "question_type": "multi_choice"},
    ],
    "AI2D": [{"question": "Which?", "options": ["root", "leaf"], "answer": "1", "image": PICTURE}],
    "ChartQA": [{"question": "How high?", "answer": "7", "type": "human_test", "image": PICTURE}],
    "OCRBench": [{"question": "Text?", "answer": ["STOP"], "question_type": "Regular Text", "image": PICTURE}],
    "TextVQA": [
        {"question_id": 3, "question": "Text?", "answers": ["stop"] * 10, "ocr_tokens": ["stop", "now"],
         "image": PICTURE}
    ],
    "DocVQA": [{"questionId": "5", "question": "Name?", "answers": ["Ann", "Ann B."], "image": PICTURE}],
    "MMVP": [
        {"Index": index, "Question": "Eyes?", "Options": "(a) Open (b) Tightly shut", "Correct Answer": answer,
         "image": PICTURE}
        for index, answer in ((1, "(a)"), (2, "(b)"), (3, "(a)"))
    ],
    "RealWorldQA": [{"question": "How many?", "answer": "2", "image": PICTURE}],
    "CV-Bench-2D": [
        {"idx": 0, "type": "2D", "question": "Where?", "choices": ["left", "right"], "answer": "(B)", "image": PICTURE,
         "prompt": "Where?\n(A) left\n(B) right", "source": "ADE20K"},
        {"idx": 1, "type": "3D", "question": "Where?", "choices": ["left", "right"], "answer": "(B)", "image": PICTURE,
         "prompt": "Where?\n(A) left\n(B) right", "source": "Omni3D"},
    ],
    "CV-Bench-3D": [
        {"idx": 9, "type": "3D", "question": "Which is closer?", "choices": ["chair", "table"], "answer": "(A)",
         "prompt": "Which is closer?\n(A) chair\n(B) table", "image": PICTURE, "source": "Omni3D"}
    ],
}  # fmt: skip


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / name / "test.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return folder


def read(folder: Path, name: str, prompt: PromptConfig = QUESTION_ONLY) -> list[Item]:
    return read_items(write(folder, name, ROWS[name]), name, prompt)


def test_the_paper_has_sixteen_scores_in_four_groups_of_four() -> None:
    assert {group: len(benchmarks) for group, benchmarks in GROUPS.items()} == {
        "General": 4,
        "Knowledge": 4,
        "OCR & Chart": 4,
        "Vision-Centric": 4,
    }
    assert list(BENCHMARKS)[:16] == list(ROWS)
    assert set(ROWS) == PAPER_SCORES


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("MME-P", ["Yes", "No"]),
        ("MMB", ["dog", "dog", "dog"]),
        ("SEED-I", ["three"]),
        ("GQA", ["red"]),
        ("SQA-I", ["fire"]),
        ("MMMU-V", ["a bird's egg", "4"]),
        ("MathVista-M", ["12.5", "9"]),
        ("AI2D", ["leaf"]),
        ("ChartQA", ["7"]),
        ("OCRBench", ["STOP"]),
        ("TextVQA", ["stop"]),
        ("DocVQA", ["Ann"]),
        ("MMVP", ["Open", "Tightly shut", "Open"]),
        ("RealWorldQA", ["2"]),
        ("CV-Bench-2D", ["right"]),
        ("CV-Bench-3D", ["chair"]),
    ],
)
def test_rows_of_the_real_layout_become_items(tmp_path: Path, name: str, answers: list[str]) -> None:
    items = read(tmp_path, name)
    assert [item.answers[0] for item in items] == answers
    assert {item.benchmark for item in items} == {name}
    assert all(item.image for item in items)
    assert all(BENCHMARKS[name].match(answer, item) == 1 for item, answer in zip(items, answers, strict=True))


def test_what_is_scored_together_shares_a_group(tmp_path: Path) -> None:
    mme, mmb, mmvp = (read(tmp_path, name) for name in ("MME-P", "MMB", "MMVP"))
    assert [item.group for item in mme] == ["a.png", "a.png"]
    assert mmb[0].group == mmb[1].group != mmb[2].group  # the third is the same question over another image
    assert [item.group for item in mmvp] == ["0", "0", "1"]


def test_items_are_named_by_benchmark_and_their_own_id(tmp_path: Path) -> None:
    assert [item.id for item in read(tmp_path, "CV-Bench-3D")] == ["CV-Bench-3D/9"]
    assert [item.id for item in read(tmp_path, "MMB")] == ["MMB/7", "MMB/1000007", "MMB/8"]


def test_an_open_mmmu_question_has_every_accepted_answer_and_no_options(tmp_path: Path) -> None:
    item = read(tmp_path, "MMMU-V")[1]
    assert (item.answers, item.choices) == (("4", "four"), ())


def test_a_prompt_is_the_question_alone(tmp_path: Path) -> None:
    assert read(tmp_path, "AI2D")[0].question == "Which?"
    assert read(tmp_path, "TextVQA")[0].question == "Text?"
    assert read(tmp_path, "MMMU-V")[0].question == "What is it?"


def test_a_prompt_has_hint_options_tokens_and_suffix_where_asked(tmp_path: Path) -> None:
    assert read(tmp_path, "SQA-I", LETTERED)[0].question == (
        "Some text.\nWhich?\nA. ice\nB. fire\nAnswer with the letter."
    )
    assert read(tmp_path, "TextVQA", LETTERED)[0].question == (
        "Text?\nReference OCR tokens: stop, now\nAnswer shortly."
    )


def test_options_may_stand_before_the_question_that_needs_them(tmp_path: Path) -> None:
    assert read(tmp_path, "CV-Bench-3D", LISTED)[0].question == "choices chair table Which is closer?"
    assert read(tmp_path, "GQA", LISTED)[0].question == "What colour?"


def test_a_layout_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match=r"question has \['options'\], it may have \['question'\]"):
        PromptConfig.model_validate({**LISTED.model_dump(), "question": "{question} {options}"})


def test_an_unknown_score_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"'MME'; did you mean 'MME-P'"):
        read_items(tmp_path, "MME", QUESTION_ONLY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"GQA/test.parquet cannot be read"):
        read_items(tmp_path, "GQA", QUESTION_ONLY)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (write(tmp_path, "GQA", ROWS["GQA"]) / "GQA" / "test.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ArtifactError, match=r"GQA/test.parquet cannot be read"):
        read_items(tmp_path, "GQA", QUESTION_ONLY)


def test_a_data_set_that_lost_a_column_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "GQA", [{"id": "0", "question": "?", "image": PICTURE}])
    with pytest.raises(ArtifactError, match="has no column answer"):
        read_items(tmp_path, "GQA", QUESTION_ONLY)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("SEED-I", {"answer": "E"}, "row 0: the answer is option 5 of 4"),
        ("SEED-I", {"answer": "both"}, "row 0: answer 'both' is not an option's letter"),
        ("MMMU-V", {"options": "tree, bird"}, "row 0: options 'tree, bird' are not the text of a list"),
        ("AI2D", {"answer": "2"}, "row 0: the answer is option 3 of 2"),
        ("GQA", {"answer": 7}, "row 0: the answer 7 is no text: its data set has other fields"),
        ("GQA", {"answer": None}, "row 0: the answer None is no text"),
        ("GQA", {"question": ["What?"]}, "row 0: the question .* is no text"),
        ("GQA", {"id": None}, "row 0: its id is None, expected what names the row"),
        ("GQA", {"id": ""}, "row 0: its id is '', expected what names the row"),
        ("MMMU-V", {"id": None}, "row 0: its id is None"),
        ("MME-P", {"question_id": None}, "row 0: its question_id is None"),  # it also joins the pairs
        ("MME-P", {"category": "colour"}, "row 0: its category 'colour' is none of MME's: existence, "),
        ("MMMU-V", {"question_type": "multiple choice"}, "row 0: its question_type is 'multiple choice', expected"),
        ("CV-Bench-2D", {"type": None}, "row 0: its type is None, expected 2D or 3D"),
        ("CV-Bench-2D", {"source": None}, "row 0: the category None is no text"),  # its score averages over sources
        ("SEED-I", {"answer": 2}, "row 0: answer 2 is not an option's letter"),
        ("SEED-I", {"choice_b": None}, "row 0: the option None is no text"),
        ("AI2D", {"options": "leaf"}, "row 0: its options is the text 'leaf', expected a list"),
        ("AI2D", {"options": [3, 4]}, "row 0: the option 3 is no text"),
        ("DocVQA", {"answers": "Ann"}, "row 0: its answers is the text 'Ann', expected a list"),
        ("OCRBench", {"answer": "STOP"}, "row 0: its answer is the text 'STOP', expected a list"),
        ("MMVP", {"Options": None}, "row 0: expected string"),
        (
            "MMMU-V",
            {"question_type": "open", "answer": 4},
            "row 0: a field is of another type .*: 'int' object has no attribute",
        ),
    ],
)
def test_a_row_that_is_not_as_documented_is_named(
    tmp_path: Path, name: str, change: dict[str, Any], message: str
) -> None:
    write(tmp_path, name, [{**ROWS[name][0], **change}])
    with pytest.raises(ArtifactError, match=message):
        read_items(tmp_path, name, QUESTION_ONLY)


def test_a_row_without_its_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "GQA", [*ROWS["GQA"], {**ROWS["GQA"][0], "id": "g1", "image": None}])
    with pytest.raises(ArtifactError, match="row 1, has no image"):
        read_items(tmp_path, "GQA", QUESTION_ONLY)


def test_the_data_sets_own_wording_stands_for_the_question_where_asked(tmp_path: Path) -> None:
    own = LETTERED.model_copy(update={"own_wording": True, "choice_question": "{question}\nThe letter, please."})
    assert read(tmp_path, "CV-Bench-3D", own)[0].question == (
        "Which is closer?\n(A) chair\n(B) table\nThe letter, please."
    )
    assert [item.question for item in read(tmp_path, "MathVista-M", own)] == [
        "How much? (Hint)\nAnswer shortly.", "Which? (A) 8 (B) 9\nThe letter, please.",
    ]  # fmt: skip
    assert read(tmp_path, "MMVP", own)[0].question == "Eyes?\nThe letter, please."  # it has no wording of its own


def test_both_kinds_of_cv_bench_may_stand_in_one_table(tmp_path: Path) -> None:
    rows = [*ROWS["CV-Bench-2D"], *ROWS["CV-Bench-3D"]]
    for name, ids in (("CV-Bench-2D", ["CV-Bench-2D/0"]), ("CV-Bench-3D", ["CV-Bench-3D/1", "CV-Bench-3D/9"])):
        write(tmp_path, name, rows)
        assert [item.id for item in read_items(tmp_path, name, QUESTION_ONLY)] == ids


def test_two_rows_of_one_id_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "GQA", ROWS["GQA"] * 2)
    with pytest.raises(ArtifactError, match="two rows of the id GQA/g0"):
        read_items(tmp_path, "GQA", QUESTION_ONLY)


def test_a_file_without_a_usable_row_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "MME-P", ROWS["MME-P"][2:])
    with pytest.raises(ArtifactError, match="no usable row"):
        read_items(tmp_path, "MME-P", QUESTION_ONLY)


AWKWARD: dict[tuple[str, int], dict[str, tuple[float, float]]] = {
    ("MME-P", 0): {
        "Yes, it is.": (1, 1), "yes and no": (1, 0), "The answer is yes.": (0, 1), "Yesterday": (0, 0), "да": (0, 0),
        "": (0, 0),
    },
    ("MMB", 0): {
        "a dog": (1, 1), "B. cat": (1, 0), "hotdog": (0, 0), "cat or dog": (0, 0), "狗": (0, 0), "": (0, 0),
    },
    ("SEED-I", 0): {
        "3": (1, 1), "C. four": (1, 0), "three or four": (0, 0), "c'est trois": (0, 0), "E": (0, 0), "": (0, 0),
    },
    ("GQA", 0): {
        "Red.": (1, 1), "reds": (1, 0), "a red": (0, 1), "hundred": (0, 0), "красный": (0, 0), "": (0, 0),
    },
    ("SQA-I", 0): {
        "fire.": (1, 1), "(b) ice": (1, 0), "ice and fire": (0, 0), "fireplace": (0, 0), "огонь": (0, 0), "": (0, 0),
    },
    ("MMMU-V", 0): {
        "bird's egg": (1, 1), "(B) tree": (1, 0), "egg": (0, 0), "a tree": (0, 0), "Б": (0, 0), "": (0, 0),
    },
    ("MMMU-V", 1): {
        "four": (1, 1), "4.1": (1, 0), "4 eggs": (0, 0), "14": (0, 0), "четыре": (0, 0), "": (0, 0),
    },
    ("MathVista-M", 0): {
        "Answer: 12.50.": (1, 1), "12": (1, 0), "1250": (0, 0), "12.5 cm": (0, 0), "１２.５ см": (0, 0), "": (0, 0),
    },
    ("AI2D", 0): {
        "b": (1, 1), "B: root": (1, 0), "leaflet": (0, 0), "root. leaf": (0, 0), "лист": (0, 0), "": (0, 0),
    },
    ("ChartQA", 0): {
        "7.3": (1, 1), "seven": (1, 1), "17": (0, 0), "7 million": (0, 0), "семь": (0, 0), "": (0, 0),
    },
    ("OCRBench", 0): {
        "STOP\nsign": (1, 1), "STOPPED": (1, 0), "st op": (0, 0), "top": (0, 0), "СТОП": (0, 0), "": (0, 0),
    },
    ("TextVQA", 0): {
        "The Stop!": (1, 1), "stops": (0, 0), "stop now": (0, 0), "s t o p": (0, 0), "стоп": (0, 0), "": (0, 0),
    },
    ("DocVQA", 0): {
        "ANN": (1, 1), "Ann B.": (5 / 6, 5 / 6), "Anna": (0.75, 0.75), "bob": (0, 0), "Анна": (0, 0), "": (0, 0),
    },
    ("MMVP", 0): {
        "open.": (1, 1), "A: or B": (1, 0), "opened": (0, 0), "Tightly shut": (0, 0), "А": (0, 0), "": (0, 0),
    },
    ("RealWorldQA", 0): {
        "2.": (1, 1), "2 cars": (1, 0), "two": (0, 1), "12": (0, 0), "два": (0, 0), "": (0, 0),
    },
    ("CV-Bench-2D", 0): {
        "the right": (1, 1), "B) left": (1, 0), "bright": (0, 0), "left or right": (0, 0), "право": (0, 0), "": (0, 0),
    },
    ("CV-Bench-3D", 0): {
        "a chair": (1, 1), "A, B": (1, 0), "A table": (0, 0), "armchair": (0, 0), "стул": (0, 0), "": (0, 0),
    },
}  # fmt: skip
"""By benchmark and item: replies with the credit by the paper's rule and by the strict one, worked out by hand."""


def test_every_score_has_five_awkward_replies_that_were_graded_by_hand() -> None:
    assert {name for name, _ in AWKWARD} == PAPER_SCORES
    assert all(len(replies) >= 5 for replies in AWKWARD.values())


@pytest.mark.parametrize(("name", "number"), AWKWARD)
def test_awkward_replies_to_items_of_the_real_layout(tmp_path: Path, name: str, number: int) -> None:
    item = read(tmp_path, name)[number]
    match, replies = BENCHMARKS[name].match, AWKWARD[name, number]
    found = {reply: (match(reply, item), strict_rule(match)(reply, item)) for reply in replies}
    assert found == {reply: pytest.approx(credits_) for reply, credits_ in replies.items()}
