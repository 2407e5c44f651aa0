from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cambrian.evaluation.benchmarks.registry import BENCHMARKS, FURTHER, PAPER_SCORES, read_items
from cambrian.evaluation.matching import match_keywords, match_transcript
from cambrian.evaluation.metrics import chance_level, mean_scores
from cambrian.evaluation.scoring import score_replies
from cambrian.evaluation.strict import strict_rule
from cambrian.interfaces import ArtifactError, Item, Reply
from tests.evaluation.test_benchmarks import LETTERED, PICTURE, QUESTION_ONLY, write

if TYPE_CHECKING:
    from pathlib import Path

MMBENCH_ROW = {"index": 7, "question": "哪个?", "hint": "nan", "A": "猫", "B": "狗", "C": "nan", "D": None,
               "answer": "B", "category": "c", "image": PICTURE}  # fmt: skip
ROWS: dict[str, dict[str, Any]] = {
    "MMBench-CN": MMBENCH_ROW,
    "MMStar": {"index": 0, "question": "Which?\nOptions: A: cat, B: dog, C: bat, D: rat", "answer": "C",
               "category": "c", "image": PICTURE},
    "Q-Bench": {"question": "How blurred?", "candidates": ["Very", "Not very", "Not"], "correct_ans": "Not",
                "image": PICTURE},
    "POPE": {"question_id": "3", "question": "Is there a dog?", "answer": "no", "category": "adversarial",
             "image": PICTURE},
    "BLINK": {"idx": "val_Counting_1", "question": "How many?", "prompt": "How many?\n(A) 1\n(B) 2",
              "choices": ["1", "2"], "answer": "(B)", "sub_task": "Counting", "image_1": PICTURE},
    "V-Star": {"question_id": 4, "text": "What colour?\n(A) The cup is red.\n(B) The cup is blue.\nThe letter, please.",
               "label": "A", "category": "direct_attributes", "image": PICTURE},
    "VizWiz": {"question_id": "v.jpg", "question": "What is it?", "answers": ["unanswerable"] * 6 + ["soup"] * 4,
               "category": "other", "image": PICTURE},
    "ST-VQA": {"question_id": 5, "question": "What is written?", "image": PICTURE},
    "InfoVQA": {"questionId": "6", "question": "How many?", "answers": ["12 %", "12"], "image": PICTURE},
    "SynthDoG": {"image": PICTURE, "ground_truth": json.dumps({"gt_parse": {"text_sequence": "The cat sat."}})},
    "MM-Vet": {"question_id": "m", "question": "x?", "answer": "-1 <AND> 5 <OR> five", "capability": "ocr,math",
               "image": PICTURE},
}  # fmt: skip

AWKWARD: dict[str, dict[str, float]] = {
    "MMBench-CN": {"B": 1, "狗": 1, "狗。": 0, "答案是B": 0, "": 0, "猫狗": 0, "(b)": 1},
    "MMStar": {"C": 1, "c.": 1, "(C)": 1, "C: bat": 1, "bat": 0, "cat": 0, "": 0, "В": 0},
    "Q-Bench": {"C": 1, "Not": 1, "not.": 1, "Not very": 0, "B. Not very": 0, "C. Not": 1, "": 0},
    "POPE": {"No": 1, "no, there is none": 1, "No.": 1, "Nobody": 0, "yes": 0, "": 0, "нет": 0},
    "BLINK": {"(B)": 1, "b": 1, "2": 1, "The answer is (B).": 1, "two": 1, "12": 0, "": 0, "A or B": 0},
    "V-Star": {"A": 1, "The cup is red.": 1, "The cup is blue.": 0, "A cup": 0, "": 0, "red": 0, "(A)": 1},
    "VizWiz": {"Unanswerable": 1, "unanswerable.": 1, "soup": 1, "a soup": 1, "": 0, "soup can": 0, "суп": 0},
    "InfoVQA": {"12": 1, "12%": 0.75, "12 %": 1, "21": 0, "": 0, "Answer: 12": 1},
    "SynthDoG": {"The cat sat.": 1, "the CAT sat.": 1, "The dog sat.": 0.8, "": 0.4, "кот": 0.4, "sat." * 40: 0},
    "MM-Vet": {"x is -1 or 5": 1, "Five": 1, "5": 0.5, "15": 0, "": 0, "-1": 0.5, "пять": 0},
}


def read(folder: Path, name: str) -> Item:
    (item,) = read_items(write(folder, name, [ROWS[name]]), name, QUESTION_ONLY)
    return item


def test_the_release_evaluates_eleven_more() -> None:
    assert [benchmark.name for benchmark in FURTHER] == list(ROWS)
    assert not PAPER_SCORES & set(ROWS)


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_replies_get_the_credit_that_was_worked_out_by_hand(tmp_path: Path, name: str) -> None:
    item = read(tmp_path, name)
    found = {reply: BENCHMARKS[name].match(reply, item) for reply in AWKWARD[name]}
    assert found == pytest.approx(AWKWARD[name])
    assert len(found) >= 5


def test_every_rule_has_a_strict_one_beside_it() -> None:
    assert all(callable(strict_rule(benchmark.match)) for benchmark in BENCHMARKS.values())


def test_chance_is_that_of_the_options_or_of_the_usual_answers(tmp_path: Path) -> None:
    expected = {"MMStar": 25, "Q-Bench": 100 / 3, "POPE": 50, "BLINK": 50, "V-Star": 50, "MM-Vet": 0, "MMBench-CN": 50}
    assert {name: chance_level(BENCHMARKS[name], [read(tmp_path, name)]) for name in expected} == pytest.approx(
        expected
    )


def test_a_star_shaped_question_keeps_its_first_line_and_its_own_wording(tmp_path: Path) -> None:
    assert read(tmp_path, "V-Star").question == "What colour?"
    own = LETTERED.model_copy(update={"own_wording": True, "choice_question": "{question}"})
    (item,) = read_items(write(tmp_path, "V-Star", [ROWS["V-Star"]]), "V-Star", own)
    assert item.question == ROWS["V-Star"]["text"]
    assert item.choices == ("The cup is red.", "The cup is blue.")


def test_an_answer_that_is_no_candidate_is_named(tmp_path: Path) -> None:
    write(tmp_path, "Q-Bench", [{**ROWS["Q-Bench"], "correct_ans": "Perhaps"}])
    with pytest.raises(ArtifactError, match="row 0: the answer 'Perhaps' is none of the candidates"):
        read_items(tmp_path, "Q-Bench", QUESTION_ONLY)


def test_questions_without_a_public_answer_are_asked_and_not_scored(tmp_path: Path) -> None:
    item = read(tmp_path, "ST-VQA")
    known, hidden = (
        Item(f"InfoVQA/{number}", "InfoVQA", "?", (), answers, "", str(number), None)
        for number, answers in enumerate([("12",), ()])
    )
    found = score_replies(
        {"ST-VQA": [item], "InfoVQA": [known, hidden]},
        {
            "ST-VQA": [Reply(item.id, "stop", True)],
            "InfoVQA": [Reply(known.id, "12", True), Reply(hidden.id, "12", True)],
        },
    )
    assert found["scores"]["ST-VQA"] == {
        "with_image": None, "without_image": None, "standard_error": None, "chance": None, "items": 0,
    }  # fmt: skip
    assert found["scores"]["InfoVQA"]["with_image"] == 100
    assert found["scores"]["InfoVQA"]["items"] == 1
    assert found["average"] == {"with_image": None, "without_image": None}


def test_further_scores_enter_no_mean_of_the_paper() -> None:
    assert mean_scores({"GQA": 40.0, "POPE": 90.0}) == ({"General": 40.0}, 40.0)
    with pytest.raises(ValueError, match="at least one of the paper's scores"):
        mean_scores({"POPE": 90.0})


def test_a_transcript_is_worth_the_share_of_limits_that_it_keeps() -> None:
    item = Item("SynthDoG/0", "SynthDoG", "?", (), ("x" * 100,), "", "0", None)
    replies = {0: 1.0, 3: 0.8, 5: 0.8, 6: 0.6, 10: 0.6, 25: 0.4, 50: 0.2, 51: 0.0}
    assert {edits: match_transcript("x" * (100 - edits), item) for edits in replies} == replies


def test_key_phrases_are_looked_for_as_a_whole() -> None:
    item = Item("MM-Vet/0", "MM-Vet", "?", (), ("red car <AND> street",), "", "0", None)
    assert match_keywords("A RED\ncar", item) == 0.5
    assert match_keywords("a street with a red car", item) == 1
    assert match_keywords("a car that is red, in a street", item) == 0.5
