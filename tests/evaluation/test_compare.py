from __future__ import annotations

import argparse
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from cambrian.evaluation import compare
from cambrian.evaluation.compare import Answers, compare_answers, compare_means, format_changes, read_answers
from cambrian.interfaces import ArtifactError, Item, Reply


def yes_items(name: str, count: int) -> list[Item]:
    return [
        Item(
            id=f"{name}/{number}", benchmark=name, question=f"is it {number} ?", choices=("yes", "no"),
            answers=("yes",), category="", group=str(number), image=None,
        )
        for number in range(count)
    ]  # fmt: skip


ITEMS = {"SEED-I": yes_items("SEED-I", 40), "AI2D": yes_items("AI2D", 30)}


def answers(name: str, right: dict[str, set[int]], *, with_image: bool = True) -> Answers:
    return Answers(
        name,
        {
            benchmark: [
                Reply(item.id, "yes" if number in right[benchmark] else "no", with_image)
                for number, item in enumerate(members)
            ]
            for benchmark, members in ITEMS.items()
        },
        with_image,
    )


FIRST = answers("first", {"SEED-I": set(range(10)), "AI2D": set(range(20))})
SECOND = answers("second", {"SEED-I": set(range(1, 35)), "AI2D": set(range(1, 20))})


def test_a_change_beyond_noise_is_called_and_one_within_it_is_not() -> None:
    seed, ai2d = compare_answers(ITEMS, FIRST, SECOND)
    assert (seed.name, seed.difference.better, seed.difference.worse, seed.is_beyond_noise) == ("SEED-I", 25, 1, True)
    assert (ai2d.name, ai2d.difference.better, ai2d.difference.worse, ai2d.is_beyond_noise) == ("AI2D", 0, 1, False)
    assert seed.adjusted_p == pytest.approx(2 * seed.difference.p_value)


def test_the_items_that_changed_come_with_both_replies() -> None:
    _, ai2d = compare_answers(ITEMS, FIRST, SECOND)
    (changed,) = ai2d.items
    assert (changed.item.id, changed.replies, changed.credits) == ("AI2D/0", ("yes", "no"), (1.0, 0.0))


def test_items_without_a_public_answer_are_no_wrong_ones() -> None:
    hidden = {
        "SEED-I": [replace(item, answers=()) if int(item.group) >= 10 else item for item in ITEMS["SEED-I"]],
        "AI2D": [replace(item, answers=()) for item in ITEMS["AI2D"]],
    }
    (seed,) = compare_answers(hidden, FIRST, SECOND)
    assert (seed.name, seed.difference.first, seed.difference.second, seed.difference.groups) == ("SEED-I", 100, 90, 10)
    assert [change.item.id for change in seed.items] == ["SEED-I/0"]
    assert compare_answers({"AI2D": hidden["AI2D"]}, FIRST, SECOND) == []


def test_means_add_the_errors_of_their_scores_in_squares() -> None:
    changes = compare_answers(ITEMS, FIRST, SECOND)
    general, knowledge, average = compare_means(changes)
    assert [mean.name for mean in (general, knowledge, average)] == ["General", "Knowledge", "Average"]
    assert (general.first, general.second) == (25, 85)
    assert average.second - average.first == pytest.approx((60 - 100 / 30) / 2)
    errors = [change.difference.standard_error for change in changes]
    assert average.standard_error == pytest.approx((errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2)
    assert general.adjusted_p < 1e-6 < knowledge.adjusted_p


def test_neither_the_order_of_items_nor_of_replies_nor_another_benchmark_changes_a_number() -> None:
    generator = random.Random(0)
    mixed = {name: generator.sample(members, len(members)) for name, members in reversed(ITEMS.items())}
    second = replace(SECOND, replies={name: generator.sample(said, len(said)) for name, said in SECOND.replies.items()})
    expected = {change.name: change.difference for change in compare_answers(ITEMS, FIRST, SECOND)}
    assert {change.name: change.difference for change in compare_answers(mixed, FIRST, second)} == expected
    (alone,) = compare_answers({"AI2D": ITEMS["AI2D"]}, FIRST, SECOND)
    assert alone.difference == expected["AI2D"]


def test_an_item_without_a_reply_is_named() -> None:
    short = replace(SECOND, replies={**SECOND.replies, "AI2D": SECOND.replies["AI2D"][1:]})
    with pytest.raises(ArtifactError, match="no reply to AI2D/0"):
        compare_answers(ITEMS, FIRST, short)


def test_a_reply_that_stands_twice_is_named() -> None:
    twice = replace(SECOND, replies={**SECOND.replies, "AI2D": [*SECOND.replies["AI2D"], SECOND.replies["AI2D"][3]]})
    with pytest.raises(ArtifactError, match="two replies to AI2D/3"):
        compare_answers(ITEMS, FIRST, twice)


def test_an_item_that_stands_twice_is_named() -> None:
    with pytest.raises(ValueError, match="AI2D/7"):
        compare_answers({"AI2D": [*ITEMS["AI2D"], ITEMS["AI2D"][7]]}, FIRST, SECOND)


def test_a_run_of_other_scores_is_named() -> None:
    other = replace(SECOND, replies={"SEED-I": SECOND.replies["SEED-I"]})
    with pytest.raises(ArtifactError, match="second has no replies to AI2D"):
        compare_answers(ITEMS, FIRST, other)


def test_the_text_shows_verdicts_and_as_many_items_as_asked_for() -> None:
    text = format_changes(compare_answers(ITEMS, FIRST, SECOND), "first", "second", num_shown=2)
    lines = text.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("SEED-I  ")] == ["better"]
    assert [line.split()[-1] for line in lines if line.startswith("AI2D")] == ["1.0000"]
    assert "SEED-I: B is better on 25 items" in lines
    assert "  SEED-I/10  'is it 10 ?'  answer 'yes'  A 'no'  B 'yes'" in lines
    assert "  and 23 more" in lines
    assert "SEED-I: B is worse on 1 items" in lines
    assert "AI2D: " not in text


def test_equal_runs_are_said_to_be_equal() -> None:
    text = format_changes(compare_answers(ITEMS, FIRST, FIRST), "first", "first", num_shown=2)
    assert text.endswith("Nothing changed beyond noise (p below 0.05).\n")


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    compare.run(parser.parse_args(list(arguments)))


@pytest.mark.usefixtures("project")
def test_the_command_compares_two_runs_and_the_two_modes_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    run("right", "blind:without-image", "--json", "changes.json")
    out = capsys.readouterr().out
    assert out.startswith("A = right\nB = blind:without-image\n")
    assert "MME-P           2000.0   500.0 -1500.0" in out
    (mme, gqa) = json.loads(Path("changes.json").read_text())
    assert [one["id"] for one in mme["items"]] == ["MME-P/1", "MME-P/2"]
    assert (gqa["first"], gqa["second"]) == (100, pytest.approx(200 / 3))
    run("right", "right:without-image")
    assert "MME-P           2000.0   500.0 -1500.0" in capsys.readouterr().out


@pytest.mark.usefixtures("project")
def test_a_run_is_found_by_name_or_by_folder() -> None:
    by_name = read_answers("right", Path("results/tiny/runs"))
    by_folder = read_answers("results/tiny/runs/right", Path("nowhere"))
    assert by_name.replies == by_folder.replies


@pytest.mark.usefixtures("project")
def test_a_run_without_images_says_how_it_can_be_compared() -> None:
    with pytest.raises(ArtifactError, match="no replies with the image; compare blind:without-image"):
        run("right", "blind")


@pytest.mark.usefixtures("project")
def test_a_run_that_was_not_evaluated_is_named() -> None:
    with pytest.raises(ArtifactError, match=r"left/replies\.parquet"):
        run("right", "left")


@pytest.mark.usefixtures("project")
def test_a_half_written_file_of_replies_is_named() -> None:
    path = Path("results/tiny/runs/right/replies.parquet")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ArtifactError, match=r"right/replies\.parquet is not a file of replies"):
        run("right", "right")
