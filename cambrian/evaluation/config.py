"""The evaluation block of scales/<scale>.yaml."""

from __future__ import annotations

from typing import Literal

from cambrian.params import Params


class PromptConfig(Params):
    """How one benchmark's question is put to the model (paper, table of prompts appended per benchmark)."""

    options: Literal["omitted", "lettered"]
    """`lettered`: a line `A. text` for every option follows the question; `omitted`: the question alone, and the
    option's text is the expected reply."""
    ocr_tokens: bool
    """Whether the data set's own OCR tokens are put into the question (TextVQA)."""
    suffix: str
    """The line that asks for a form of answer; empty for none."""


class EvaluationConfig(Params):
    """How runs are evaluated."""

    batch_size: int
    max_new_tokens: int
    prompts: dict[str, PromptConfig]
    """One entry per score; the scores listed here are the ones evaluated."""
