"""What final models say to open questions: the effect of format prompts, and examples (figures 14 and 19)."""

from __future__ import annotations

import base64
import math
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cambrian.report.analyses import DIALOGUES, read_analysis, round_errors
from cambrian.report.published import AVERAGE
from cambrian.report.tables import Row, Table, round_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cambrian.report.config import AnswerMachineTable
    from cambrian.report.score_figures import Rows
    from cambrian.report.scores import RunScores

MIN_OPEN_WORDS = 3
"""A question whose reference answer has so many words asks for talk, not for a word."""
NUM_EXAMPLES = 6
NUM_SHOWN_TURNS = 4
MAX_LINES = 4
"""Of one paragraph; what is longer ends on an ellipsis, and stands whole in the results."""
NUM_COLUMNS = 2
NUM_LINE_CHARACTERS = 44
"""Of one column of a figure."""

_OPEN_QUESTIONS = "open questions"
_MEASURES = ("words in a reply", "words in the reference", "one-word replies, %", "ROUGE-1")


@dataclass(frozen=True, slots=True)
class Talk:
    """A run's replies to the open questions, measured: one number a question, in the questions' order."""

    values: dict[str, list[float]]
    """By measure, as `_MEASURES` names them."""

    @classmethod
    def of(cls, dialogues: Sequence[Mapping[str, Any]]) -> Self:
        """Measure length and quality of the replies that stage `converse` recorded."""
        turns = [
            turn for dialogue in dialogues for turn in dialogue["turns"] if turn["reference_words"] >= MIN_OPEN_WORDS
        ]
        words, references, single, quality = _MEASURES
        return cls(
            {
                words: [float(turn["words"]) for turn in turns],
                references: [float(turn["reference_words"]) for turn in turns],
                single: [100.0 * (turn["words"] <= 1) for turn in turns],
                quality: [100.0 * turn["overlap"] for turn in turns],
            }
        )

    def summarise(self) -> dict[str, tuple[float, float | None]]:
        """The number of questions, and each measure's mean with its standard error; empty without any question."""
        num_questions = len(self.values[_MEASURES[0]])
        if not num_questions:
            return {}
        means = {name: mean_with_error(values) for name, values in self.values.items()}
        return {_OPEN_QUESTIONS: (float(num_questions), None), **means}


def mean_with_error(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error, of one value or more."""
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / len(values)


def read_talk(analyses: Path, runs: Iterable[str], *, scale: str) -> dict[str, Talk]:
    """Of those runs that were talked to and asked an open question, what was measured.

    Raises:
        ArtifactError: a recorded conversation is broken, or of another run or scale.
    """
    found = {run: read_analysis(analyses, DIALOGUES, run, scale=scale) for run in runs}
    talk = {run: Talk.of(value["dialogues"]) for run, value in found.items() if value is not None}
    return {run: measured for run, measured in talk.items() if measured.summarise()}


def make_answer_machine_table(
    config: AnswerMachineTable, scores: Mapping[str, RunScores], analyses: Path, *, scale: str
) -> Table:
    """Ours, beside figure 14: what format prompts in training do to scores and to the length and quality of talk."""
    rows = []
    for label, run in (("with format prompts", config.with_prompts), ("without", config.without_prompts)):
        found = read_analysis(analyses, DIALOGUES, run, scale=scale)
        measures = Talk.of(found["dialogues"]).summarise() if found is not None else {}
        if run in scores:
            measures[AVERAGE] = (scores[run].headline[AVERAGE], scores[run].standard_error[AVERAGE])
        rows.append(
            Row(
                keys=[label],
                run=run,
                status="added" if measures else "not attempted",
                published={},
                reproduced={name: round_cell(value) for name, (value, _) in measures.items()},
                standard_error=round_errors({name: error for name, (_, error) in measures.items()}),
            )
        )
    return Table(
        id="answer_machine",
        number=None,
        title="Format prompts in training: scores, and talk in answer to open questions",
        scale=scale,
        keys=["training"],
        columns=[AVERAGE, _OPEN_QUESTIONS, *_MEASURES],
        rows=rows,
        notes=[],
        own_notes=[
            "Ours: the paper reports unchanged scores and better conversation and prints no number. Open questions are "
            f"those whose reference answer has {MIN_OPEN_WORDS} words or more; ROUGE-1 is the F measure of shared "
            "words, in percent; errors are over questions."
        ],
    )


def list_prompt_examples(config: AnswerMachineTable, analyses: Path, pictures: Path, *, scale: str) -> Rows:
    """Figure 14: replies to open questions of the models trained with and without format prompts."""
    found = [
        read_analysis(analyses, DIALOGUES, run, scale=scale) for run in (config.with_prompts, config.without_prompts)
    ]
    if found[0] is None or found[1] is None:
        return []
    images = _read_images(pictures)
    pairs = [
        (first["index"], turn, other)
        for first, second in zip(found[0]["dialogues"], found[1]["dialogues"], strict=True)
        for turn, other in list(zip(first["turns"], second["turns"], strict=True))[:1]
        if turn["reference_words"] >= MIN_OPEN_WORDS
    ]
    return [
        {
            **place_example(number),
            "question": turn["question"],
            "reference": turn["reference"],
            "with_prompts": turn["reply"],
            "without_prompts": other["reply"],
            "text": wrap_lines(
                f"“{turn['question']}”",
                f"with format prompts: {turn['reply']}",
                f"without: {other['reply']}",
                f"reference: {turn['reference']}",
            ),
            "image": images[index],
        }
        for number, (index, turn, other) in enumerate(pairs[:NUM_EXAMPLES])
    ]


def list_dialogues(config: AnswerMachineTable, analyses: Path, pictures: Path, *, scale: str) -> Rows:
    """Figure 19: the longest dialogues with the largest final model that has been talked to."""
    found = [read_analysis(analyses, DIALOGUES, run, scale=scale) for run in config.talkers]
    chosen = next((one for one in found if one is not None), None)
    if chosen is None:
        return []
    images = _read_images(pictures)
    longest = sorted(chosen["dialogues"], key=lambda dialogue: -len(dialogue["turns"]))[:NUM_EXAMPLES]
    return [
        {
            **place_example(number),
            "run": chosen["run"],
            "questions": len(dialogue["turns"]),
            "text": wrap_lines(
                *(
                    f"{mark} {turn[side]}"
                    for turn in dialogue["turns"][:NUM_SHOWN_TURNS]
                    for mark, side in (("–", "question"), ("»", "reply"))
                )
            ),
            "image": images[dialogue["index"]],
        }
        for number, dialogue in enumerate(longest)
    ]


def place_example(number: int) -> dict[str, int]:
    """Where the example of this number stands in its figure, row by row."""
    row, column = divmod(number, NUM_COLUMNS)
    return {"row": row, "column": column}


def wrap_lines(*paragraphs: str) -> str:
    """Paragraphs in lines that fit into a column of a figure of examples; long ones are cut."""
    return "\n".join(
        line
        for text in paragraphs
        for line in textwrap.wrap(text, NUM_LINE_CHARACTERS, max_lines=MAX_LINES, placeholder=" …")
    )


def _read_images(path: Path) -> list[str]:
    """The dialogues' pictures, in their order, as addresses that hold them."""
    import pyarrow.parquet

    column = pyarrow.parquet.ParquetFile(path).read(columns=["image"]).column("image").to_pylist()
    return [image_address(image["bytes"]) for image in column]


def image_address(data: bytes) -> str:
    """A picture inside its own address, so that a page needs no file for it."""
    kind = "jpeg" if data.startswith(b"\xff\xd8") else "gif" if data.startswith(b"GIF") else "png"
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()
