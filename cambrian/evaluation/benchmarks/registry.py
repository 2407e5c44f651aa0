"""The paper's sixteen scores in its four groups, the further ones of the release, and their items."""

from __future__ import annotations

import string
from typing import TYPE_CHECKING

from cambrian.evaluation.benchmarks import (
    further_choice,
    further_open,
    general,
    knowledge,
    ocr_chart,
    vision_centric,
)
from cambrian.interfaces import ArtifactError, Item
from cambrian.params import look_up

if TYPE_CHECKING:
    from pathlib import Path

    from cambrian.evaluation.benchmarks.benchmark import Benchmark, Question
    from cambrian.evaluation.config import PromptConfig

GROUPS: dict[str, tuple[Benchmark, ...]] = {
    "General": (general.MME_P, general.MMBENCH, general.SEED, general.GQA),
    "Knowledge": (knowledge.SCIENCEQA, knowledge.MMMU, knowledge.MATHVISTA, knowledge.AI2D),
    "OCR & Chart": (ocr_chart.CHARTQA, ocr_chart.OCRBENCH, ocr_chart.TEXTVQA, ocr_chart.DOCVQA),
    "Vision-Centric": (
        vision_centric.MMVP,
        vision_centric.REALWORLDQA,
        vision_centric.CVBENCH_2D,
        vision_centric.CVBENCH_3D,
    ),
}
"""In the paper's order."""

PAPER_SCORES = frozenset(benchmark.name for group in GROUPS.values() for benchmark in group)
"""The sixteen that enter its means."""

FURTHER: tuple[Benchmark, ...] = (*further_choice.ALL, *further_open.ALL)
"""What the release evaluates besides; they enter none of the paper's means."""

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark for group in (*GROUPS.values(), FURTHER) for benchmark in group
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of a score's name.

    Raises:
        ParamsError: there is none.
    """
    benchmark: Benchmark = look_up(BENCHMARKS, name, where="benchmarks")
    return benchmark


def read_items(folder: Path, name: str, prompt: PromptConfig) -> list[Item]:
    """Read the items of one score from `folder/name/test.parquet`, in the order of the file.

    Raises:
        ArtifactError: the file is missing or unreadable, lacks a column, has a row that is not as its data set
            documents it (no id, no text where one belongs, an unknown kind) or that has no image, no usable row, or
            two rows of one id.
    """
    import pyarrow
    import pyarrow.parquet

    benchmark = find_benchmark(name)
    path = folder / name / "test.parquet"
    try:
        table = pyarrow.parquet.ParquetFile(path).read(columns=list(benchmark.columns))
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise ArtifactError(f"{path} cannot be read ({error}): run `dvc repro build_benchmarks`") from error
    missing = [column for column in benchmark.columns if column not in table.column_names]
    if missing:
        raise ArtifactError(
            f"{path} has no column {', '.join(missing)}: its data set has other fields than {name} needs"
        )
    items: list[Item] = []
    for number, row in enumerate(table.to_pylist()):
        try:
            question = benchmark.read_row(row, number)
            if question is not None:
                _check_texts(question)
        except AttributeError as error:
            raise ArtifactError(
                f"{path}, row {number}: a field is of another type than is read here: {error}"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path}, row {number}: {error}") from error
        if question is not None:
            if question.image is None:
                raise ArtifactError(f"{path}, row {number}, has no image: asked without it, its score would be another")
            items.append(_make_item(name, question, prompt))
    _check_ids(items, path)
    return items


def _make_item(name: str, question: Question, prompt: PromptConfig) -> Item:
    return Item(
        id=f"{name}/{question.id}",
        benchmark=name,
        question=write_prompt(question, prompt),
        choices=question.choices,
        answers=question.answers,
        category=question.category,
        group=question.group if question.group is not None else question.id,
        image=question.image,
    )


def write_prompt(question: Question, prompt: PromptConfig) -> str:
    """The user's turn: hint and question, OCR tokens after it, in the layout for questions with or without options.

    Source: release, eval/, which differs between benchmarks in where blanks and line breaks go.
    """
    if prompt.own_wording and question.own_wording:
        text = question.own_wording
    else:
        text = prompt.hint_separator.join(part for part in (question.hint, question.text) if part)
    if prompt.ocr_tokens and question.ocr_tokens:
        text += f"\nReference OCR tokens: {', '.join(question.ocr_tokens)}"
    if not question.choices:
        return prompt.question.format(question=text)
    options = prompt.separator.join(
        prompt.option.format(letter=letter, text=choice)
        for letter, choice in zip(string.ascii_uppercase, question.choices, strict=False)
    )
    return prompt.choice_question.format(question=text, options=options)


def _check_texts(question: Question) -> None:
    """Refuse what another revision of a data set may hold in the place of texts: nothing, numbers, lists."""
    for what, values in (
        ("question", (question.text,)),
        ("option", question.choices),
        ("answer", question.answers),
        ("hint", (question.hint,)),
        ("own wording", (question.own_wording,)),
        ("OCR token", question.ocr_tokens),
        ("category", (question.category,)),
    ):
        for value in values:
            if not isinstance(value, str):
                raise TypeError(f"the {what} {value!r} is no text: its data set has other fields than are read here")


def _check_ids(items: list[Item], path: Path) -> None:
    if not items:
        raise ArtifactError(f"{path} has no usable row: run `dvc repro build_benchmarks`")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ArtifactError(f"{path} has two rows of the id {item.id}: its ids must differ")
        seen.add(item.id)
