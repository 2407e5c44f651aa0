from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cambrian.data.world.cards import Card, Sign, render_card
from cambrian.data.world.charts import Bar, Chart, render_chart
from cambrian.data.world.config import CardConfig, ChartConfig, SceneConfig, WorldConfig
from cambrian.data.world.facts import AREAS, SUMS
from cambrian.data.world.pictures import (
    caption,
    classes,
    draw_png,
    kind_of,
    labels,
    phrases,
    render,
    sample_picture,
)
from cambrian.data.world.question_forms import Question
from cambrian.data.world.questions import (
    QUESTION_KINDS,
    all_words,
    answer_letter,
    draw_question,
    find_questions,
    letter_choices,
    list_choices,
    sample_twins,
    shuffle_choices,
)
from cambrian.data.world.scenes import BACKGROUND_DEPTH, Scene, Solid, distance, place_solid, render_scene, sample_scene
from cambrian.data.world.words import CLASS_IDS, COLOURS, KINDS, NUMBERS, SHAPES

SCENE = SceneConfig(
    max_solids=4,
    max_offset=0.1,
    min_centre_distance=0.35,
    depths={"near": (2.7, 3.1), "mid": (3.8, 4.4), "far": (5.5, 6.5)},
    radius=(0.47, 0.53),
    fog=0.45,
    min_distance_ratio=1.5,
)
WORLD = WorldConfig(
    image_side=48,
    scene=SCENE,
    chart=ChartConfig(num_bars=(2, 3), max_value=8),
    card=CardConfig(num_signs=(2, 3), max_offset_pixels=1),
)


def solid(colour: str, shape: str, cell: int, depth: str) -> Solid:
    row, column = divmod(cell, 3)
    screen = ((column + 0.5) / 3, (row + 0.5) / 3)
    return place_solid(
        SCENE, colour=colour, shape=shape, cell=cell, screen=screen, depth=depth, within=0.5, radius=0.5, turn=0.6
    )


def scene(*solids: Solid) -> Scene:
    return Scene(solids=solids, background=(0.3, 0.5), farthest=6.5, fog=0.45, grain=1)


TWO = scene(solid("red", "cube", 0, "near"), solid("blue", "ball", 8, "far"))
CHART = Chart((Bar("red", 3, 0), Bar("blue", 8, 2)), max_value=8, ground=240, grain=1)
CARD = Card("card", (Sign("k", 0, (0, 0), 0), Sign("o", 1, (0, 0), 0)), row=1, ground=250, ink=10, grain=1)
DIGITS = Card("digits", (Sign("three", 0, (0, 0), 5), Sign("seven", 2, (0, 0), 9)), row=0, ground=250, ink=10, grain=1)
PICTURES = (TWO, CHART, CARD, DIGITS)


def ask(picture: object, kind: str) -> dict[str, str]:
    return {question.text: question.answer for question in find_questions(picture, kind, SCENE)}  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_solid_is_drawn_where_it_is_seen(shape: str) -> None:
    drawn = render_scene(scene(solid("red", shape, 4, "near")), 48)
    rows, columns = np.nonzero(drawn.segmentation)
    assert abs(rows.mean() - 23.5) < 4  # a cone's weight lies below its middle
    assert abs(columns.mean() - 23.5) < 1
    assert set(np.unique(drawn.segmentation)) == {0, CLASS_IDS[f"red {shape}"]}


@pytest.mark.parametrize("shape", SHAPES)
def test_depth_is_that_of_the_solid_and_of_the_background(shape: str) -> None:
    only = solid("red", shape, 4, "mid")
    drawn = render_scene(scene(only), 48)
    seen = drawn.depth[drawn.segmentation > 0]
    assert np.all(np.abs(seen - only.position[2]) <= only.radius * 1.2)
    assert np.all(drawn.depth[drawn.segmentation == 0] == BACKGROUND_DEPTH)


def test_a_ball_is_as_large_as_geometry_says() -> None:
    only = solid("red", "ball", 4, "near")
    drawn = render_scene(scene(only), 96)
    expected = math.pi * (96 * only.radius / only.position[2]) ** 2
    assert abs((drawn.segmentation > 0).sum() - expected) / expected < 0.06  # perspective and whole pixels


def test_a_nearer_solid_is_larger_and_hides_a_farther_one() -> None:
    near, far = solid("red", "ball", 4, "near"), solid("blue", "ball", 4, "far")
    sizes = [(render_scene(scene(one), 48).segmentation > 0).sum() for one in (near, far)]
    assert sizes[0] > 2 * sizes[1]
    for order in ((near, far), (far, near)):
        assert set(np.unique(render_scene(scene(*order), 48).segmentation)) == {0, CLASS_IDS["red ball"]}


def test_solids_are_of_their_colour() -> None:
    for colour, rgb in COLOURS.items():
        drawn = render_scene(scene(solid(colour, "cube", 4, "near")), 48)
        mean = drawn.pixels[drawn.segmentation > 0].mean(axis=0)
        assert np.argsort(mean)[-1] in np.flatnonzero(np.array(rgb) >= max(rgb) - 30), colour


def test_sampled_scenes_keep_their_promises() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        found = sample_scene(rng, SCENE)
        assert 1 <= len(found.solids) <= SCENE.max_solids
        assert len({one.colour for one in found.solids}) == len(found.solids)
        cells = [one.cell for one in found.solids]
        assert cells == sorted(set(cells))
        for number, one in enumerate(found.solids):
            row, column = divmod(one.cell, 3)
            assert (int(one.screen[1] * 3), int(one.screen[0] * 3)) == (row, column)
            assert SCENE.depths[one.depth][0] <= one.position[2] <= SCENE.depths[one.depth][1]
            assert one.position[0] == pytest.approx((one.screen[0] - 0.5) * one.position[2])
            for other in found.solids[:number]:
                assert math.dist(one.screen, other.screen) >= SCENE.min_centre_distance


def test_a_bounding_box_holds_the_solids_pixels() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        (one,) = sample_scene(rng, SCENE, 1).solids
        rows, columns = np.nonzero(render_scene(scene(one), 96).segmentation)
        left, top, right, bottom = (edge * 96 for edge in one.bbox)
        # Off the middle of the screen perspective stretches a ball by a pixel or two.
        assert left - 3 <= columns.min() <= columns.max() <= right + 3
        assert top - 3 <= rows.min() <= rows.max() <= bottom + 3


def test_bars_are_as_tall_as_their_values() -> None:
    drawn = render_chart(CHART, 48)
    heights = {
        bar.colour: int((drawn.segmentation == CLASS_IDS[bar.class_name]).any(axis=1).sum()) for bar in CHART.bars
    }
    assert heights["blue"] / heights["red"] == pytest.approx(8 / 3, rel=0.06)
    assert np.array_equal(drawn.pixels[40, 8], COLOURS["red"])


def test_letters_stand_in_their_cells() -> None:
    segmentation = render_card(CARD, 48).segmentation
    rows, columns = np.nonzero(segmentation == CLASS_IDS["letter o"])
    assert rows.min() >= 16
    assert rows.max() < 32
    assert columns.min() >= 16
    assert columns.max() < 32


def test_digits_are_real_drawings_of_many_hands() -> None:
    drawings = {
        render_card(replace(DIGITS, signs=(Sign("three", 0, (0, 0), hand),)), 48).pixels.tobytes() for hand in range(30)
    }
    assert len(drawings) > 25


@pytest.mark.parametrize("picture", PICTURES)
def test_a_picture_renders_to_the_same_bytes_and_grain_makes_another(picture: Scene | Chart | Card) -> None:
    assert draw_png(picture, 48) == draw_png(picture, 48)
    assert draw_png(picture, 48) != draw_png(replace(picture, grain=2), 48)
    with Image.open(io.BytesIO(draw_png(picture, 48))) as image:
        assert (image.size, image.mode, image.format) == ((48, 48), "RGB", "PNG")


def test_phrases_name_what_lies_in_each_cell() -> None:
    assert [cell for cell in phrases(TWO) if cell] == [
        ["top", "left", "red", "cube", "near"],
        ["bottom", "right", "blue", "ball", "far"],
    ]
    assert phrases(CHART)[6:] == [
        ["bottom", "left", "red", "bar", "three"],
        [],
        ["bottom", "right", "blue", "bar", "eight"],
    ]
    assert phrases(CARD)[3:5] == [["middle", "left", "letter", "k"], ["middle", "centre", "letter", "o"]]
    assert all(len(phrases(picture)) == 9 for picture in PICTURES)


def test_captions_say_what_is_there_cell_by_cell() -> None:
    assert [caption(picture) for picture in PICTURES] == [
        "red cube near top left and blue ball far bottom right",
        "red bar three left and blue bar eight right",
        "letter k middle left and letter o middle centre",
        "digit three top left and digit seven top right",
    ]


@pytest.mark.parametrize("picture", PICTURES)
def test_labels_and_segmentation_agree_on_the_classes(picture: Scene | Chart | Card) -> None:
    shown = sorted(CLASS_IDS[name] for name in classes(picture))
    assert (np.flatnonzero(labels(picture)) + 1).tolist() == shown
    assert [number for number in np.unique(render(picture, 48).segmentation).tolist() if number] == shown


def test_every_kind_of_picture_is_sampled_as_itself() -> None:
    rng = np.random.default_rng(0)
    assert [kind_of(sample_picture(rng, WORLD, kind)) for kind in KINDS] == list(KINDS)


@pytest.mark.parametrize(
    ("picture", "kind", "expected"),
    [
        (TWO, "colour", {"what colour is the cube": "red", "what colour is the ball": "blue"}),
        (TWO, "shape", {"what shape is the red": "cube", "what shape is the blue": "ball"}),
        (TWO, "count", {"how many solids": "two"}),
        (TWO, "attribute", {"is the cube red": "yes", "is the cube blue": "no"}),
        (TWO, "column", {"which column holds the red": "left", "which column holds the ball": "right"}),
        (TWO, "row", {"which row holds the red": "top", "which row holds the ball": "bottom"}),
        (TWO, "horizontal", {"is the red left or right of the ball": "left"}),
        (TWO, "vertical", {"is the ball above or below the cube": "below"}),
        (TWO, "side", {"is the red above the blue": "yes", "is the red right of the blue": "no"}),
        (TWO, "depth-level", {"how far is the red": "near", "how far is the ball": "far"}),
        (TWO, "exists", {"is there a red": "yes", "is there a cone": "no", "is there a ball": "yes"}),
        (TWO, "count-shape", {"how many have the shape cube": "one", "how many have the shape cone": "zero"}),
        (TWO, "number-is", {"is the number of solids two": "yes", "is the number of solids three": "no"}),
        (TWO, "absent", {"what colour is the cone": "unknown", "what shape is the green": "unknown"}),
        (CHART, "value", {"what is the value of red": "three", "what is the value of blue": "eight"}),
        (CHART, "value-colour", {"which colour has the value eight": "blue"}),
        (CHART, "extreme", {"which colour is tallest": "blue", "which colour is shortest": "red"}),
        (CHART, "value-is", {"is the value of red three": "yes", "is the value of red eight": "no"}),
        (CHART, "exists", {"is there a blue": "yes", "is there a green": "no"}),
        (CARD, "end", {"which letter is first": "k", "which letter is last": "o"}),
        (CARD, "at", {"which letter is left": "k", "which letter is centre": "o"}),
        (CARD, "beside", {"which letter is after k": "o", "which letter is before o": "k"}),
        (CARD, "read", {"read the letters": "k o"}),
        (CARD, "row", {"which row holds the k": "middle"}),
        (DIGITS, "end", {"which digit is last": "seven"}),
        (DIGITS, "count", {"how many digits": "two"}),
        (TWO, "code", {"write the code": "solids red cube blue ball"}),
        (CHART, "code", {"write the code": "bars red three blue eight"}),
        (None, "sum", {"what is three plus four": "seven", "what is two times five": "ten"}),
        (None, "biology", {"what kind of animal is the bat": "mammal"}),
        (None, "claim", {"is steam a gas": "yes", "is peru in asia": "no"}),
        (None, "program", {"run first k o": "k", "run last k o": "o", "run add two two": "four"}),
    ],
)
def test_questions_have_their_answers(picture: object, kind: str, expected: dict[str, str]) -> None:
    found = ask(picture, kind)
    assert {text: found[text] for text in expected} == expected


def test_a_shape_that_is_there_twice_names_nothing() -> None:
    twice = scene(solid("red", "cube", 0, "near"), solid("blue", "cube", 8, "far"))
    assert ask(twice, "colour") == {}
    assert not any("cube" in text for text in ask(twice, "horizontal"))


def test_solids_in_one_column_have_no_left_or_right() -> None:
    above = scene(solid("red", "cube", 0, "near"), solid("blue", "ball", 6, "near"))
    assert ask(above, "horizontal") == {}
    assert ask(above, "depth") == {}
    assert ask(above, "vertical")


def test_the_closer_of_two_is_of_the_nearer_depth() -> None:
    found = find_questions(TWO, "depth", SCENE)
    closer = {question.answer for question in found if question.text.endswith("closer")}
    assert closer == {"red", "cube"}
    assert all(question.needs_choices and len(question.choices) == 2 for question in found)


def test_the_nearest_in_space_wins_by_the_margin() -> None:
    three = scene(solid("red", "cube", 3, "near"), solid("blue", "ball", 4, "near"), solid("green", "cone", 5, "far"))
    by_answer = {(question.text.split()[-1], question.answer) for question in find_questions(three, "distance", SCENE)}
    assert ("red", "blue") in by_answer
    assert ("red", "green") not in by_answer
    strict = SCENE.model_copy(update={"min_distance_ratio": 100.0})
    assert find_questions(three, "distance", strict) == []
    assert distance(three.solids[0], three.solids[1]) == pytest.approx(2.9 / 3)


def test_a_question_of_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no question is of kind 'smell'; the kinds are colour"):
        find_questions(TWO, "smell", SCENE)


def test_a_picture_without_such_a_question_gives_none() -> None:
    assert draw_question(np.random.default_rng(0), CHART, "colour", SCENE) is None


def test_yes_and_no_are_drawn_alike() -> None:
    rng = np.random.default_rng(0)
    answers = [question.answer for _ in range(400) if (question := draw_question(rng, CHART, "value-is", SCENE))]
    assert 150 < answers.count("yes") < 250


def test_choices_are_four_with_the_answer_at_any_place() -> None:
    rng = np.random.default_rng(0)
    question = Question("colour", "what colour is the cube", "red", tuple(COLOURS), needs_choices=False)
    drawn = [shuffle_choices(rng, question) for _ in range(200)]
    assert all(len(set(one.choices)) == 4 and "red" in one.choices for one in drawn)
    assert {answer_letter(one) for one in drawn} == {"a", "b", "c", "d"}


def test_listed_choices_stand_before_the_question() -> None:
    question = Question("depth", "which one is closer", "cube", ("red", "cube"), needs_choices=True)
    assert list_choices(question) == "choices red cube which one is closer"
    assert letter_choices(question) == "choices a red b cube which one is closer"
    assert answer_letter(question) == "b"


def test_twins_answer_one_question_differently() -> None:
    rng = np.random.default_rng(0)
    for kind in ("colour", "shape", "column", "horizontal"):
        first, second, question, other = sample_twins(rng, WORLD, [kind])
        assert question.text == other.text
        assert question.answer != other.answer
        assert len(set(first.solids) ^ set(second.solids)) == 2
        for picture, one in ((first, question), (second, other)):
            assert ask(picture, kind)[one.text] == one.answer


def test_every_text_is_made_of_words_of_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    words, seen = all_words(), set()
    for kind in KINDS:
        for _ in range(150):
            picture = sample_picture(rng, WORLD, kind)
            seen |= {word for cell in phrases(picture) for word in cell} | set(caption(picture).split())
            for question_kind in QUESTION_KINDS:
                question = draw_question(rng, picture, question_kind, SCENE)
                if question is not None:
                    asked = (*question.choices, question.answer, list_choices(question), letter_choices(question))
                    seen |= {word for text in asked for word in text.split()}
    assert seen == words
    assert len(words) < 200


def test_facts_are_unambiguous() -> None:
    subjects = [subject for area in AREAS.values() for subject, _ in area.pairs]
    assert len(subjects) == len(set(subjects)) == 60
    assert not set(subjects) & {*COLOURS, *SHAPES, *NUMBERS}
    assert ("three", "plus", "four", "seven") in SUMS
