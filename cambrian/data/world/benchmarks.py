"""The sixteen benchmarks on pictures and facts of the world, each in the layout of its data set on the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from cambrian.artifacts import write_folder, write_json
from cambrian.data.world.benchmark_layouts import IMAGE_COLUMNS, LAYOUTS, MME_SUBTASKS, Drawn
from cambrian.data.world.cards import Card
from cambrian.data.world.config import WorldConfig
from cambrian.data.world.cvbench import CVBenchConfig, Task, find_candidates
from cambrian.data.world.pictures import draw_png, sample_picture
from cambrian.data.world.question_forms import NO, YES, Question
from cambrian.data.world.questions import draw_question, find_questions, sample_twins
from cambrian.data.world.scenes import sample_scene
from cambrian.data.world.words import Kind
from cambrian.interfaces import ParamsError
from cambrian.params import Params, look_up
from cambrian.runtime import generator_seed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cambrian.data.world.cvbench import Candidate

    _Draw = Callable[[np.random.Generator, "Wish", "BenchmarksConfig"], Drawn | None]

_MAX_DRAWS = 1000
"""Pictures tried for one item before the params are blamed."""


class BenchmarkSet(Params):
    """What one score's items are drawn from."""

    items: int
    """Questions; pictures of MME-P and pairs of MMVP, which have two questions each; questions of MMB before their
    options are turned round."""
    pictures: list[Kind]
    """Taken in turn, so that every kind of question meets each of them."""
    kinds: list[str]
    """Kinds of questions, or tasks of CV-Bench, taken in turn."""


class BenchmarksConfig(Params):
    """The benchmarks of a generated world."""

    kind: Literal["generated"]
    world: WorldConfig
    cvbench: CVBenchConfig
    sets: dict[str, BenchmarkSet]
    """By score."""


def build_benchmarks(
    config: BenchmarksConfig, *, seed: int, split: Literal["test", "validation"], output: Path
) -> None:
    """Write `NAME/test.parquet` for every score and `items.json` with the number of rows of each.

    The two splits are of the same form and of different pictures: results are reported on `test`, and settings chosen
    on `validation`, whose file has the same name so that it can stand in the other's place.

    Raises:
        ParamsError: a score or a kind of question does not exist, or the world has no picture for one.
    """
    counts = {}
    with write_folder(output, seed=seed, split=split) as folder:
        for name, chosen in config.sets.items():
            rows = [
                row
                for index in range(chosen.items)
                for row in draw_rows(config, seed=seed, split=split, name=name, index=index)
            ]
            _write_parquet(folder / name / "test.parquet", rows)
            counts[name] = len(rows)
        write_json(folder / "items.json", counts)


def draw_rows(config: BenchmarksConfig, *, seed: int, split: str, name: str, index: int) -> list[dict[str, Any]]:
    """The rows of the data set that one draw gives: one, or those that share a picture or make a pair."""
    drawn = draw_item(config, seed=seed, split=split, name=name, index=index)
    images = [
        {"bytes": draw_png(picture, config.world.image_side), "path": f"{name}-{index}-{number}.png"}
        for number, picture in enumerate(drawn.pictures)
    ]
    return LAYOUTS[name](index, drawn, images)


def draw_item(config: BenchmarksConfig, *, seed: int, split: str, name: str, index: int) -> Drawn:
    """The pictures and questions of one item, from a generator of its own.

    A pool that is to hold benchmark pictures on purpose draws them here, by the same seed.

    Raises:
        ParamsError: as `build_benchmarks`.
    """
    draw: _Draw = look_up(_DRAWERS, name, where="benchmarks.sets")
    chosen = config.sets[name]
    rng = np.random.default_rng(generator_seed(seed, f"benchmark/{split}/{name}/{index}"))
    where = f"benchmarks.sets.{name}"
    turn, place = divmod(index, len(chosen.kinds))
    kind = chosen.kinds[place]
    wish = Wish(kind, chosen.pictures[turn % len(chosen.pictures)], turn)
    try:
        for _ in range(_MAX_DRAWS):
            drawn = draw(rng, wish, config)
            if drawn is not None:
                return drawn
    except ValueError as error:
        raise ParamsError(f"{where}: {error}") from error
    raise ParamsError(
        f"{where}: none of {_MAX_DRAWS} pictures has a question of {kind}: change its pictures, kinds or margins"
    )


@dataclass(frozen=True, slots=True)
class Wish:
    """What the next item is to be."""

    kind: str
    """Of question, or CV-Bench's task."""
    picture: Kind
    turn: int
    """How many items of this kind came before."""


def _draw_question(rng: np.random.Generator, wish: Wish, config: BenchmarksConfig) -> Drawn | None:
    """One picture with one question."""
    picture = sample_picture(rng, config.world, wish.picture)
    question = draw_question(rng, picture, wish.kind, config.world.scene)
    if question is None:
        return None
    tokens = tuple(sign.word for sign in picture.signs) if isinstance(picture, Card) else ()
    return Drawn((picture,), (_place_answer(question, wish.turn),), ocr_tokens=tokens)


def _draw_mme(rng: np.random.Generator, wish: Wish, config: BenchmarksConfig) -> Drawn | None:
    """One picture with one question whose answer is yes and one whose answer is no."""
    look_up(MME_SUBTASKS, wish.kind, where="kinds")
    picture = sample_picture(rng, config.world, wish.picture)
    questions = find_questions(picture, wish.kind, config.world.scene)
    sides = [[question for question in questions if question.answer == answer] for answer in (YES, NO)]
    if not all(sides):
        return None
    return Drawn((picture,), tuple(side[rng.integers(len(side))] for side in sides))


def _draw_mmvp(rng: np.random.Generator, wish: Wish, config: BenchmarksConfig) -> Drawn:
    """Two scenes that differ in one property, and the question that tells them apart; its options are both answers."""
    first, second, question, other = sample_twins(rng, config.world, [wish.kind])
    options = (question.answer, other.answer) if wish.turn % 2 else (other.answer, question.answer)
    return Drawn((first, second), tuple(replace(one, choices=options) for one in (question, other)))


def _draw_cvbench(rng: np.random.Generator, wish: Wish, config: BenchmarksConfig) -> Drawn | None:
    """One scene of the next source with one question of the next task."""
    rules = config.cvbench
    task: Task = look_up(_TASKS, wish.kind, where="kinds")
    sources = rules.sources_3d if task in ("Depth", "Distance") else rules.sources_2d
    source = list(sources)[wish.turn % len(sources)]
    least, most = sources[source]
    scene = sample_scene(rng, config.world.scene, int(rng.integers(least, most + 1)))
    candidates = find_candidates(scene, task, rules, rng)
    if not candidates:
        return None
    # Every answer that the scene allows is as likely, so that none is a good guess.
    answers = sorted({candidate.answer for candidate in candidates})
    answer = answers[rng.integers(len(answers))]
    alike = [candidate for candidate in candidates if candidate.answer == answer]
    chosen = alike[rng.integers(len(alike))]
    question = Question(
        task, chosen.text, chosen.answer, (chosen.answer, *chosen.others), needs_choices=task in ("Depth", "Distance")
    )
    # A source comes every len(sources) turns; its own count moves the answer from letter to letter.
    return Drawn(
        (scene,), (_place_answer(question, wish.turn // len(sources)),), source=source, boxes=_boxes(chosen, config)
    )


def _boxes(candidate: Candidate, config: BenchmarksConfig) -> tuple[tuple[float, float, float, float], ...]:
    """The boxes of the solids that a question is about, in pixels, cut at the picture's edges."""
    side = config.world.image_side
    boxes = []
    for solid in candidate.marked:
        left, top, right, bottom = (min(max(edge, 0.0), 1.0) * side for edge in solid.bbox)
        boxes.append((left, top, right, bottom))
    return tuple(boxes)


_TASKS: dict[str, Task] = {task: task for task in get_args(Task)}

_DRAWERS: dict[str, _Draw] = {
    **dict.fromkeys(LAYOUTS, _draw_question),
    "MME-P": _draw_mme,
    "MMVP": _draw_mmvp,
    "CV-Bench-2D": _draw_cvbench,
    "CV-Bench-3D": _draw_cvbench,
}


def _place_answer(question: Question, turn: int) -> Question:
    """The question with its right option one place on from turn to turn, so that no letter is a good guess."""
    if not question.choices:
        return question
    options = [choice for choice in question.choices if choice != question.answer]
    options.insert(turn % len(question.choices), question.answer)
    return replace(question, choices=tuple(options))


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows in the way that `datasets` writes them, with the columns' features in the file's metadata."""
    import pyarrow
    import pyarrow.parquet

    picture = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    inferred = pyarrow.Table.from_pylist(rows).schema
    fields = []
    features: dict[str, Any] = {}
    for field in inferred:
        if field.name in IMAGE_COLUMNS and not pyarrow.types.is_string(field.type):
            is_list = pyarrow.types.is_list(field.type)
            fields.append(pyarrow.field(field.name, pyarrow.list_(picture) if is_list else picture))
            features[field.name] = {"feature": _IMAGE, "_type": "List"} if is_list else _IMAGE
        else:
            fields.append(field)
            features[field.name] = _feature(field.type)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(fields, metadata)), path)


_IMAGE = {"_type": "Image"}


def _feature(kind: Any) -> dict[str, Any]:
    """An Arrow type as `datasets` names it."""
    import pyarrow

    if pyarrow.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}
