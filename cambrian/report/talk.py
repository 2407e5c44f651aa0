"""What final models say to open questions: the effect of format prompts, and examples (figures 14 and 19)."""

from __future__ import annotations

import base64
import math
import textwrap
from typing import TYPE_CHECKING, Any

from cambrian.report.analyses import DIALOGUES, read_analysis, round_errors
from cambrian.report.published import AVERAGE
from cambrian.report.tables import Row, Table, round_cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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

_TALK = ("open questions", "words in a reply", "words in the reference", "one-word replies, %", "ROUGE-1")


def make_answer_machine_table(
    config: AnswerMachineTable, scores: Mapping[str, RunScores], analyses: Path, *, scale: str
) -> Table:
    """Ours, beside figure 14: what format prompts in training do to scores and to the length and quality of talk."""
    rows = []
    for label, run in (("with format prompts", config.with_prompts), ("without", config.without_prompts)):
        found = read_analysis(analyses, DIALOGUES, run, scale=scale)
        measures = measure_talk(found["dialogues"]) if found is not None else {}
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
        columns=[AVERAGE, *_TALK],
        rows=rows,
        notes=[],
        own_notes=[
            "Ours: the paper reports unchanged scores and better conversation and prints no number. Open questions are "
            f"those whose reference answer has {MIN_OPEN_WORDS} words or more; ROUGE-1 is the F measure of shared "
            "words, in percent; errors are over questions."
        ],
    )


def measure_talk(dialogues: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float | None]]:
    """Length and quality of the replies to open questions, each with its standard error over questions."""
    turns = [turn for dialogue in dialogues for turn in dialogue["turns"] if turn["reference_words"] >= MIN_OPEN_WORDS]
    if not turns:
        return {}
    number, words, references, single, quality = _TALK
    return {
        number: (float(len(turns)), None),
        words: _mean([turn["words"] for turn in turns]),
        references: _mean([turn["reference_words"] for turn in turns]),
        single: _mean([100.0 * (turn["words"] <= 1) for turn in turns]),
        quality: _mean([100.0 * turn["overlap"] for turn in turns]),
    }


def _mean(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values)) / len(values)


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
