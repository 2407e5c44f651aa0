"""The evaluation block of scales/<scale>.yaml, and what evaluation reads of a run's row."""

from __future__ import annotations

from string import Formatter

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cambrian.params import Params


class PromptConfig(Params):
    """How one benchmark's question is put to the model (paper, table of prompts appended per benchmark)."""

    question: str
    """How the text is made where there are no options: a layout with `{question}`."""
    choice_question: str
    """The same where there are: a layout with `{question}` and, where they are shown, `{options}`."""
    option: str
    """How one option is written: a layout with `{text}` and, where options are lettered, `{letter}`."""
    separator: str
    """Between options."""
    hint_separator: str
    """Between a passage that belongs to the question and the question."""
    own_wording: bool
    """Whether the data set's ready-made text, options included, stands for the question (CV-Bench, MathVista)."""
    ocr_tokens: bool
    """Whether the data set's own OCR tokens are put after the question (TextVQA)."""
    max_new_tokens: int = Field(gt=0)
    """Where a reply is cut off."""

    @model_validator(mode="after")
    def _check_layouts(self) -> PromptConfig:
        fields = {"question": {"question"}, "choice_question": {"question", "options"}, "option": {"letter", "text"}}
        for name, allowed in fields.items():
            found = {field for _, field, _, _ in Formatter().parse(getattr(self, name)) if field is not None}
            if not found <= allowed:
                raise ValueError(f"{name} has {sorted(found - allowed)}, it may have {sorted(allowed)}")
        return self


class EvaluationConfig(Params):
    """How runs are evaluated."""

    batch_size: int = Field(gt=0)
    processes: int = Field(gt=0)
    """Among which the batches of one run are dealt; on CUDA each takes a device of its own. Changes no reply."""
    replies_folder: str
    """Where replies are logged as they come, so that a run that was stopped goes on and a changed parser asks nothing
    again. Outside DVC's outputs."""
    prompts: dict[str, PromptConfig]
    """One entry per score; the scores listed here are the ones evaluated."""


class EvaluatedRun(BaseModel):
    """The one value of a run's row that evaluation reads; the others made the model."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    use_images: bool


class AttentionConfig(Params):
    """Where the attention that each encoder gets is measured (paper, NeurIPS table 22)."""

    benchmarks: list[str] = Field(min_length=1)
    """Scores whose items are asked."""
    batch_size: int = Field(gt=0)
